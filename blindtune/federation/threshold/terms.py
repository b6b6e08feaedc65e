"""What the hospitals of a study with a joint key agree on, before anyone makes a key."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from blindtune import __version__
from blindtune.client.flood import error_length
from blindtune.errors import FederationError
from blindtune.federation.agreement import HeadModel, Schema, SiteName
from blindtune.federation.identity import Roster, digits
from blindtune.federation.threshold.private import NoisySum, SumPrivacy
from blindtune.he.engine import KeySet
from blindtune.he.flooding import deviation
from blindtune.he.openfhe.refresh import LEVELS
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program
from blindtune.models.heads import Head, one_vs_rest
from blindtune.params import INSECURE, Parameters
from blindtune.wire.manifest import LayoutModel, ParametersModel, ProgramModel
from blindtune.wire.message import MAX_TERMS

PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Task(Schema):
    """A classifier on whitened features, one output a class.

    Attributes:
        model: features, whitening and polynomial; of a blind head.
        classes: their names, in the order of the labels.
        rates: learning rate of each step.
        balanced: weigh each class and the rest equally, by the pooled counts.
        privacy: noise on the sums that whitening and class weights follow from; None sums them exactly.
    """

    model: HeadModel
    classes: Annotated[list[Annotated[str, Field(max_length=100)]], Field(min_length=2, max_length=64)]
    rates: Annotated[list[Annotated[float, Field(gt=0, le=100)]], Field(min_length=1, max_length=64)]
    balanced: bool = True
    privacy: SumPrivacy | None = None

    @model_validator(mode="after")
    def _fits(self) -> Task:
        if self.privacy and self.privacy.delta * self.model.rows >= 1:
            raise ValueError(
                f"delta {self.privacy.delta:g} would let one patient of {self.model.rows:,} be published: "
                f"give less than {1 / self.model.rows:.1g}"
            )
        return self

    def noisy_sum(self, members: int) -> NoisySum | None:
        """What so many hospitals sum under noise; None if they sum exactly."""
        return NoisySum(self.model, len(self.classes), self.privacy, members) if self.privacy else None

    @property
    def head(self) -> Head:
        """The head: its class weights follow from pooled counts, not from a hospital's own."""
        return one_vs_rest(
            degree=self.model.degree,
            interval=self.model.interval,
            learning_rates=tuple(self.rates),
            balanced=False,
        )


