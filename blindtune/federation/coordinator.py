"""The coordinator of a federated study: it sees sums, and who took part."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from blindtune.errors import FederationError
from blindtune.federation.agreement import Agreement
from blindtune.federation.channel import Channel, Request
from blindtune.federation.identity import Roster
from blindtune.federation.learner import Values, fingerprint
from blindtune.federation.secagg.aggregator import Sum
from blindtune.federation.secagg.session import Policy
from blindtune.federation.site import STATISTICS, UPDATE, statistics_parcel, update_parcel
from blindtune.federation.sums import Proposal, plain_sum, secure_sum
from blindtune.files import whole_file

ATTEMPTS = 3
"""Tries of a round before the study stops; it can be resumed."""


@dataclass(frozen=True)
class Round:
    """What is known of a round: sums over the sites that took part.

    Attributes:
        number: from 0.
        sites: names of those in the sum.
        excluded: reason by name.
        confusion: of the model that the round began with, on the sites' validation cases.
        loss: its mean loss there; None without validation cases.
        stopped: sites that stopped early.
        change: Euclidean length of the averaged update.
        attempts: tries that it took.
    """

    number: int
    sites: list[str]
    excluded: dict[str, str]
    confusion: list[list[int]]
    loss: float | None
    stopped: int
    change: float
    attempts: int

    @property
    def accuracy(self) -> float | None:
        """Share of validation cases told right."""
        table = np.array(self.confusion)
        return float(np.trace(table) / table.sum()) if table.sum() else None


@dataclass
class Progress:
    """A study so far, as it is kept on disk.

    Attributes:
        totals: training images by class.
        rounds: done.
        attempt: sums proposed so far; no two sums of a study share one.
    """

    totals: list[int] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    attempt: int = 0


class Coordinator:
    """Runs a study.

    Args:
        agreement: the plan.
        roster: its members.
        channel: reaches them.
        directory: where the study is kept after every round; one that holds the same study is resumed.
        start: the initial model.
        policy: gives the threshold that is proposed; sites refuse a lower one than their own.

    Raises:
        FederationError: a start that is not the plan's, or a directory of another study.
    """

    def __init__(
        self,
        agreement: Agreement,
        roster: Roster,
        channel: Channel,
        directory: Path,
        start: Values,
        policy: Policy | None = None,
    ) -> None:
        if fingerprint(start) != agreement.start or start.shape != (agreement.parameters,):
            raise FederationError("a first model that is not the plan's", where="federation")
        self.agreement, self._roster, self._channel, self._directory = agreement, roster, channel, directory
        self._threshold = (policy or Policy()).threshold(len(roster))
        directory.mkdir(parents=True, exist_ok=True)
        self.values, self.progress = start, Progress()
        self._resume()

    def run(self) -> Iterator[Round]:
        """Do the rounds that are left, and tell each when it is done and kept.

        Raises:
            FederationError: too few sites for a sum, several times over; run again to go on.
        """
        if not self.progress.totals:
            self._statistics()
        for number in range(len(self.progress.rounds), self.agreement.rounds):
            done = self._round(number)
            self.progress.rounds.append(done)
            self._keep()
            yield done
            if done.stopped == len(done.sites):
                break

    def _statistics(self) -> None:
        request = Request(STATISTICS, b"{}")
        total, _ = self._sum(STATISTICS, 0, request, statistics_parcel(self.agreement).length)
        images = statistics_parcel(self.agreement).unpack(total.values)["images"]
        self.progress.totals = [int(n) for n in images]
        self._keep()

    def _round(self, number: int) -> Round:
        agreement = self.agreement
        head = json.dumps({"round": number, "totals": self.progress.totals}).encode()
        request = Request(UPDATE, head, self.values.astype("<f4", copy=False).tobytes())
        parcel = update_parcel(agreement)
        total, attempts = self._sum(UPDATE, number, request, parcel.length)
        found = parcel.unpack(total.values)
        weight = float(found["weight"][0])
        # A round in which every site has stopped leaves the model as it is.
        update = found["update"] / weight if weight > 1e-6 else np.zeros(agreement.parameters)
        self.values = (self.values + update).astype(np.float32)
        k = len(agreement.classes)
        confusion: NDArray[np.int64] = found["confusion"].astype(np.int64).reshape(k, k)
        cases = int(confusion.sum())
        return Round(
            number=number,
            sites=[self._roster.names[n - 1] for n in total.members],
            excluded={self._roster.names[n - 1]: why for n, why in total.excluded.items()},
            confusion=confusion.tolist(),
            loss=float(found["loss"][0]) / cases if cases else None,
            stopped=int(found["stopped"][0]),
            change=float(np.linalg.norm(update)),
            attempts=attempts,
        )

    def _sum(self, purpose: str, number: int, request: Request, length: int) -> tuple[Sum, int]:
        """Have sites prepare, and sum what they hold; tried again when too many drop out on the way."""
        model = fingerprint(self.values)
        for attempt in range(1, ATTEMPTS + 1):
            present, refused = self._present()
            answers = self._channel.ask(dict.fromkeys(present, request))
            ready = [n for n, answer in answers.items() if not answer.refusal]
            refused |= {n: answer.told for n, answer in answers.items() if answer.refusal}
            proposal = Proposal(
                study=self.agreement.study,
                round=number,
                attempt=self.progress.attempt,
                model=model,
                purpose=purpose,
                length=length,
                threshold=self._threshold,
            )
            self.progress.attempt += 1
            # Kept before it is proposed: a coordinator that starts again never proposes it twice.
            self._keep()
            summed: Callable[..., Sum] = secure_sum if self.agreement.secure else plain_sum
            try:
                total = summed(self._channel, proposal, self._roster, ready)
            except FederationError as error:
                last, why = error, refused
                continue
            before = {self._roster.number(name): reason for name, reason in refused.items()}
            return replace(total, excluded={**before, **total.excluded}), attempt
        named = "; ".join(f"{n}: {reason}" for n, reason in why.items())
        raise FederationError(
            f"round {number} failed {ATTEMPTS} times: {last.what}" + (f" ({named})" if named else ""),
            where="federation",
            remedy="Run it again when the sites are there: the study goes on where it stopped.",
        )

    def _present(self) -> tuple[list[str], dict[str, str]]:
        """Sites that are there and hold the same plan, and why others are not asked."""
        present, refused = [], {}
        for name, answer in self._channel.ask(
            dict.fromkeys(self._roster.names, Request("hello", b"{}"))
        ).items():
            try:
                told = json.loads(answer.data)
                same = told["plan"] == self.agreement.digest
            except (ValueError, KeyError, TypeError, RecursionError):
                refused[name] = answer.refusal[:200] or "an answer that is none"
                continue
            if same:
                present.append(name)
            else:
                refused[name] = "another plan"
        return present, refused

    def _keep(self) -> None:
        """Model and progress in one file each, the progress last: it names the model that it belongs to."""
        name = f"model-{len(self.progress.rounds)}.safetensors"
        if not (self._directory / name).is_file():
            with whole_file(self._directory / name) as path:
                save_file({"values": self.values}, path)
        told: dict[str, Any] = {"plan": self.agreement.digest, "model": name, **asdict(self.progress)}
        with whole_file(self._directory / "study.json") as path:
            path.write_text(json.dumps(told, indent=1))
        for old in self._directory.glob("model-*.safetensors"):
            if old.name != name:
                old.unlink()

    def _resume(self) -> None:
        path = self._directory / "study.json"
        if not path.is_file():
            return
        try:
            told = json.loads(path.read_text())
            rounds = [Round(**r) for r in told["rounds"]]
            values = load_file(self._directory / told["model"])["values"]
            same = told["plan"] == self.agreement.digest and values.shape == (self.agreement.parameters,)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise FederationError(
                "the study kept here is damaged",
                where=self._directory.name,
                remedy="Choose another directory.",
            ) from error
        if not same:
            raise FederationError(
                "another study is kept here", where=self._directory.name, remedy="Choose another directory."
            )
        self.values = values
        self.progress = Progress(told["totals"], rounds, told["attempt"])
