"""The row blocks of a study, and what a training step does with them.

A step's work falls apart by weight block and row block: each pair gives a summand of the gradient's inner
sums. Sums of residues are exact, so it does not matter who computes which, nor in what order they are added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from blindtune.he.engine import Ciphertext, Engine
from blindtune.kernels import products
from blindtune.kernels.layout import Layout
from blindtune.kernels.polynomial import odd_polynomial
from blindtune.kernels.products import Grid
from blindtune.kernels.training import Program

Key = tuple[int, int, int]


class DataPart(NamedTuple):
    """The dataset of one row block and column block, by giant step and, within, baby step."""

    row: int
    column: int


class ResidualPart(NamedTuple):
    """A residual's target and coefficients."""

    set: int
    head: int
    row: int


Part: TypeAlias = DataPart | ResidualPart
Report = Callable[[str, int], None]

BATCH = 48
"""Residuals, over row blocks and heads, that are in work at a time: more would only take more memory."""


class Blocks:
    """All of a study's ciphertexts, or those of some row blocks.

    Args:
        data: ``(row block, column block, giant, baby)`` to dataset ciphertexts. As levels fall they are
            lowered: in place, or beside the fresh ones for a program that comes back up by a refresh.
        residuals: ``(set, weight block, row block)`` to the target and the polynomial's coefficients.
    """

    def __init__(
        self,
        engine: Engine,
        layout: Layout,
        data: dict[tuple[int, int, int, int], Ciphertext],
        residuals: dict[Key, list[Ciphertext]],
    ) -> None:
        self.engine, self.layout = engine, layout
        self._data, self._residuals = data, residuals
        self._lowered: dict[tuple[int, int, int, int], Ciphertext] = {}

    def put(self, part: Part, found: Sequence[Ciphertext]) -> None:
        """Put a part's ciphertexts in their place."""
        if isinstance(part, ResidualPart):
            self._residuals[part] = list(found)
            return
        for n, c in enumerate(found):
            self._data[part.row, part.column, n // self.layout.baby, n % self.layout.baby] = c

    def phases(self, program: Program, step: int) -> int:
        """See :class:`~blindtune.kernels.training.Work`: three a batch; from zero there is only one."""
        batches = len(_batches(range(self.layout.row_blocks), self.layout.weight_blocks))
        return batches if step == 0 and not program.started else 3 * batches

    def sums(self, program: Program, step: int, weights: Grid, report: Report) -> Grid:
        """See :class:`~blindtune.kernels.training.Work`."""
        heads, rows = range(self.layout.weight_blocks), range(self.layout.row_blocks)
        return self.partial_sums(program, step, weights, heads, rows, report)

    def partial_sums(
        self, program: Program, step: int, weights: Grid, heads: range, rows: range, report: Report
    ) -> Grid:
        """The inner sums of some weight blocks over some row blocks; see :meth:`sums`."""
        engine, layout = self.engine, self.layout
        sums: Grid | None = None
        babies = products.baby_steps(engine, layout, [weights[k] for k in heads]) if weights else []
        for batch in _batches(rows, len(heads)):
            if weights:
                level = weights[0][0].level
                logits = products.forward(engine, layout, self._diagonal(program, level), babies, batch)
                report("forward", level)
                residuals = self._residual(program.sets[step], heads, batch, logits)
                report("residual", level - 1)
            else:
                residuals = [[self._residuals[0, k, i][0] for k in heads] for i in batch]
            level = residuals[0][0].level
            giants = products.giant_steps(engine, layout, residuals)
            sums = products.backward(engine, layout, self._diagonal(program, level), giants, batch, sums)
            report("backward", level)
        assert sums is not None
        return sums

    def _diagonal(self, program: Program, level: int) -> products.Diagonal:
        place = self._lowered if program.refreshes else self._data

        def get(*key: int) -> Ciphertext:
            i, j, g, b = key
            found = place.get((i, j, g, b))
            if found is None or found.level < level:
                found = self._data[i, j, g, b]
            place[i, j, g, b] = self.engine.at_level(found, level)
            return place[i, j, g, b]

        return get

    def _residual(self, chosen: int, heads: range, rows: range, logits: Grid) -> Grid:
        engine = self.engine
        terms = [self._residuals[chosen, k, i] for i in rows for k in heads]
        values = odd_polynomial(engine, [u for row in logits for u in row], [t[1:] for t in terms])
        found = [
            engine.subtract(engine.at_level(target[0], value.level), value)
            for target, value in zip(terms, values, strict=True)
        ]
        return [found[n * len(heads) : (n + 1) * len(heads)] for n in range(len(rows))]


def _batches(rows: range, heads: int) -> list[range]:
    """Row blocks that go through a step together."""
    size = max(1, BATCH // heads)
    return [range(i, min(i + size, rows.stop)) for i in range(rows.start, rows.stop, size)]
