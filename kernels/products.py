"""The two matrix products of a gradient step, as baby-step giant-step sums over complex diagonals.

Notation of :mod:`blindtune.kernels.layout`; ``D[g, b]`` is the packed diagonal ``k = g·B + b``.

* forward: ``Σ_g rot_{gBC}( relin Σ_b D[g,b] ⊙ rot_{bC}(v) )``, twice its real part are the logits;
* backward: ``Σ_q rot_{qmC}( Σ_b rot_{-bC}( relin Σ_g D[g,b] ⊙ rot_{-gBC}(r) ) )``, whose conjugate is
  the gradient in the layout of ``v``.

Each inner sum is relinearised once. Giant steps run as a Horner chain and baby rotations as a chain of
single steps, so the keys are few; a link of a Horner chain rotates and relinearises with one division by
the special prime. Heads and row blocks go through every operation as one batch: an engine reads the
dataset and a key once for all of them. Halevi and Shoup 2014 introduced the diagonal method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blindtune.he.engine import Ciphertext, Engine
from blindtune.kernels.layout import Layout

Diagonal = Callable[[int, int, int, int], Ciphertext]
"""``(row block, column block, giant step, baby step)`` to its ciphertext, at the other factor's level."""

Grid = list[list[Ciphertext]]

TOGETHER = 8
"""Rows of the dataset in a product: the weights or residuals beside them are read from memory once."""


def baby_steps(engine: Engine, layout: Layout, weights: Sequence[Sequence[Ciphertext]]) -> list[Grid]:
    """The rotations of the weights that :func:`forward` needs.

    Args:
        weights: by weight block and column block.

    Returns:
        By weight block, column block and baby step.
    """
    columns = len(layout.widths)
    links = [[c for block in weights for c in block]]
    for _ in range(layout.baby - 1):
        links.append(engine.rotate(links[-1], layout.lanes))
    return [[[link[k * columns + j] for link in links] for j in range(columns)] for k in range(len(weights))]


def forward(
    engine: Engine, layout: Layout, diagonal: Diagonal, babies: Sequence[Grid], rows: Sequence[int]
) -> Grid:
    """Real logits of row blocks: one level down.

    Args:
        rows: the row blocks.

    Returns:
        By row block and weight block.
    """
    bc, heads = layout.baby * layout.lanes, len(babies)
    total: list[Ciphertext] = []
    for steps in _runs(layout, max(1, TOGETHER // len(rows))):
        blocks = [j for j, giants in enumerate(layout.giants) if steps[0] < giants]
        rights = [[c for j in blocks for c in of_head[j]] for of_head in babies]
        lefts = [
            [diagonal(i, j, g, b) for j in blocks for b in range(layout.baby)] for g in steps for i in rows
        ]
        sums = engine.multiply_accumulate(lefts, rights)
        for n in range(len(steps)):
            parts = sums[n * len(rows) * heads : (n + 1) * len(rows) * heads]
            total = engine.rotate(total, bc, onto=parts) if total else engine.relinearise(parts)
    total = engine.rescale(total)
    total = engine.conjugate(total, onto=total)
    return [total[n * heads : (n + 1) * heads] for n in range(len(rows))]


def _runs(layout: Layout, longest: int) -> list[list[int]]:
    """Giant steps from the last to the first, in runs that the same column blocks have."""
    runs: list[list[int]] = []
    for g in reversed(range(max(layout.giants))):
        have = [g < giants for giants in layout.giants]
        if runs and len(runs[-1]) < longest and [runs[-1][0] < giants for giants in layout.giants] == have:
            runs[-1].append(g)
        else:
            runs.append([g])
    return runs


def giant_steps(engine: Engine, layout: Layout, residuals: Sequence[Sequence[Ciphertext]]) -> list[Grid]:
    """The rotations of residuals that :func:`backward` needs.

    Args:
        residuals: by row block and weight block.

    Returns:
        By row block, weight block and giant step.
    """
    heads = len(residuals[0])
    links = [[c for row in residuals for c in row]]
    for _ in range(max(layout.giants) - 1):
        links.append(engine.rotate(links[-1], layout.slots - layout.baby * layout.lanes))
    return [[[link[n * heads + k] for link in links] for k in range(heads)] for n in range(len(residuals))]


def backward(
    engine: Engine,
    layout: Layout,
    diagonal: Diagonal,
    giants: Sequence[Grid],
    rows: Sequence[int],
    onto: Sequence[Sequence[Ciphertext]] | None,
) -> Grid:
    """The inner sums of the backward product over row blocks, added to those of others.

    Args:
        giants: from :func:`giant_steps`, for ``rows``.
        onto: what an earlier call returned.

    Returns:
        By column block and baby step (one after the other) and weight block; not relinearised.
    """
    sums: Grid = []
    for j, count in enumerate(layout.giants):
        heads = len(giants[0])
        rights = [[c for of_row in giants for c in of_row[k][:count]] for k in range(heads)]
        for start in range(0, layout.baby, TOGETHER):
            babies = range(start, min(start + TOGETHER, layout.baby))
            lefts = [[diagonal(i, j, g, b) for i in rows for g in range(count)] for b in babies]
            at = len(sums)
            before = None if onto is None else [c for row in onto[at : at + len(babies)] for c in row]
            found = engine.multiply_accumulate(lefts, rights, before)
            sums += [found[n * heads : (n + 1) * heads] for n in range(len(babies))]
    return sums


def gradient(
    engine: Engine,
    layout: Layout,
    sums: Sequence[Sequence[Ciphertext]],
    onto: Sequence[Ciphertext] | None = None,
) -> list[Ciphertext]:
    """The inner sums of all row blocks to the gradient in the layout of the weights: one level down.

    Args:
        onto: earlier weights, by column block and weight block, that the gradient is added to.

    Returns:
        By column block and weight block, one after the other.
    """
    columns, heads = len(layout.widths), len(sums[0])
    total: list[Ciphertext] = []
    for b in reversed(range(layout.baby)):
        parts = [c for j in range(columns) for c in sums[j * layout.baby + b]]
        if total:
            total = engine.rotate(total, layout.slots - layout.lanes, onto=parts)
        else:
            total = engine.relinearise(parts)
    for step in layout.doublings(min(layout.widths)):
        # A wide column block has a longer period: it joins in once the step has reached that.
        wide = [n for n in range(len(total)) if layout.widths[n // heads] * layout.lanes <= step]
        added = engine.rotate([total[n] for n in wide], step, onto=[total[n] for n in wide])
        for n, c in zip(wide, added, strict=True):
            total[n] = c
    # Only now: what rescaling rounds off would be added up by the doublings like the rows themselves.
    return engine.conjugate(engine.rescale(total), onto=onto)
