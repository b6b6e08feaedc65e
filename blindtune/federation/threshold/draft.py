"""From what is to be trained to a study's terms: parameters and packing planned, the error measured."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from blindtune.depth import ways
from blindtune.errors import FederationError, PlanError
from blindtune.federation.identity import Roster
from blindtune.federation.threshold.rehearsal import MARGIN, Rehearsal
from blindtune.federation.threshold.rows import task_of
from blindtune.federation.threshold.standin import stand_in
from blindtune.federation.threshold.terms import Task, Terms
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program, Progress
from blindtune.plan import Plan
from blindtune.wire.manifest import layout_model, parameters_model, program_model


@dataclass(frozen=True)
class Draft:
    """A study before its error was measured.

    Attributes:
        plan: for as many rows as every member may have.
    """

    roster: Roster
    task: Task
    plan: Plan

    @classmethod
    def planned(
        cls, roster: Roster, task: Task, *, security: int = 128, memory_limit: int = 16 << 30
    ) -> Draft:
        """Choose the smallest ring that the 2024 table allows, and the cheapest packing in it.

        Where no ring holds all steps, the hospitals refresh the weights on the way (:mod:`blindtune.depth`).

        Raises:
            PlanError: nothing fits; says what would.
            ParametersError: a security level that the table lacks.
            FederationError: noise on the sums that no sum holds.
        """
        members, rows = len(roster), task.model.rows
        if noisy := task.noisy_sum(members):
            noisy.check()
        shape = (members * rows, task.model.directions + 1, len(task.classes), task.head)
        (way, *_) = ways(
            *shape,
            joint=True,
            member_rows=(rows,) * members,
            security=security,
            memory_limit=memory_limit,
        )
        if way.plan is None:
            raise PlanError(way.why_not, remedy="Use fewer rows or steps, or a lower degree.")
        return cls(roster, task, way.plan)

    @property
    def layout(self) -> Layout:
        """The packing; each hospital fills as many row blocks as its rows need."""
        return replace(self.plan.layout, row_blocks=1)

    @property
    def program(self) -> Program:
        """The task's steps, and the refreshes between them."""
        return replace(self.task.head.program, refreshes=self.plan.program.refreshes)

    def rehearsed(self, on_progress: Callable[[Progress], None] = lambda _: None) -> float:
        """The bound of a result's error: what a rehearsal finds, and a margin. It takes as long as training.

        Raises:
            MissingPackageError: OpenFHE cannot be loaded here.
        """
        members = len(self.roster)
        train = stand_in(self.task, self.layout, members, self.task.model.rows, on_progress, self.program)
        return MARGIN * Rehearsal(self.plan.parameters, self.layout, members).length(train)

    def terms(self, length: float, results: int = 1) -> Terms:
        """The terms, under a new identifier.

        Args:
            length: of a result's error, from :meth:`rehearsed`.
            results: that may be opened in the study's whole life.

        Raises:
            FederationError: a length that is too small to be true.
        """
        made = Terms(
            study=secrets.token_hex(16),
            members={name: key.hex() for name, key in self.roster.keys.items()},
            parameters=parameters_model(self.plan.parameters),
            layout=layout_model(self.layout),
            program=program_model(self.program),
            task=self.task,
            length=length,
            results=results,
        )
        return Terms.parse(made.model_dump_json().encode())


def error_of(terms: Terms, on_progress: Callable[[Progress], None] = lambda _: None) -> float:
    """The length of a result's error that a rehearsal of agreed terms finds here.

    Raises:
        FederationError: it is not well below the agreed bound, or the terms have no task.
        MissingPackageError: OpenFHE cannot be loaded here.
    """
    task, layout, members = task_of(terms), terms.checked_layout, len(terms.members)
    train = stand_in(task, layout, members, task.model.rows, on_progress, terms.checked_program)
    found = Rehearsal(terms.checked_parameters, layout, members).length(train)
    if terms.length < MARGIN / 2 * found:
        raise FederationError(
            f"the agreed bound of the error is {terms.length / found:.1f} times what was found here, "
            f"not about {MARGIN:g} times",
            where="terms",
            remedy="Do not approve the study: ask whoever made it to measure again.",
        )
    return found
