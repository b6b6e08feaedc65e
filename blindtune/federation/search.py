"""What the sites of a hyper-parameter search agree on: the space, the trials, and what they cost.

Sites approve the whole search beforehand, and derive each trial's plan from its numbers themselves: nothing
outside the space is ever trained. :mod:`blindtune.federation.trials` runs it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from blindtune.errors import FederationError
from blindtune.federation.agreement import Agreement, Schema, read_plan
from blindtune.federation.private import local_steps, releases
from blindtune.privacy.account import Release

Number = Annotated[float, Field(allow_inf_nan=False)]


class Span(Schema):
    """Values between two, even in their logarithm if ``log``."""

    low: Number
    high: Number
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Span:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("a span from low to a larger high, above zero if log")
        return self

    @property
    def ends(self) -> list[Any]:
        """Values that stand for all."""
        return [self.low, self.high]

    def holds(self, value: object) -> bool:
        """Whether a value is one of these."""
        return isinstance(value, float) and self.low <= value <= self.high


class Options(Schema):
    """One of some values."""

    options: Annotated[list[Number | int | str | bool], Field(min_length=1, max_length=100)]

    @property
    def ends(self) -> list[Any]:
        """Values that stand for all."""
        return self.options

    def holds(self, value: object) -> bool:
        """Whether a value is one of these."""
        return any(type(o) is type(value) and o == value for o in self.options)


class SearchPlan(Schema):
    """What the sites of a search agree on.

    Attributes:
        base: every trial's plan, but for what is searched.
        space: fields of the plan's ``local`` part to what they may be.
        trials: how many, in all.
        objective: of the last round's validation counts: Matthews correlation, or mean AUC.
    """

    base: Agreement
    space: Annotated[dict[str, Span | Options], Field(min_length=1, max_length=20)]
    trials: Annotated[int, Field(ge=1, le=10_000)]
    objective: Literal["mcc", "auc"] = "mcc"

    @model_validator(mode="after")
    def _fits(self) -> SearchPlan:
        unknown = self.space.keys() - type(self.base.local).model_fields.keys()
        if unknown:
            raise ValueError(f"not a field of the plan's local part: {min(unknown)[:40]}")
        if self.base.rounds < 2:
            raise ValueError("a round judges the model that it began with: a search needs two rounds or more")
        private = self.base.privacy
        if private and (not private.validation or self.objective == "auc"):
            raise ValueError(
                "a private search is judged by noisy validation counts: give their noise, and mcc"
            )
        first = {name: part.ends[0] for name, part in self.space.items()}
        for name, part in self.space.items():
            for value in part.ends:
                try:
                    self.trial(0, {**first, name: value})
                except FederationError as error:
                    raise ValueError(f"{name} = {value!r:.40}: {error.what}") from None
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the search: what sites compare."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @classmethod
    def read(cls, data: bytes) -> SearchPlan:
        """Read a plan.

        Raises:
            FederationError: not one; says the first thing that is wrong.
        """
        return read_plan(cls, data, "a search")

    @classmethod
    def of(cls, base: Agreement, space: bytes, trials: int, objective: str) -> SearchPlan:
        """A search around a plan.

        Args:
            space: JSON.

        Raises:
            FederationError: they do not fit together; says the first thing that is wrong.
        """
        try:
            inside = json.loads(space)
        except (ValueError, RecursionError):
            raise FederationError(
                "the space is not JSON", where="space", remedy="docs/federation.md has one."
            ) from None
        told = {"base": base.model_dump(mode="json"), "space": inside, "trials": trials}
        return cls.read(json.dumps({**told, "objective": objective}).encode())

    def trial(self, number: int, values: Mapping[str, Any]) -> Agreement:
        """A trial's plan.

        Raises:
            FederationError: a trial or values outside the search.
        """
        inside = values.keys() == self.space.keys() and all(self.space[n].holds(v) for n, v in values.items())
        if not 0 <= number < self.trials or not inside:
            raise FederationError("a trial outside the search that was agreed on", where="search")
        return self._with(self.name(number), values)

    def name(self, number: int) -> str:
        """The study of a trial."""
        return f"{self.base.study[:50]}-t{number}"

    def best(self, values: Mapping[str, Any]) -> Agreement:
        """The plan of the training that a search is for: a study of its own, with the best values."""
        return self._with(f"{self.base.study[:50]}-best", values)

    def _with(self, study: str, values: Mapping[str, Any]) -> Agreement:
        told = self.base.model_dump()
        told["local"] |= values
        told["study"] = study
        return Agreement.checked(told)

    def releases(self) -> list[Release]:
        """What a trial releases of a patient, whichever values it has: the most that any of them does."""
        first = {name: part.ends[0] for name, part in self.space.items()}
        stepping = {n: part.ends for n, part in self.space.items() if n in ("every", "unit")}
        plans = [
            self.trial(0, {**first, **dict(zip(stepping, values, strict=True))})
            for values in product(*stepping.values())
        ]
        private = self.base.privacy
        if private is None:
            return []
        return releases(max(plans, key=lambda p: local_steps(p, private)), self.base.rounds)
