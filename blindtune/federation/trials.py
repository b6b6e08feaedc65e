"""Runs a hyper-parameter search over the confederation: trials are studies, judged by securely summed counts.

Optuna proposes, in SQLite, so that a search that stops goes on: finished trials are kept, and the one that
was running is taken up in the round where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from blindtune.errors import FederationError, MissingPackageError
from blindtune.federation.agreement import Agreement, Schema
from blindtune.federation.channel import Answer, Channel, Request
from blindtune.federation.coordinator import Coordinator, Round
from blindtune.federation.search import Number, Options, SearchPlan, Span
from blindtune.federation.site import Site

TRIAL = "trial/"
MAX_HEAD = 1 << 16

Train = Callable[[int, Agreement, Callable[[Channel], Channel], Path], Coordinator]
"""Runs a trial to its last round: its number, its plan, what wraps the channel, a directory of its own."""


@dataclass(frozen=True)
class Trial:
    """One trial's outcome.

    Attributes:
        number: from 0.
        values: of the searched fields.
        score: the objective; None for a trial that failed.
        why: it failed; empty otherwise, and for trials of an earlier run.
    """

    number: int
    values: dict[str, Any]
    score: float | None
    why: str = ""


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


class Search:
    """A search and its trials, kept in a directory.

    Args:
        directory: one that holds the same search is resumed.
        seed: of the proposals.

    Raises:
        FederationError: a directory of another search, or a damaged one.
        MissingPackageError: Optuna is not installed.
    """

    def __init__(self, plan: SearchPlan, directory: Path, seed: int | None = None) -> None:
        try:
            import optuna
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError:
            raise MissingPackageError(
                "the search needs Optuna", remedy="Run pip install 'blindtune[search]'."
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directory.mkdir(parents=True, exist_ok=True)
        self.plan, self._directory, self._states = plan, directory, optuna.trial.TrialState
        try:
            self._study = optuna.create_study(
                storage=f"sqlite:///{directory / 'search.sqlite'}",
                study_name="search",
                direction="maximize",
                load_if_exists=True,
            )
            kept = self._study.user_attrs.get("plan", plan.digest)
            self._study.set_user_attr("plan", kept)
            done = len(self._study.trials)
        except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            raise FederationError(
                "the search kept here cannot be used",
                where=directory.name,
                remedy="Choose another directory.",
            ) from error
        if kept != plan.digest:
            raise FederationError(
                "another search is kept here", where=directory.name, remedy="Choose another directory."
            )
        # Begun anew by every process, a seed would propose again what it proposed before.
        self._study.sampler = optuna.samplers.TPESampler(seed=None if seed is None else seed + done)

    @property
    def finished(self) -> list[Trial]:
        """All trials that are done, failed ones too."""
        ended = (self._states.COMPLETE, self._states.FAIL)
        return [Trial(t.number, t.params, t.value) for t in self._study.get_trials(states=ended)]

    @property
    def best(self) -> Trial | None:
        """The trial with the highest score, the first of equals; None before any has one."""
        scored = [(-t.score, t.number, t) for t in self.finished if t.score is not None]
        return min(scored)[2] if scored else None

    @property
    def left(self) -> int:
        """Trials that are not done."""
        return self.plan.trials - len(self.finished)

    @property
    def begun(self) -> list[int]:
        """Those of them that were stopped on the way."""
        return [t.number for t in self._study.get_trials(states=[self._states.RUNNING])]

    def run(self, train: Train) -> Iterator[Trial]:
        """Run the trials that are left, and tell each when it is done and kept.

        A trial whose rounds cannot be done, for instance because its rate lets the model diverge, has
        failed: the search goes on with the next.

        Raises:
            FederationError: no site has validation cases.
        """
        for begun in self._study.get_trials(states=[self._states.RUNNING]):
            if begun.params.keys() == self.plan.space.keys():
                yield self._finish(begun.number, begun.params, train)
            else:
                # Stopped while it was proposed.
                self._study.tell(begun.number, state=self._states.FAIL)
        while len(self._study.trials) < self.plan.trials:
            asked = self._study.ask()
            values = {name: _proposed(asked, name, part) for name, part in self.plan.space.items()}
            yield self._finish(asked.number, values, train)

    def _finish(self, number: int, values: dict[str, Any], train: Train) -> Trial:
        agreement = self.plan.trial(number, values)
        place = self._directory / f"trial-{number}"
        try:
            done = train(number, agreement, lambda c: TrialChannel(c, number, values), place)
        except FederationError as error:
            self._study.tell(number, state=self._states.FAIL)
            return Trial(number, values, None, error.what)
        score = objective(self.plan, done.progress.rounds[-1])
        # The number stands in the database since it was proposed, whoever proposed it.
        self._study.tell(number, score)
        return Trial(number, values, score)


def objective(plan: SearchPlan, last: Round) -> float:
    """What a trial is judged by: of the model that its last round began with.

    Counts of which noise left nothing are worth what guessing is.

    Raises:
        FederationError: no site has validation cases.
    """
    score = last.auc if plan.objective == "auc" else mcc(np.array(last.confusion))
    if score is None and plan.base.privacy:
        return 0.0
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
