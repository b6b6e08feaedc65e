"""A hospital in a federated study: trains on request, and adds what it learned to secure sums."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, ValidationError
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from blindtune import __version__
from blindtune.errors import FederationError
from blindtune.federation.agreement import Agreement, HeadModel, Privacy, Schema
from blindtune.federation.channel import Request
from blindtune.federation.contributions import (
    FINISHED,
    STATISTICS,
    UPDATE,
    cut,
    known,
    model_digest,
    plain_parts,
    read_model,
    share,
    slope_mechanism,
    statistics_parcel,
    summed,
    update_parcel,
)
from blindtune.federation.learner import (
    Learner,
    Scores,
    Values,
    counts,
    fingerprint,
    scores,
    site_sum,
)
from blindtune.federation.private import (
    first_releases,
    private_counts,
    private_moments,
    private_slope,
    private_values,
    round_releases,
)
from blindtune.federation.secagg.member import Member
from blindtune.federation.setup import save_model
from blindtune.federation.sums import PLAIN, PREFIX, Proposal, SumDesk
from blindtune.files import whole_file
from blindtune.privacy.account import Release
from blindtune.privacy.ledger import Ledger

READY, MODEL = "ready.safetensors", "model"


class RoundHead(Schema):
    """What comes with a round's model."""

    round: int = Field(ge=0, lt=1 << 31)


