"""Encrypted training: full-batch gradient descent on a linear head, as tasks for one or many workers.

A step is four phases of independent tasks: forward sums, residuals, backward sums, updates. A
:class:`Trainer` carries out tasks on an engine; :func:`train` schedules them through an executor.
The same code runs encrypted, in clear slots, and on the counting engine that the planner uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from blindtune.errors import PlanError
from blindtune.he.engine import Ciphertext, Engine
from blindtune.kernels import products
from blindtune.kernels.layout import Layout
from blindtune.kernels.polynomial import DEPTH, odd_polynomial
from blindtune.kernels.schedule import backward_cuts, forward_cuts, segments

Handle = TypeVar("Handle")
Key = tuple[int, int, int]


@dataclass(frozen=True)
class Program:
    """What the server does; public. Learning rates and class weights stay inside ciphertexts.

    Attributes:
        steps: T, gradient steps.
        degree: of the residual polynomial: 1, 3, 5 or 7.
        sets: which coefficient set each step uses (steps with other learning rates use others).
        retain: factor on the previous weights in each step (1 - learning rate · decay); the first
            step starts from zero and ignores its own.
    """

    steps: int
    degree: int
    sets: tuple[int, ...]
    retain: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.steps < 1 or self.degree not in DEPTH:
            raise PlanError(f"{self.steps} steps of degree {self.degree}", remedy="Use degree 1, 3, 5 or 7.")
        if len(self.sets) != self.steps or len(self.retain) != self.steps or min(self.sets) < 0:
            raise PlanError("a program needs one coefficient set and one retain factor a step")
        if self.sets[0] != 0:
            raise PlanError("the first step uses coefficient set 0")

    @property
    def levels(self) -> int:
        """Levels that training takes: ``1 + (T - 1)·(2 + depth)``."""
        return 1 + (self.steps - 1) * (2 + DEPTH[self.degree])


@dataclass(frozen=True)
class Task:
    """One unit of work; plain numbers, so that it can cross to another process."""

    kind: str
    numbers: tuple[float, ...]


@dataclass(frozen=True)
class Progress:
    """Where training stands: ``done`` of ``total`` tasks over all steps."""

    step: int
    steps: int
    phase: str
    level: int
    done: int
    total: int


class Executor(Protocol, Generic[Handle]):
    """Runs tasks on one or more trainers; handles name ciphertexts where the executor keeps them."""

    workers: int

    def run(
        self, tasks: Sequence[tuple[Task, Sequence[Handle]]], on_done: Callable[[], None]
    ) -> list[list[Handle]]:
        """The results of each task, in order; calls ``on_done`` after each."""


class Trainer:
    """Carries out tasks on an engine over one study's ciphertexts.

    Args:
        data: ``(row block, column block, giant, baby)`` to dataset ciphertexts; training lowers them in
            place, so a trainer trains once.
        residuals: ``(set, weight block, row block)`` to the target and the polynomial's coefficients.
        targets: ``(weight block, row block)`` to the first step's residual, rotated for every giant step
            by whoever encrypted it; without it the trainer rotates, at the level where that is dearest.
    """

    def __init__(
        self,
        engine: Engine,
        layout: Layout,
        data: dict[tuple[int, int, int, int], Ciphertext],
        residuals: Mapping[Key, Sequence[Ciphertext]],
        targets: Mapping[tuple[int, int], Sequence[Ciphertext]] | None = None,
    ) -> None:
        self.engine, self.layout = engine, layout
        self._data, self._residuals, self._targets = data, residuals, targets or {}

    def run(self, task: Task, inputs: Sequence[Ciphertext]) -> list[Ciphertext]:
        """Carry out one task."""
        methods = {
            "forward": self._forward,
            "residual": self._residual,
            "backward": self._backward,
            "update": self._update,
        }
        return methods[task.kind](task.numbers, inputs)

    def _diagonal(self, row_block: int, level: int) -> products.Diagonal:
        def get(j: int, g: int, b: int) -> Ciphertext:
            # Levels only fall, so the dataset is lowered in place.
            key = (row_block, j, g, b)
            self._data[key] = self.engine.lower(self._data[key], level)
            return self._data[key]

        return get

    def _forward(self, numbers: Sequence[float], weights: Sequence[Ciphertext]) -> list[Ciphertext]:
        start, stop = map(int, numbers)
        giants = max(self.layout.giants)
        babies = products.baby_steps(self.engine, self.layout, weights)
        return [
            products.forward(
                self.engine, self.layout, self._diagonal(block, weights[0].level), babies, first, last
            )
            for block, first, last in segments([giants] * self.layout.row_blocks, start, stop)
        ]

    def _residual(self, numbers: Sequence[float], parts: Sequence[Ciphertext]) -> list[Ciphertext]:
        target, *coefficients = self._residuals[int(numbers[0]), int(numbers[1]), int(numbers[2])]
        u = products.logits(self.engine, parts)
        value = odd_polynomial(self.engine, u, coefficients)
        return [self.engine.subtract(self.engine.at_level(target, value.level), value)]

    def _backward(self, numbers: Sequence[float], residuals: Sequence[Ciphertext]) -> list[Ciphertext]:
        layout = self.layout
        wanted = list(segments([layout.baby] * len(layout.widths), int(numbers[0]), int(numbers[1])))
        count = max(layout.giants[j] for j, _, _ in wanted)
        head = int(numbers[2])
        blocks = []
        for i in range(layout.row_blocks):
            giants = self._targets.get((head, i), ()) if not residuals else ()
            if not giants:
                first = residuals[i] if residuals else self._residuals[0, head, i][0]
                giants = products.giant_steps(self.engine, layout, first, count)
            blocks.append((self._diagonal(i, giants[0].level), giants))
        return [products.backward(self.engine, layout, j, blocks, first, last) for j, first, last in wanted]

    def _update(self, numbers: Sequence[float], inputs: Sequence[Ciphertext]) -> list[Ciphertext]:
        column_block, retain, has_old = int(numbers[0]), numbers[1], bool(numbers[2])
        parts = inputs[1:] if has_old else inputs
        new = products.gradient(self.engine, self.layout, column_block, parts)
        if not has_old or retain == 0:
            return [new]
        old = inputs[0]
        if retain != 1:
            # The old weights still sit levels above the new gradient: their scaling costs no depth.
            old = self.engine.multiply_scalar(self.engine.at_level(old, new.level + 1), retain)
        return [self.engine.add(self.engine.at_level(old, new.level), new)]


def train(
    executor: Executor[Handle],
    layout: Layout,
    program: Program,
    levels: int,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> list[list[Handle]]:
    """Run a program.

    Args:
        levels: level of the fresh ciphertexts.

    Returns:
        For each weight block, the weights of each column block.

    Raises:
        PlanError: the levels do not suffice.
    """
    if levels < program.levels:
        raise PlanError(f"{program.steps} steps need {program.levels} levels, the parameters have {levels}")
    weights: list[list[Handle]] = []
    heads, blocks, columns = layout.weight_blocks, layout.row_blocks, len(layout.widths)
    depth = 2 + DEPTH[program.degree]
    ahead, back = forward_cuts(layout, executor.workers), backward_cuts(layout, executor.workers)
    per_step = heads * (len(ahead) + blocks + len(back) + columns)
    total, done = program.steps * per_step - heads * (len(ahead) + blocks), 0

    def phase(step: int, name: str, level: int, tasks: list[tuple[Task, list[Handle]]]) -> list[list[Handle]]:
        def one_done() -> None:
            nonlocal done
            done += 1
            on_progress(Progress(step + 1, program.steps, name, level, done, total))

        return executor.run(tasks, one_done)

    for step in range(program.steps):
        level = levels if step == 0 else levels - 1 - (step - 1) * depth
        low = level if step == 0 else level - depth + 1
        by_head: list[list[Handle]] = [[] for _ in range(heads)]
        if step:
            # Last slice first: the worker that has the late giant steps, which wide column blocks alone
            # have, gets those blocks in the backward phase too and so touches less of the dataset.
            wanted = [(k, cut) for k in range(heads) for cut in reversed(ahead)]
            results = phase(step, "forward", level, [(Task("forward", cut), weights[k]) for k, cut in wanted])
            parts: dict[tuple[int, int], list[Handle]] = {}
            for (k, cut), handles in zip(wanted, results, strict=True):
                found = segments([max(layout.giants)] * blocks, *cut)
                for (block, _, _), handle in zip(found, handles, strict=True):
                    parts.setdefault((k, block), []).append(handle)
            pairs = [(k, block) for k in range(heads) for block in range(blocks)]
            tasks = [(Task("residual", (program.sets[step], *pair)), parts[pair]) for pair in pairs]
            residuals = phase(step, "residual", level - 1, tasks)
            by_head = [[residuals[k * blocks + i][0] for i in range(blocks)] for k in range(heads)]
        wanted = [(k, cut) for k in range(heads) for cut in back]
        results = phase(
            step, "backward", low, [(Task("backward", (*cut, k)), by_head[k]) for k, cut in wanted]
        )
        sums: dict[tuple[int, int], list[Handle]] = {}
        for (k, cut), handles in zip(wanted, results, strict=True):
            for (j, _, _), handle in zip(segments([layout.baby] * columns, *cut), handles, strict=True):
                sums.setdefault((k, j), []).append(handle)
        updates = []
        for k in range(heads):
            for j in range(columns):
                old = [weights[k][j]] if step else []
                numbers = (float(j), program.retain[step], float(bool(old)))
                updates.append((Task("update", numbers), old + sums[k, j]))
        flat = phase(step, "update", low - 1, updates)
        weights = [[flat[k * columns + j][0] for j in range(columns)] for k in range(heads)]
    return weights
