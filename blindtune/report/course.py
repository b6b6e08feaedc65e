"""The course of a federated run: what its coordinator kept of every round, read as plain records."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blindtune.errors import InputError

from ._bootstrap import Floats
from ._estimators import correlation, ratio

MAX_STUDY_BYTES = 64 << 20

Count = Annotated[int, Field(ge=0)]
#: Counts of cases, noisy ones in a private run.
Amount = Annotated[float, Field(ge=0)]


class RoundRecord(BaseModel):
    """One round, as the coordinator keeps it; entries of no use here are left out.

    Attributes:
        number: from 0.
        sites: names of those in the sum.
        excluded: reason by name.
        confusion: (K, K), rows are the truth, of the model that the round began with on the sites'
            validation cases; empty or zero where none were sent.
        auc: mean one-vs-rest AUC of the same model there, as the sites' binned probabilities tell it.
        loss: mean loss of the same model there; None where none was sent.
        stopped: sites that stopped early.
        change: Euclidean length of the averaged update.
        attempts: tries that the round took.
        epsilon: privacy spent so far by the site that spent most.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    number: Count
    sites: tuple[str, ...]
    excluded: dict[str, str] = {}
    confusion: tuple[tuple[Amount, ...], ...] = ()
    auc: Annotated[float, Field(ge=0, le=1)] | None = None
    loss: float | None = None
    stopped: Count = 0
    change: float | None = None
    attempts: Count = 1
    epsilon: Annotated[float, Field(ge=0)] | None = None

    @property
    def cases(self) -> float:
        """Validation cases."""
        return math.fsum(map(math.fsum, self.confusion))


@dataclass(frozen=True)
class Course:
    """Rounds in their order; figures are NaN in rounds without validation cases."""

    rounds: tuple[RoundRecord, ...]

    @classmethod
    def of(
        cls, rounds: Sequence[Mapping[str, Any]], *, epsilon: Sequence[float | None] | None = None
    ) -> Course:
        """Check the records of a coordinator.

        Args:
            rounds: as ``rounds`` in its study.json.
            epsilon: privacy spent after each round, where the records do not tell it.

        Raises:
            InputError: an entry is missing or is not what it should be, confusion matrices are of different
                sizes, or numbers do not rise.
        """
        if epsilon is not None and len(epsilon) != len(rounds):
            raise _refused(f"{len(epsilon)} values of epsilon for {len(rounds)} rounds")
        try:
            records = tuple(RoundRecord.model_validate(dict(one)) for one in rounds)
        except (ValidationError, TypeError, ValueError) as error:
            raise _refused(f"a round cannot be read ({_first(error)})") from None
        if epsilon is not None:
            spent = zip(records, epsilon, strict=True)
            records = tuple(one.model_copy(update={"epsilon": value}) for one, value in spent)
        numbers = [one.number for one in records]
        if not records or numbers != sorted(set(numbers)):
            raise _refused("no rounds, or rounds out of order")
        sizes = {len(one.confusion) for one in records} | {len(r) for one in records for r in one.confusion}
        if len(sizes - {0}) > 1:
            raise _refused("confusion matrices that are not square or of different sizes")
        return cls(records)

    @classmethod
    def read(cls, path: Path) -> Course:
        """Read a coordinator's study.json.

        Raises:
            InputError: it cannot be read, or as :meth:`of`.
        """
        try:
            if path.stat().st_size > MAX_STUDY_BYTES:
                raise ValueError("too large")
            rounds = json.loads(path.read_text(encoding="utf-8"))["rounds"]
        except OSError as error:
            raise InputError(
                f"cannot be read ({error.strerror})", where=path.name, remedy="Name a run's study.json."
            ) from error
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(
                "not the file of a federated run", where=path.name, remedy="Name a run's study.json."
            ) from None
        if not isinstance(rounds, list):
            raise _refused("rounds that are no list")
        return cls.of(rounds)

    @property
    def classes(self) -> int:
        """Number of classes; 0 where no round tells."""
        return max(len(one.confusion) for one in self.rounds)

    @property
    def noisy(self) -> bool:
        """Whether the counts carry noise: some are not whole."""
        return not all(count.is_integer() for one in self.rounds for row in one.confusion for count in row)

    @cached_property
    def curves(self) -> dict[str, Floats]:
        """Each curve (R,): ``loss``, ``accuracy``, ``mcc``, ``auc``, ``cases``, ``sites``, ``epsilon``."""
        k = self.classes
        counts: Floats = np.zeros((len(self.rounds), k, k))
        for at, one in enumerate(self.rounds):
            if one.confusion:
                counts[at] = one.confusion
        total, hits = counts.sum(axis=(1, 2)), np.diagonal(counts, axis1=1, axis2=2)
        # A round without cases has no spread: its correlation is NaN too.
        return {
            "loss": _numbers(one.loss for one in self.rounds),
            "accuracy": ratio(hits.sum(axis=1), total),
            "mcc": correlation(total, counts.sum(axis=2), counts.sum(axis=1), hits),
            "auc": _numbers(one.auc for one in self.rounds),
            "cases": total,
            "sites": _numbers(len(one.sites) for one in self.rounds),
            "epsilon": _numbers(one.epsilon for one in self.rounds),
        }

    @property
    def last(self) -> RoundRecord | None:
        """The last round that has validation cases."""
        return next((one for one in reversed(self.rounds) if one.cases), None)


def _numbers(values: Any) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "it is no mapping"
    found = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"


def _refused(what: str) -> InputError:
    return InputError(what, where="rounds", remedy="Hand in the rounds of a coordinator's study.json.")