class Site:
    """One hospital.

    Args:
        member: its part in secure sums.
        agreement: the plan that this hospital approved.
        learner: model and data.
        directory: where what is ready to be summed lies, so that a restart loses nothing; the finished model
            comes into its folder ``model``.
        ledger: of this hospital's patients; a private plan is charged to it before anything is released.

    Raises:
        FederationError: a private plan without a ledger, without this site, or that counts on more honest
            sites than this hospital does.
    """

    def __init__(
        self,
        member: Member,
        agreement: Agreement,
        learner: Learner,
        directory: Path,
        ledger: Ledger | None = None,
    ) -> None:
        self._agreement, self._learner, self._directory = agreement, learner, directory
        self._name, self._ledger, self._begun = member.name, ledger, ""
        if agreement.privacy:
            check_privacy(agreement.privacy, member, ledger)
        self._desk = SumDesk(member, self._ready, plain=not agreement.secure)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def handle(self, request: Request) -> bytes:
        """Answer the coordinator.

        Raises:
            FederationError: a request that does not fit the plan.
            PrivacyError: it would exceed the budget of this hospital's patients.
        """
        if request.kind == "hello":
            return json.dumps({"plan": self._agreement.digest, "version": __version__}).encode()
        if request.kind == STATISTICS:
            self._count()
            return b""
        if request.kind == UPDATE:
            self._train(request)
            return b""
        if request.kind == FINISHED:
            values, totals = read_model(self._agreement, request.body)
            save_model(self._agreement, values, totals, self._directory / MODEL)
            return b""
        if request.kind.startswith(PREFIX) or request.kind == PLAIN:
            return self._desk.handle(request)
        raise FederationError(f"a request of kind {request.kind[:40]}", where="federation")

    def _count(self) -> None:
        plan, private, learner = self._agreement, self._agreement.privacy, self._learner
        parcel = statistics_parcel(plan)
        if parcel is None:
            raise FederationError("a plan that sums nothing before its rounds", where="federation")
        if self._holds(STATISTICS, 0, plan.start):
            return
        parts: dict[str, ArrayLike] = {}
        if private is None:
            parts["images"] = counts(learner.training.labels, len(plan.classes))
        if needed := summed(plan):
            name, length = needed
            if private and isinstance(plan.model, HeadModel):
                self._charge("before round 0", first_releases(plan, private))
                parts[name] = cut(parcel, name, private_moments(learner, plan.model, private))
            else:
                parts[name] = site_sum(learner, length)
        self._keep(STATISTICS, 0, plan.start, parcel.pack(parts))

    def _train(self, request: Request) -> None:
        plan = self._agreement
        try:
            number = RoundHead.model_validate_json(request.head).round
        except ValidationError:
            raise FederationError("a round without its number", where="federation") from None
        if number >= plan.rounds:
            raise FederationError("a round that the plan does not have", where="federation")
        values, totals = read_model(plan, request.body)
        if number == 0 and fingerprint(values) != plan.start:
            raise FederationError("a first model that is not the plan's", where="federation")
        digest = model_digest(values, totals)
        if self._holds(UPDATE, number, digest):
            # The sum of this round failed: what was learned for it still stands.
            return
        full = known(plan, totals)
        sums = model_digest(np.empty(0, np.float32), totals)
        if self._begun != sums:
            # The same in every round: whitening, and encryption in blind rounds, need not be looked at again.
            self._learner.begin(full)
            self._begun = sums
        if plan.privacy:
            parts = self._private(plan.privacy, number, values)
        else:
            parts = self._open(number, values, full["rows"])
        self._keep(UPDATE, number, digest, update_parcel(plan).pack(parts))

    def _open(self, number: int, values: Values, rows: NDArray[np.float64]) -> Mapping[str, ArrayLike]:
        """A round's parts without privacy."""
        learner = self._learner
        found = scores(learner.validation.labels, learner.predict(values))
        if self._stopped(number, found):
            return plain_parts(np.zeros_like(values), 0.0, found, stopped=True)
        own = 1.0
        if self._agreement.average == "weighted":
            own = min(1.0, len(learner.training.labels) / max(1.0, float(rows[0])))
        return plain_parts((learner.train(values) - values) * np.float32(own), own, found, stopped=False)

    def _private(self, private: Privacy, number: int, values: Values) -> Mapping[str, ArrayLike]:
        """A round's parts with noise; the ledger is charged before any is drawn."""
        plan, learner, parcel = self._agreement, self._learner, update_parcel(self._agreement)
        self._charge(f"round {number}", round_releases(plan, private))
        parts: dict[str, ArrayLike] = {}
        if private.where == "distributed":
            slope = private_slope(learner, slope_mechanism(plan, private), private, values)
            parts["slope"] = cut(parcel, "slope", slope)
        else:
            moved = private_values(learner, plan, private, self._name, values) - values
            parts["update"] = moved * np.float32(share(plan, private, self._name))
        if private.validation:
            parts["confusion"] = cut(parcel, "confusion", private_counts(learner, plan, private, values))
        return parts

    def _charge(self, when: str, releases: list[tuple[str, Release]]) -> None:
        assert self._ledger is not None
        for purpose, release in releases:
            self._ledger.charge(f"{self._agreement.study}, {when}: {purpose}", release)

    def _stopped(self, round_: int, found: Scores) -> bool:
        """Whether this site's validation loss has not fallen for too long; remembered on disk."""
        patience = self._agreement.local.patience
        path = self._directory / "validation.json"
        losses: dict[str, float] = json.loads(path.read_text()) if path.is_file() and round_ else {}
        losses[str(round_)] = found.loss
        with whole_file(path) as partial:
            partial.write_text(json.dumps(losses))
        if not patience or not found.cases:
            return False
        best = min(losses, key=lambda r: (losses[r], int(r)))
        return round_ - int(best) >= patience

    def _keep(self, purpose: str, round_: int, model: str, vector: NDArray[np.float64]) -> None:
        with whole_file(self._directory / READY) as path:
            save_file({"vector": vector}, path, metadata=_label(purpose, round_, model))

    def _holds(self, purpose: str, round_: int, model: str) -> bool:
        """Whether what is ready is for this sum."""
        path = self._directory / READY
        if not path.is_file():
            return False
        with safe_open(path, framework="np") as file:
            return bool(file.metadata() == _label(purpose, round_, model))

    def _ready(self, proposal: Proposal) -> NDArray[np.float64]:
        held = self._holds(proposal.purpose, proposal.round, proposal.model)
        if not held or proposal.study != self._agreement.study:
            raise FederationError(
                "nothing is ready for this sum: another round, model or study", where="federation"
            )
        found: NDArray[np.float64] = load_file(self._directory / READY)["vector"]
        return found


def check_privacy(private: Privacy, member: Member, ledger: Ledger | None) -> None:
    if ledger is None:
        raise FederationError(
            "a private study needs this hospital's privacy ledger",
            where="site",
            remedy="Open one with blindtune dp open, and give it.",
        )
    if set(private.patients) != set(member.roster.names):
        raise FederationError("the plan's patients and the roster name other sites", where="plan")
    honest = member.policy.honest(len(member.roster))
    if private.where == "distributed" and private.survivors > honest:
        raise FederationError(
            f"the plan counts on {private.survivors} honest sites in every sum",
            where="plan",
            remedy=f"This hospital counts on {honest}: agree on as many, or on local noise.",
        )


def _label(purpose: str, round_: int, model: str) -> dict[str, str]:
    return {"purpose": purpose, "round": str(round_), "model": model}
