"""The two matrix products of a gradient step, as baby-step giant-step sums over complex diagonals.

Notation of :mod:`blindtune.kernels.layout`; ``D[g, b]`` is the packed diagonal ``k = g·B + b``.

* forward: ``Σ_g rot_{gBC}( relin Σ_b D[g,b] ⊙ rot_{bC}(v) )``, twice its real part are the logits;
* backward: ``Σ_q rot_{qmC}( Σ_b rot_{-bC}( relin Σ_g D[g,b] ⊙ rot_{-gBC}(r) ) )``, whose conjugate is
  the gradient in the layout of ``v``.

Each inner sum is relinearised once. Giant steps run as a Horner chain and baby rotations as a chain of
single steps, so the keys are few; a part of a sum (for another worker) is brought to its place by
:func:`~blindtune.kernels.layout.compose`. Halevi and Shoup 2014 introduced the diagonal method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blindtune.he.engine import Ciphertext, Engine
from blindtune.kernels.layout import Layout, compose

Diagonal = Callable[[int, int, int], Ciphertext]
"""``(column block, giant step, baby step)`` to its ciphertext at the level of the other factor."""


def chain(engine: Engine, first: Ciphertext, step: int, count: int) -> list[Ciphertext]:
    """``first`` rotated by 0, step, …, (count - 1)·step slots."""
    out = [first]
    for _ in range(count - 1):
        out.append(engine.rotate(out[-1], step))
    return out


def place(engine: Engine, layout: Layout, value: Ciphertext, offset: int) -> Ciphertext:
    """``value`` rotated by ``offset`` with the keys that there are."""
    for step in compose(offset, layout.slots, engine.keys.rotations):
        value = engine.rotate(value, step)
    return value


def baby_steps(engine: Engine, layout: Layout, weights: Sequence[Ciphertext]) -> list[list[Ciphertext]]:
    """The rotations of every column block's weights that :func:`forward` needs."""
    return [chain(engine, v, layout.lanes, layout.baby) for v in weights]


def forward(
    engine: Engine,
    layout: Layout,
    diagonal: Diagonal,
    babies: Sequence[Sequence[Ciphertext]],
    start: int,
    stop: int,
) -> Ciphertext:
    """The giant steps ``start … stop - 1`` of one row block's forward sum; a product, not rescaled."""
    bc = layout.baby * layout.lanes
    total: Ciphertext | None = None
    for g in reversed(range(start, stop)):
        blocks = [j for j, giants in enumerate(layout.giants) if g < giants]
        lefts = [diagonal(j, g, b) for j in blocks for b in range(layout.baby)]
        rights = [babies[j][b] for j in blocks for b in range(layout.baby)]
        part = engine.relinearise(engine.multiply_accumulate(lefts, rights))
        total = part if total is None else engine.add(engine.rotate(total, bc), part)
    assert total is not None
    return place(engine, layout, total, start * bc)


def logits(engine: Engine, parts: Sequence[Ciphertext]) -> Ciphertext:
    """The parts of a forward sum to real logits: twice the real part, rescaled."""
    total = engine.rescale(_sum(engine, parts))
    return engine.add(total, engine.conjugate(total))


def backward(
    engine: Engine,
    layout: Layout,
    column_block: int,
    blocks: Sequence[tuple[Diagonal, Sequence[Ciphertext]]],
    start: int,
    stop: int,
) -> Ciphertext:
    """The baby steps ``start … stop - 1`` of one column block's backward sum; a product, not rescaled.

    Args:
        blocks: for each row block its diagonals and its residual's :func:`giant_steps`.
    """
    sums: list[Ciphertext | None] = [None] * (stop - start)
    for diagonal, giants in blocks:
        rights = giants[: layout.giants[column_block]]
        for b in range(start, stop):
            lefts = [diagonal(column_block, g, b) for g in range(len(rights))]
            sums[b - start] = engine.multiply_accumulate(lefts, rights, onto=sums[b - start])
    total: Ciphertext | None = None
    for part in reversed(sums):
        assert part is not None
        relinearised = engine.relinearise(part)
        total = (
            relinearised
            if total is None
            else engine.add(engine.rotate(total, layout.slots - layout.lanes), relinearised)
        )
    assert total is not None
    return place(engine, layout, total, -start * layout.lanes)


def giant_steps(engine: Engine, layout: Layout, residual: Ciphertext, count: int) -> list[Ciphertext]:
    """The rotations of a residual that :func:`backward` needs."""
    return chain(engine, residual, layout.slots - layout.baby * layout.lanes, count)


def gradient(engine: Engine, layout: Layout, column_block: int, parts: Sequence[Ciphertext]) -> Ciphertext:
    """The parts of a backward sum to the gradient in the layout of the weights."""
    total = engine.rescale(_sum(engine, parts))
    for step in layout.doublings(layout.widths[column_block]):
        total = engine.add(total, engine.rotate(total, step))
    return engine.conjugate(total)


def _sum(engine: Engine, parts: Sequence[Ciphertext]) -> Ciphertext:
    total = parts[0]
    for part in parts[1:]:
        total = engine.add(total, part)
    return total
