"""Hyper-parameter search over the confederation: trials are studies, judged by securely summed counts.

Optuna proposes, in SQLite, so that a search that stops goes on: finished trials are kept, and the one that
was running is taken up in the round where it stopped. Sites approve the whole search beforehand, and derive
each trial's plan from its numbers themselves: nothing outside the space is ever trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from blindtune.errors import FederationError, MissingPackageError
from blindtune.federation.agreement import Agreement, Schema, read_plan
from blindtune.federation.channel import Answer, Channel, Request
from blindtune.federation.coordinator import Coordinator, Round
from blindtune.federation.site import Site

TRIAL = "trial/"
MAX_HEAD = 1 << 16
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

    def holds(self, value: object) -> bool:
        """Whether a value is one of these."""
        return isinstance(value, float) and self.low <= value <= self.high


class Options(Schema):
    """One of some values."""

    options: Annotated[list[Number | int | str | bool], Field(min_length=1, max_length=100)]

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
        private = self.base.privacy
        if private and (not private.validation or self.objective == "auc"):
            raise ValueError(
                "a private search is judged by noisy validation counts: give their noise, and mcc"
            )
        return self

    @classmethod
    def read(cls, data: bytes) -> SearchPlan:
        """Read a plan.

        Raises:
            FederationError: not one; says the first thing that is wrong.
        """
        return read_plan(cls, data, "a search")

    def trial(self, number: int, values: Mapping[str, Any]) -> Agreement:
        """A trial's plan.

        Raises:
            FederationError: a trial or values outside the search.
        """
        inside = values.keys() == self.space.keys() and all(self.space[n].holds(v) for n, v in values.items())
        if not 0 <= number < self.trials or not inside:
            raise FederationError("a trial outside the search that was agreed on", where="search")
        told = self.base.model_dump()
        told["local"] |= values
        told["study"] = f"{self.base.study[:50]}-t{number}"
        return Agreement.checked(told)


@dataclass(frozen=True)
class Trial:
    """One trial's outcome.

    Attributes:
        number: from 0.
        values: of the searched fields.
        score: the objective; None for a trial that failed.
        rounds: its rounds.
    """

    number: int
    values: dict[str, Any]
    score: float | None
    rounds: list[Round]


class _TrialHead(Schema):
    trial: int
    values: dict[str, Number | int | str | bool]
    head: str


@dataclass(frozen=True)
class TrialChannel:
    """A channel on which every request says which trial it is of."""

    channel: Channel
    number: int
    values: dict[str, Any]

    def ask(self, requests: Mapping[str, Request]) -> dict[str, Answer]:
        """See :class:`blindtune.federation.channel.Channel`."""
        return self.channel.ask({name: self._of_trial(r) for name, r in requests.items()})

    def _of_trial(self, request: Request) -> Request:
        head = {"trial": self.number, "values": self.values, "head": request.head.decode()}
        return Request(TRIAL + request.kind, json.dumps(head).encode(), request.body)


class SearchSite:
    """A hospital in a search: a site for each trial.

    Args:
        plan: that this hospital approved.
        make: a site for a trial's plan, in a directory of its own.
    """

    def __init__(self, plan: SearchPlan, make: Callable[[Agreement], Site]) -> None:
        self._plan, self._make = plan, make
        self._current: tuple[str, Site] | None = None

    def handle(self, request: Request) -> bytes:
        """Answer the coordinator.

        Raises:
            FederationError: a request that does not fit the search.
        """
        if not request.kind.startswith(TRIAL) or len(request.head) > MAX_HEAD:
            raise FederationError(f"a request of kind {request.kind[:40]}", where="search")
        try:
            told = _TrialHead.model_validate_json(request.head)
        except ValidationError:
            raise FederationError("a request that says of no trial", where="search") from None
        agreement = self._plan.trial(told.trial, told.values)
        if self._current is None or self._current[0] != agreement.digest:
            # One trial at a time: another's model and data need not stay in memory.
            self._current = (agreement.digest, self._make(agreement))
        kind = request.kind.removeprefix(TRIAL)
        return self._current[1].handle(Request(kind, told.head.encode(), request.body))


def search(
    plan: SearchPlan,
    directory: Path,
    run: Callable[[Agreement, Callable[[Channel], Channel], Path], Coordinator],
    seed: int | None = None,
) -> Iterator[Trial]:
    """Run the trials that are left, and tell each when it is done and kept.

    Args:
        directory: where the search is kept; one that holds the same search is resumed.
        run: makes a trial's coordinator from its plan, what wraps the channel, and a directory of its own.
        seed: of the proposals.

    Raises:
        FederationError: a directory of another search.
        MissingPackageError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingPackageError(
            "the search needs Optuna", remedy="Run pip install 'blindtune[search]'."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directory.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{directory / 'search.sqlite'}",
        sampler=optuna.samplers.TPESampler(seed=seed),
        study_name="search",
        direction="maximize",
        load_if_exists=True,
    )
    digest = plan.model_dump_json()
    if study.user_attrs.setdefault("plan", digest) != digest:
        raise FederationError(
            "another search is kept here", where=directory.name, remedy="Choose another directory."
        )
    study.set_user_attr("plan", digest)

    def finish(number: int, values: dict[str, Any]) -> Trial:
        agreement = plan.trial(number, values)
        coordinator = run(agreement, lambda c: TrialChannel(c, number, values), directory / f"trial-{number}")
        rounds = [*coordinator.progress.rounds, *coordinator.run()]
        score = objective(plan, rounds[-1])
        # The number stands in the database since it was proposed, whoever proposed it.
        study.tell(number, score)
        return Trial(number, values, score, rounds)

    for begun in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        yield finish(begun.number, begun.params)
    while len(study.trials) < plan.trials:
        asked = study.ask()
        yield finish(asked.number, {name: _proposed(asked, name, part) for name, part in plan.space.items()})


def objective(plan: SearchPlan, last: Round) -> float:
    """What a trial is judged by: of the model that its last round began with.

    Raises:
        FederationError: no site has validation cases.
    """
    score = last.auc if plan.objective == "auc" else mcc(np.array(last.confusion))
    if score is None:
        raise FederationError(
            "no validation counts to judge a trial by", where="search", remedy="Give sites validation cases."
        )
    return score


def mcc(confusion: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    """Matthews correlation of a confusion matrix (Gorodkin 2004); None without cases.

    Args:
        confusion: counts by (true, told) class.
    """
    from sklearn.metrics import matthews_corrcoef

    if not confusion.sum():
        return None
    true, told = np.indices(confusion.shape)
    return float(matthews_corrcoef(true.ravel(), told.ravel(), sample_weight=confusion.ravel()))


def _proposed(asked: Any, name: str, part: Span | Options) -> Any:
    if isinstance(part, Options):
        return asked.suggest_categorical(name, part.options)
    return asked.suggest_float(name, part.low, part.high, log=part.log)
