"""Interactive refresh: trained weights go once through all hospitals and come back with all their levels.

Only weights are refreshed, one ciphertext for each weight block and column block, whatever the number of
rows. A hospital that is away holds the training up, and nothing else: what it says later is what it would
have said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from blindtune.errors import EngineError, FederationError
from blindtune.federation.threshold.party import Party, Waiting
from blindtune.federation.threshold.terms import Terms
from blindtune.federation.threshold.transcript import REFRESH, Transcript
from blindtune.he.openfhe import joint
from blindtune.he.openfhe.joint import JointPublicKey
from blindtune.he.openfhe.refresh import Part, Stale, combine, part_bytes


class Refresh:
    """One refresh, as anyone can carry it out who reads the mailbox.

    Args:
        transcript: of a study whose keys are made.
        ciphertexts: blobs of the weights.

    Raises:
        FederationError: not as many as the program has, or ciphertexts that cannot be refreshed.
    """

    def __init__(self, transcript: Transcript, ciphertexts: Sequence[bytes]) -> None:
        terms = transcript.terms
        if len(ciphertexts) != len(terms.periods):
            raise FederationError(
                f"{len(ciphertexts)} ciphertexts instead of {len(terms.periods)}", where=REFRESH
            )
        self._transcript, self._digest = transcript, _digest(terms, ciphertexts)
        self.stage = f"{REFRESH}-{self._digest.hex()[:32]}"
        try:
            self._stale = [
                Stale.read(data, terms.checked_parameters, self._digest, n)
                for n, data in enumerate(ciphertexts)
            ]
        except EngineError as error:
            raise FederationError(error.what, where=REFRESH, remedy=error.remedy) from error

    def answer(self, party: Party) -> None:
        """This hospital's part; what it said before it says again."""
        party.say(
            self.stage,
            REFRESH,
            lambda: b"".join(party.share.refresh(stale).to_bytes() for stale in self._stale),
        )

    def advance(self) -> Waiting:
        """Whose parts are missing; with nobody absent :meth:`fresh` is there.

        Raises:
            FederationError: someone ended the study, or a part was altered.
        """
        self._transcript.check_running()
        return Waiting(self.stage, self._transcript.absent(self.stage))

    def fresh(self) -> list[bytes]:
        """The ciphertexts' blobs with all levels.

        Raises:
            FederationError: a part is missing, or cannot be one.
        """
        if absent := self.advance().absent:
            raise FederationError(f"{', '.join(absent)} has not answered", where=self.stage)
        p = self._transcript.terms.checked_parameters
        public = JointPublicKey(p, self._transcript.joint(joint.PUBLIC))
        parts = [self._parts(name) for name in self._transcript.terms.roster.names]
        return [
            combine(stale, [of_member[n] for of_member in parts], public)
            for n, stale in enumerate(self._stale)
        ]

    def _parts(self, name: str) -> list[Part]:
        p = self._transcript.terms.checked_parameters
        body = self._transcript.read(self.stage, REFRESH, name) or b""
        found, at = [], 0
        try:
            for stale in self._stale:
                size = part_bytes(stale.level, p)
                found.append(Part.from_bytes(body[at : at + size], stale, p))
                at += size
        except EngineError as error:
            raise FederationError(f"{name}: {error.what}", where=self.stage) from error
        return found


def _digest(terms: Terms, ciphertexts: Sequence[bytes]) -> bytes:
    found = hashlib.sha256(b"blindtune refresh" + terms.digest)
    for data in ciphertexts:
        found.update(hashlib.sha256(data).digest())
    return found.digest()