class Terms(Schema):
    """A study; its digest stands in every message, and the joint key is made on it.

    Attributes:
        study: random identifier.
        members: long-term public keys (Ed25519, hex) by name.
        parameters, layout, program: what is trained, and under which encryption; row blocks do not count.
        task: what the rows are; none for programs of another make.
        length: bound of the Euclidean length of a result's error, over all coefficients that are opened; the
            noise of an opening rests on it (:mod:`.rehearsal`, :mod:`blindtune.he.flooding`).
        results: that are opened in the study's whole life.
        code: version of blindtune that all members run.
    """

    format: Literal["blindtune-threshold"] = "blindtune-threshold"
    study: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    members: Annotated[dict[SiteName, PublicKey], Field(min_length=2, max_length=50)]
    parameters: ParametersModel
    layout: LayoutModel
    program: ProgramModel
    task: Task | None = None
    length: Annotated[float, Field(ge=1, le=2.0**40)]
    results: Annotated[int, Field(ge=1, le=1000)] = 1
    code: Annotated[str, Field(max_length=40)] = __version__

    @classmethod
    def parse(cls, data: bytes) -> Terms:
        """Terms from anywhere, checked.

        Raises:
            FederationError: not terms of a study.
            ParametersError: parameters outside the security table.
            PlanError: a layout or program that cannot be.
        """
        try:
            terms = cls.model_validate_json(data) if len(data) <= MAX_TERMS else None
        except ValidationError:
            terms = None
        if terms is None:
            raise FederationError(
                "not the terms of a study",
                where="terms",
                remedy="Ask whoever created the study for its file.",
            )
        p, program = terms.checked_parameters, terms.checked_program
        if p.levels < program.levels or 2 * terms.checked_layout.slots != p.ring_degree:
            raise FederationError("a program that the parameters do not hold", where="terms")
        if any(p.levels < program.levels_after(steps) + LEVELS for steps in program.refreshes):
            raise FederationError(
                f"fewer than the {LEVELS} levels that a refresh needs are left for one",
                where="terms",
                remedy="Refresh after fewer steps, or plan more levels.",
            )
        task, layout = terms.task, terms.checked_layout
        # Results under a joint key carry more error than a single owner's, whose bound is four times as
        # large as what was found.
        if terms.length < error_length(layout, layout.rows) / 4:
            raise FederationError(
                "an error that is too small to be true: noise on it would not hide the key",
                where="terms",
                remedy="Rehearse the study to measure it.",
            )
        if task is not None:
            fits = task.model.blind and task.head.program == replace(program, refreshes=())
            room = (layout.columns, layout.lanes * layout.weight_blocks)
            if not fits or task.model.directions + 1 > room[0] or len(task.classes) > room[1]:
                raise FederationError("a task that is not the program's", where="terms")
            if noisy := task.noisy_sum(len(terms.members)):
                noisy.check()
        assert terms.roster
        return terms

    @property
    def roster(self) -> Roster:
        """The members."""
        return Roster({name: bytes.fromhex(key) for name, key in self.members.items()})

    @property
    def checked_parameters(self) -> Parameters:
        """The parameters, checked."""
        return self.parameters.checked()

    @property
    def checked_layout(self) -> Layout:
        """The layout, checked."""
        m, slots = self.layout, self.parameters.ring_degree // 2
        return Layout(slots, m.lanes, tuple(m.widths), m.baby, m.row_blocks, m.weight_blocks)

    @property
    def checked_program(self) -> Program:
        """The program, checked."""
        return self.program.checked()

    @property
    def keys(self) -> KeySet:
        """The rotations that the layout needs, and no others."""
        return self.checked_layout.keys()

    @property
    def final_level(self) -> int:
        """The level of the program's result, the only one that is opened."""
        program = self.checked_program
        return self.checked_parameters.levels - program.levels_after(program.steps)

    def stale_levels(self, number: int) -> list[int]:
        """Levels of the ciphertexts that a refresh takes, in the order of :attr:`periods`: the weights, and
        those before where momentum looks back.
        """
        levels, count = self.checked_parameters.levels, len(self.periods)
        return [
            levels - taken for taken in self.checked_program.levels_refreshed(number) for _ in range(count)
        ]

    @property
    def periods(self) -> list[int]:
        """Period of the slots of each of the result's ciphertexts, by weight block and column block."""
        layout = self.checked_layout
        return [width * layout.lanes for width in layout.widths] * layout.weight_blocks

    @property
    def digest(self) -> bytes:
        """32 bytes."""
        return hashlib.sha256(b"blindtune threshold terms " + self.model_dump_json().encode()).digest()

    @property
    def fingerprint(self) -> str:
        """Five groups of four digits, for people to compare."""
        return digits(self.digest)

    @property
    def deviation(self) -> float:
        """Standard deviation of a member's noise in a coefficient: each hides the error by itself, for the
        others may take theirs off together."""
        return deviation(self.length, self.results)

    @property
    def error(self) -> float:
        """Root mean square of what all members' noise adds to an opened slot, in the widest column block."""
        coefficients = 2 * max(self.periods) * len(self.members)
        return self.deviation * math.sqrt(coefficients) / self.checked_parameters.scale


def approve(offered: Terms, expected: Terms, *, insecure: bool = False) -> None:
    """Refuse a study that is not the one that this hospital approved.

    Args:
        expected: the terms as this hospital has them, from its own file.
        insecure: accept test parameters without a security level.

    Raises:
        FederationError: saying whether membership, plan or version differ.
    """
    for what, differs in (
        ("membership", offered.members != expected.members),
        ("version of blindtune", offered.code != expected.code or offered.code != __version__),
        ("plan", offered.digest != expected.digest),
    ):
        if differs:
            raise FederationError(
                f"the study's {what} is not the one that was approved",
                where="terms",
                remedy="Compare the terms with the other hospitals before you approve them.",
            )
    if offered.parameters.security == INSECURE and not insecure:
        raise FederationError("parameters without any security", where="terms", remedy="Plan the study anew.")
