"""Refreshes of a training under a joint key: the hospitals make its weights fresh, through their mailbox.

Encrypted weights are left there as a message; what the hospitals make of them lies there as another, signed
by whoever put it together, and the same but for that. While it is missing the job waits, and holds no worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blindtune.errors import BundleError
from blindtune.he.blob import largest_bytes
from blindtune.he.engine import Ciphertext, Engine
from blindtune.server.leases import Claim
from blindtune.server.messages import Letter
from blindtune.server.service import Service
from blindtune.wire.bundle import frame, framed
from blindtune.wire.message import FRESH, STALE, body_start, refresh_stage
from blindtune.wire.study import fresh


class Waits(Exception):
    """The hospitals have to make the weights fresh before the job goes on.

    Args:
        number: of the refresh, from 1 on.
    """

    def __init__(self, number: int, total: int) -> None:
        super().__init__(number, total)
        self.what = f"the hospitals have to refresh the weights ({number} of {total})"
        self.remedy = "Each hospital runs blindtune study open, which then goes on."


@dataclass(frozen=True)
class Refreshing:
    """The refreshes of one claim.

    Attributes:
        work: a directory of the claim's own.
        total: refreshes of the program.
    """

    service: Service
    claim: Claim
    work: Path
    engine: Engine
    total: int

    def __call__(self, number: int, weights: list[Ciphertext]) -> list[Ciphertext]:
        """See :class:`~blindtune.kernels.training.Trainer`.

        Raises:
            Waits: the hospitals have not made them fresh yet.
            PlanError: other weights of this refresh lie in the mailbox already.
            BundleError: what lies there is not as many fresh ciphertexts.
        """
        contents, messages = self.service.contents, self.service.messages
        file, stage = self.work / "stale", refresh_stage(number)
        with open(file, "wb") as out:
            out.writelines(frame([self.engine.dump(c) for c in weights]))
        size = file.stat().st_size
        sha256 = contents.keep(self.claim.tenant, file)
        messages.post(Letter(self.claim.tenant, self.claim.study, stage, *STALE), sha256, size)
        found = messages.said(self.claim.tenant, self.claim.study, stage, FRESH)
        if found is None:
            raise Waits(number + 1, self.total)
        what = f"refresh {number + 1}"
        path, largest = contents.path(self.claim.tenant, found), largest_bytes(self.engine.parameters)
        try:
            start = body_start(path)
        except ValueError:
            raise BundleError(f"{what} is not a message") from None
        return fresh(self.engine, framed(path, what, len(weights), largest, start), what)
