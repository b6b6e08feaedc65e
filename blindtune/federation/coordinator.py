"""The coordinator of a federated study: it sees sums, and who took part."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from blindtune.errors import FederationError
from blindtune.federation.agreement import Agreement
from blindtune.federation.channel import Channel, Request
from blindtune.federation.contributions import (
    FINISHED,
    STATISTICS,
    UPDATE,
    counts_mechanism,
    model_digest,
    share,
    slope_mechanism,
    statistics_parcel,
    update_parcel,
    write_model,
)
from blindtune.federation.identity import Roster
from blindtune.federation.learner import BINS, Values, fingerprint, macro_auc
from blindtune.federation.secagg.aggregator import Sum
from blindtune.federation.secagg.session import Policy
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
        confusion: of the model that the round began with, on the sites' validation cases; noisy in a private
            study, and of no cases where none are sent.
        auc: its mean one-vs-rest AUC there, from binned probabilities; None where the loss is.
        loss: its mean loss there; None without validation cases, and in a private study.
        stopped: sites that stopped early.
        change: Euclidean length of the averaged update.
        attempts: tries that it took.
    """

    number: int
    sites: list[str]
    excluded: dict[str, str]
    confusion: list[list[float]]
    auc: float | None
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
        counted: whether the sums before the first round are known.
        rounds: done.
        attempt: sums proposed so far; no two sums of a study share one.
    """

    counted: bool = False
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

    Attributes:
        values: the model so far.
        totals: sums over the confederation's training data, by name.

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
        self.totals: dict[str, NDArray[np.float64]] = {}
        self._resume()

    def run(self) -> Iterator[Round]:
        """Do the rounds that are left, and tell each when it is done and kept.

        Raises:
            FederationError: too few sites for a sum, several times over; run again to go on.
        """
        if not self.progress.counted:
            self._statistics()
        for number in range(len(self.progress.rounds), self.agreement.rounds):
            done = self._round(number)
            self.progress.rounds.append(done)
            self._keep()
            yield done
            if done.stopped == len(done.sites):
                break

    def publish(self) -> list[str]:
        """Give every site that is there the model as it is now.

        Returns:
            names of the sites that have it now.
        """
        request = Request(FINISHED, b"{}", write_model(self.values, self.totals))
        answers = self._channel.ask(dict.fromkeys(self._present()[0], request))
        return [name for name, answer in answers.items() if not answer.refusal]

    def _statistics(self) -> None:
        parcel = statistics_parcel(self.agreement)
        if parcel:
            total, _ = self._sum(STATISTICS, 0, Request(STATISTICS, b"{}"), parcel.length)
            self.totals = parcel.unpack(total.values)
        self.progress.counted = True
        self._keep()

    def _round(self, number: int) -> Round:
        plan = self.agreement
        request = Request(
            UPDATE, json.dumps({"round": number}).encode(), write_model(self.values, self.totals)
        )
        parcel = update_parcel(plan)
        total, attempts = self._sum(UPDATE, number, request, parcel.length)
        found, names = parcel.unpack(total.values), [self._roster.names[n - 1] for n in total.members]
        update = self._update(found, names)
        self.values = (self.values + update).astype(np.float32)
        k = len(plan.classes)
        confusion = found.get("confusion", np.zeros(k * k)).reshape(k, k)
        if plan.privacy and plan.privacy.validation:
            confusion = np.maximum(0, confusion * counts_mechanism(plan, plan.privacy).step)
        cases = confusion.sum()
        return Round(
            number=number,
            sites=names,
            excluded={self._roster.names[n - 1]: why for n, why in total.excluded.items()},
            confusion=confusion.tolist(),
            auc=macro_auc(found["histogram"].reshape(k, 2, BINS)) if "histogram" in found else None,
            loss=float(found["loss"][0]) / cases if "loss" in found and cases else None,
            stopped=int(found["stopped"][0]) if "stopped" in found else 0,
            change=float(np.linalg.norm(update)),
            attempts=attempts,
        )

    def _update(self, found: dict[str, NDArray[np.float64]], names: list[str]) -> NDArray[np.float64]:
        """What a round changes the model by, from its sums over the sites named."""
        plan, private = self.agreement, self.agreement.privacy
        if private is None:
            weight = float(found["weight"][0])
            # A round in which every site has stopped leaves the model as it is.
            return found["update"] / weight if weight > 1e-6 else np.zeros(plan.parameters)
        if private.where == "local":
            return found["update"] / sum(share(plan, private, n) for n in names)
        expected = private.sampling * sum(private.patients[n] for n in names)
        slope = found["slope"] * slope_mechanism(plan, private).step / expected
        return -plan.local.rate * (slope + plan.local.decay * self.values)

    def _sum(self, purpose: str, number: int, request: Request, length: int) -> tuple[Sum, int]:
        """Have sites prepare, and sum what they hold; tried again when too many drop out on the way."""
        model = model_digest(self.values, self.totals)
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
        name = f"model-{len(self.progress.rounds)}-{int(self.progress.counted)}.safetensors"
        if not (self._directory / name).is_file():
            with whole_file(self._directory / name) as path:
                path.write_bytes(write_model(self.values, self.totals))
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
            same = told["plan"] == self.agreement.digest
            progress = Progress(bool(told["counted"]), rounds, int(told["attempt"]))
            arrays = load_file(self._directory / Path(told["model"]).name)
            values = arrays.pop("values")
        except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
            raise FederationError(
                "the study kept here is damaged",
                where=self._directory.name,
                remedy="Choose another directory.",
            ) from error
        if not same:
            raise FederationError(
                "another study is kept here", where=self._directory.name, remedy="Choose another directory."
            )
        self.values, self.progress = values, progress
        self.totals = {name.removeprefix("total."): a for name, a in arrays.items()}
