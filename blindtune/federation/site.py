"""A hospital in a federated study: trains on request, and adds what it learned to secure sums."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from blindtune import __version__
from blindtune.errors import FederationError
from blindtune.federation.agreement import Agreement
from blindtune.federation.channel import Request
from blindtune.federation.learner import Learner, Scores, Values, fingerprint
from blindtune.federation.parcel import Parcel, Part
from blindtune.federation.secagg.member import Member
from blindtune.federation.sums import PLAIN, PREFIX, Proposal, SumDesk
from blindtune.files import whole_file

STATISTICS, UPDATE, READY = "statistics", "update", "ready.safetensors"
LOSS_BOUND = float(1 << 20)
"""Of the sum of a site's losses: eight a case for the largest site, with four digits for the smallest."""


def statistics_parcel(agreement: Agreement) -> Parcel:
    """What is summed before the first round."""
    return Parcel((Part("images", len(agreement.classes), count=True),))


def update_parcel(agreement: Agreement) -> Parcel:
    """What is summed in a round: the weighed update, and the round's model on the sites' validation cases."""
    k = len(agreement.classes)
    return Parcel(
        (
            Part("update", agreement.parameters, agreement.bound),
            Part("weight", 1, 1.0),
            Part("confusion", k * k, count=True),
            Part("loss", 1, LOSS_BOUND),
            Part("stopped", 1, count=True),
        )
    )


class RoundHead(BaseModel):
    """What comes with a round's model."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    round: int = Field(ge=0, lt=1 << 31)
    totals: list[int] = Field(min_length=2, max_length=1000)


class Site:
    """One hospital.

    Args:
        member: its part in secure sums.
        agreement: the plan that this hospital approved.
        learner: model and data.
        directory: where what is ready to be summed lies, so that a restart loses nothing.
    """

    def __init__(self, member: Member, agreement: Agreement, learner: Learner, directory: Path) -> None:
        self._agreement, self._learner, self._directory = agreement, learner, directory
        self._desk = SumDesk(member, self._ready, plain=not agreement.secure)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def handle(self, request: Request) -> bytes:
        """Answer the coordinator.

        Raises:
            FederationError: a request that does not fit the plan.
        """
        if request.kind == "hello":
            return json.dumps({"plan": self._agreement.digest, "version": __version__}).encode()
        if request.kind == STATISTICS:
            counts = self._learner.counts()
            self._keep(
                STATISTICS,
                0,
                self._agreement.start,
                statistics_parcel(self._agreement).pack({"images": counts}),
            )
            return b""
        if request.kind == UPDATE:
            self._train(request)
            return b""
        if request.kind.startswith(PREFIX) or request.kind == PLAIN:
            return self._desk.handle(request)
        raise FederationError(f"a request of kind {request.kind[:40]}", where="federation")

    def _train(self, request: Request) -> None:
        agreement = self._agreement
        try:
            head = RoundHead.model_validate_json(request.head)
        except ValidationError:
            raise FederationError("a round without its number and totals", where="federation") from None
        k = len(agreement.classes)
        if head.round >= agreement.rounds or len(head.totals) != k or min(head.totals) < 0:
            raise FederationError("a round that the plan does not have", where="federation")
        if len(request.body) != 4 * agreement.parameters:
            raise FederationError(f"a model of {len(request.body):,} bytes", where="federation")
        values: Values = np.frombuffer(request.body, "<f4")
        if not np.isfinite(values).all():
            raise FederationError("a model with values that are not numbers", where="federation")
        if head.round == 0 and fingerprint(values) != agreement.start:
            raise FederationError("a first model that is not the plan's", where="federation")
        if self._holds(UPDATE, head.round, fingerprint(values)):
            # The sum of this round failed: what was learned for it still stands.
            return
        scores = self._learner.evaluate(values)
        stopped = self._stopped(head.round, scores)
        weight, update = self._weight(head.totals), np.zeros(agreement.parameters, np.float32)
        if stopped:
            weight = 0.0
        else:
            totals = np.array(head.totals, np.int64)
            update = (self._learner.train(values, totals) - values) * np.float32(weight)
        packed = update_parcel(agreement).pack(
            {
                "update": update,
                "weight": [weight],
                "confusion": scores.confusion.ravel(),
                "loss": [scores.loss * scores.cases],
                "stopped": [float(stopped)],
            }
        )
        self._keep(UPDATE, head.round, fingerprint(values), packed)

    def _weight(self, totals: list[int]) -> float:
        if self._agreement.average == "uniform":
            return 1.0
        return min(1.0, float(self._learner.counts().sum()) / max(1, sum(totals)))

    def _stopped(self, round_: int, scores: Scores) -> bool:
        """Whether this site's validation loss has not fallen for too long; remembered on disk."""
        patience = self._agreement.local.patience
        path = self._directory / "validation.json"
        losses: dict[str, float] = json.loads(path.read_text()) if path.is_file() and round_ else {}
        losses[str(round_)] = scores.loss
        with whole_file(path) as partial:
            partial.write_text(json.dumps(losses))
        if not patience or not scores.cases:
            return False
        best = min(losses, key=lambda r: (losses[r], int(r)))
        return round_ - int(best) >= patience

    def _keep(self, purpose: str, round_: int, model: str, vector: NDArray[np.float32]) -> None:
        with whole_file(self._directory / READY) as path:
            save_file({"vector": vector}, path, metadata=_label(purpose, round_, model))

    def _holds(self, purpose: str, round_: int, model: str) -> bool:
        """Whether what is ready is for this sum."""
        path = self._directory / READY
        if not path.is_file():
            return False
        with safe_open(path, framework="np") as file:
            return bool(file.metadata() == _label(purpose, round_, model))

    def _ready(self, proposal: Proposal) -> NDArray[np.float32]:
        held = self._holds(proposal.purpose, proposal.round, proposal.model)
        if not held or proposal.study != self._agreement.study:
            raise FederationError(
                "nothing is ready for this sum: another round, model or study", where="federation"
            )
        found: NDArray[np.float32] = load_file(self._directory / READY)["vector"]
        return found


def _label(purpose: str, round_: int, model: str) -> dict[str, str]:
    return {"purpose": purpose, "round": str(round_), "model": model}
