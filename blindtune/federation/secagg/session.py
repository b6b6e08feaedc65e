"""What all members of one aggregation agree on, and what a member insists on before it takes part."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from blindtune.errors import FederationError
from blindtune.federation.identity import Roster
from blindtune.federation.secagg.quantise import Quantiser

MAX_LENGTH = 1 << 30
"""Values of a vector: 4 GiB of words."""


@dataclass(frozen=True)
class Session:
    """One aggregation: every signature and key of it is bound to its digest.

    Members who were told different things by the server (another model, roster, threshold or grid) get
    different digests, and none of their signatures verify: the session ends before anyone sends a vector.

    Args:
        study: identifier.
        round, attempt: from 0; a round that failed is tried again under the next attempt.
        model: SHA-256 of the model that all start from, as hexadecimal digits.
        purpose: what is summed, such as ``update`` or ``moments``.
        length: values of a vector.
        clip: of the quantiser.
        threshold: members that must remain to the end.
        roster: the members.

    Raises:
        FederationError: values that cannot be.
    """

    study: str
    round: int
    attempt: int
    model: str
    purpose: str
    length: int
    clip: float
    threshold: int
    roster: Roster

    def __post_init__(self) -> None:
        small = 0 <= self.round < 1 << 31 and 0 <= self.attempt < 1 << 31
        if not (small and 1 <= self.length <= MAX_LENGTH and 1 <= self.threshold <= len(self.roster)):
            raise FederationError("a session with values that cannot be", where="secure aggregation")
        Quantiser(self.clip, len(self.roster))

    @property
    def quantiser(self) -> Quantiser:
        """The grid."""
        return Quantiser(self.clip, len(self.roster))

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all of it."""
        told = {
            "protocol": "blindtune secagg 1",
            "study": self.study,
            "round": self.round,
            "attempt": self.attempt,
            "model": self.model,
            "purpose": self.purpose,
            "length": self.length,
            "clip": float(self.clip).hex(),
            "threshold": self.threshold,
            "roster": [[name, self.roster.keys[name].hex()] for name in self.roster.names],
        }
        text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).digest()


def colluders(members: int) -> int:
    """Members that may side with the server unless a policy says otherwise: fewer than a third."""
    return (members - 1) // 3


def threshold(members: int, colluding: int) -> int:
    """The least threshold that holds against a server that lies and so many members that side with it.

    Two disjoint stories of who dropped out need more than ``members + colluding`` answers between them
    (Bonawitz et al. 2017, section 6.2: ``2 t > n + n_C``).
    """
    return (members + colluding) // 2 + 1


@dataclass(frozen=True)
class Policy:
    """What a hospital insists on, whatever the server proposes.

    Args:
        fewest: members that a sum must have: of two, each would learn the other's.
        colluding: members that may side with the server; None for fewer than a third.
    """

    fewest: int = 3
    colluding: int | None = None

    def threshold(self, members: int) -> int:
        """The least threshold of a session."""
        return max(threshold(members, self._colluding(members)), self.fewest)

    def honest(self, members: int) -> int:
        """Members in every sum, at least, that do not side with the server."""
        return self.threshold(members) - self._colluding(members)

    def _colluding(self, members: int) -> int:
        return colluders(members) if self.colluding is None else self.colluding

    def check(self, session: Session) -> None:
        """Refuse a session that protects too little.

        Raises:
            FederationError: too few members or too low a threshold.
        """
        members = len(session.roster)
        if members < self.fewest:
            raise FederationError(
                f"a sum of {members} members",
                where="secure aggregation",
                remedy=f"This hospital takes part among {self.fewest} or more.",
            )
        least = self.threshold(members)
        if session.threshold < least:
            raise FederationError(
                f"a threshold of {session.threshold} of {members} members",
                where="secure aggregation",
                remedy=f"This hospital asks for {least} or more.",
            )
