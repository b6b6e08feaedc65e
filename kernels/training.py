"""Encrypted training: full-batch gradient descent on a linear head.

A step runs over the row blocks, some at a time: logits, residuals, inner sums of the gradient; then the
update. The same code runs encrypted, in clear slots, and on the counting engine that the planner uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Protocol, TypeAlias

from blindtune.errors import PlanError
from blindtune.he.engine import Ciphertext, Engine
from blindtune.kernels import products
from blindtune.kernels.layout import Layout
from blindtune.kernels.polynomial import DEPTH


@dataclass(frozen=True)
class Program:
    """What the server does; public. Learning rates and class weights stay inside ciphertexts.

    Attributes:
        steps: T, gradient steps.
        degree: of the residual polynomial: 1, 3, 5 or 7.
        sets: which coefficient set each step uses (steps with other learning rates use others).
        retain: factor on the previous weights in each step (1 - learning rate · decay); the first
            step starts from zero and ignores its own.
        momentum: factor on the previous change of the weights in each step; none if empty. Older weights
            sit levels above the newest gradient, so any such linear rule costs no level.
        started: whether training starts from weights that the owner encrypts for it, instead of zero.
        refreshes: after how many steps the weights are made fresh, with all their levels again; in order.
    """

    steps: int
    degree: int
    sets: tuple[int, ...]
    retain: tuple[float, ...]
    momentum: tuple[float, ...] = ()
    started: bool = False
    refreshes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 1 or self.degree not in DEPTH:
            raise PlanError(f"{self.steps} steps of degree {self.degree}", remedy="Use degree 1, 3, 5 or 7.")
        if len(self.sets) != self.steps or len(self.retain) != self.steps or min(self.sets) < 0:
            raise PlanError("a program needs one coefficient set and one retain factor a step")
        if self.momentum and len(self.momentum) != self.steps:
            raise PlanError("a program with momentum needs one factor a step")
        if self.sets[0] != 0:
            raise PlanError("the first step uses coefficient set 0")
        marks = (0, *self.refreshes, self.steps)
        if any(a >= b for a, b in pairwise(marks)):
            raise PlanError(
                f"refreshes after {', '.join(map(str, self.refreshes))} of {self.steps} steps",
                remedy="Refresh after the first step or later and before the last, in order.",
            )

    @property
    def levels(self) -> int:
        """Levels that training takes, from one refresh to the next."""
        return max(self.levels_after(steps) for steps in (*self.refreshes, self.steps))

    def levels_after(self, steps: int) -> int:
        """Levels that ``steps`` take since the last refresh before: ``2 + depth`` each, one if from zero."""
        last = max((r for r in self.refreshes if r < steps), default=0)
        from_zero = last == 0 and not self.started and steps > 0
        return from_zero + (steps - last - from_zero) * (2 + DEPTH[self.degree])

    def looks_back(self, step: int) -> bool:
        """Whether a step, from 0 on, needs the change that the step before it made."""
        return step > 0 and bool(self.momentum) and self.momentum[step] != 0

    def levels_entering(self, steps: int) -> int:
        """Levels that weights have taken after so many steps when the next one begins."""
        return 0 if steps in self.refreshes else self.levels_after(steps)

    def levels_refreshed(self, number: int) -> tuple[int, ...]:
        """Levels that a refresh finds taken: of the weights, and of those before if momentum looks back."""
        steps = self.refreshes[number]
        back = self.looks_back(steps) and (steps > 1 or self.started)
        return (self.levels_after(steps), *((self.levels_entering(steps - 1),) * back))

    @property
    def terms(self) -> int:
        """Ciphertexts a residual takes: the target and, where a step starts from weights, coefficients."""
        return 1 + (self.degree + 1) // 2 * (self.steps > 1 or self.started)


Refresh: TypeAlias = Callable[[int, list[Ciphertext]], list[Ciphertext]]
"""Makes a program's weights fresh; takes the refresh's number, from 0 on, too. See :class:`Trainer`."""


@dataclass(frozen=True)
class Progress:
    """Where training stands: ``done`` of ``total`` phases, counted over batches of row blocks and steps."""

    step: int
    steps: int
    phase: str
    level: int
    done: int
    total: int


@dataclass(frozen=True)
class State:
    """Where a training can go on from.

    Attributes:
        step: steps done.
        weights: after them, by weight block and column block.
        before: after the step before; what momentum looks back to. Empty if there was none.

    A state after a step that a refresh follows is that before the refresh.
    """

    step: int
    weights: products.Grid
    before: products.Grid

    def check(self, program: Program, layout: Layout, levels: int) -> None:
        """Refuse a state that a program does not pass through.

        Args:
            levels: of fresh ciphertexts.

        Raises:
            PlanError: another step, shape or level.
        """
        if not 1 <= self.step <= program.steps:
            raise PlanError(f"a state after {self.step} of {program.steps} steps")
        taken = (program.levels_after(self.step), program.levels_entering(self.step - 1))
        empty = (False, self.step == 1 and not program.started)
        for grid, lost, nothing in zip((self.weights, self.before), taken, empty, strict=True):
            found = [[(c.level, c.size, c.product) for c in row] for row in grid]
            row = [(levels - lost, 2, False)] * len(layout.widths)
            if found != ([] if nothing else [row] * layout.weight_blocks):
                raise PlanError("a state of another shape or level than this program's")


class Work(Protocol):
    """What a step does with the row blocks of a study, here or on many machines."""

    engine: Engine
    layout: Layout

    def phases(self, program: Program, step: int) -> int:
        """How often :meth:`sums` reports in a step."""

    def sums(
        self, program: Program, step: int, weights: products.Grid, report: Callable[[str, int], None]
    ) -> products.Grid:
        """The inner sums of the gradient over all row blocks.

        Args:
            step: from 0 on.
            weights: by weight block and column block; empty for zero.
            report: takes each phase that is done, and the level it was done at.

        Returns:
            By column block and baby step (one after the other) and weight block; not relinearised.
        """


class Trainer:
    """Trains on one study.

    Args:
        work: with the study's ciphertexts; it trains once, as levels only fall.
    """

    def __init__(self, work: Work) -> None:
        self.work, self.engine, self.layout = work, work.engine, work.layout

    def train(
        self,
        program: Program,
        on_progress: Callable[[Progress], None] = lambda _: None,
        start: products.Grid | None = None,
        on_step: Callable[[State], None] = lambda _: None,
        resume: State | None = None,
        refresh: Refresh | None = None,
    ) -> products.Grid:
        """Run a program.

        Args:
            start: fresh weights by weight block and column block, for a program that is ``started``.
            on_step: called after each step, before the refresh that may follow.
            resume: go on after these steps. The result is the same, residue by residue, as without a
                break: evaluation draws no random numbers.
            refresh: takes the weights by weight block and column block, and those before where momentum
                looks back, one after the other; without it the engine makes them fresh.

        Returns:
            For each weight block, the weights of each column block.

        Raises:
            PlanError: the levels do not suffice, a start where none belongs, or a state that this program
                does not pass through.
        """
        engine, layout = self.engine, self.layout
        levels = engine.parameters.levels
        if levels < program.levels:
            raise PlanError(
                f"{program.steps} steps need {program.levels} levels, the parameters have {levels}"
            )
        heads, columns = layout.weight_blocks, len(layout.widths)
        if program.started != (start is not None):
            raise PlanError("weights to start from, for a program that starts from zero, or none for another")
        reports = [
            self.work.phases(program, step) + 1 + (step in program.refreshes) for step in range(program.steps)
        ]
        done, total = 0, sum(reports)
        weights: products.Grid = start or []
        before, first = weights, 0
        if resume is not None:
            resume.check(program, layout, levels)
            weights, before, first = resume.weights, resume.before, resume.step
            done = sum(reports[:first])

        def report(step: int, phase: str, level: int) -> None:
            nonlocal done
            done += 1
            on_progress(Progress(step + 1, program.steps, phase, level, done, total))

        for step in range(first, program.steps):
            if step in program.refreshes:
                weights, before = self._fresh(program, step, weights, before, refresh)
                report(step, "refresh", levels)
            sums = self.work.sums(program, step, weights, partial(report, step))
            kept = self._kept(program, step, weights, before, sums[0][0].level)
            flat = products.gradient(engine, layout, sums, kept)
            before, weights = weights, [[flat[j * heads + k] for j in range(columns)] for k in range(heads)]
            report(step, "update", weights[0][0].level)
            on_step(State(step + 1, weights, before))
        return weights

    def _fresh(
        self,
        program: Program,
        step: int,
        weights: products.Grid,
        before: products.Grid,
        refresh: Refresh | None,
    ) -> tuple[products.Grid, products.Grid]:
        """The weights and, where the step looks back, those before, with all their levels."""
        number, columns, heads = program.refreshes.index(step), len(self.layout.widths), len(weights)
        grids = [weights, before][: len(program.levels_refreshed(number))]
        flat = [c for grid in grids for row in grid for c in row]
        found = self.engine.refresh(flat) if refresh is None else refresh(number, flat)
        wanted = [(self.engine.parameters.levels, 2, False)] * len(flat)
        if [(c.level, c.size, c.product) for c in found] != wanted:
            raise PlanError("a refresh that gave something else than as many fresh ciphertexts")
        rows = [found[n : n + columns] for n in range(0, len(found), columns)]
        return rows[:heads], rows[heads:] or before

    def _kept(
        self, program: Program, step: int, weights: products.Grid, before: products.Grid, level: int
    ) -> list[Ciphertext] | None:
        """What stays of older weights, by column block and weight block, one level below ``level``."""
        momentum = program.momentum[step] if program.momentum else 0.0
        found: list[Ciphertext] = []
        for older, factor in ((weights, program.retain[step] + momentum), (before, -momentum)):
            if not older or factor == 0:
                continue
            flat = [of_head[j] for j in range(len(self.layout.widths)) for of_head in older]
            if factor == 1:
                scaled = [self.engine.at_level(c, level - 1) for c in flat]
            else:
                # Older weights still sit levels above the new gradient: their scaling costs no depth.
                scaled = [self.engine.multiply_scalar(self.engine.at_level(c, level), factor) for c in flat]
            found = [self.engine.add(a, b) for a, b in zip(found, scaled, strict=True)] if found else scaled
        return found or None
