"""Interactive refresh: trained weights go once through all hospitals and come back with all their levels.

Only weights are refreshed, one ciphertext for each weight block and column block (two where momentum looks
back), whatever the number of rows. The terms say after which steps, and so at which level; each hospital
answers each of these refreshes once, in order. A hospital that is away holds the training up, and nothing
else: what it says later is what it would have said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from blindtune.errors import EngineError, FederationError
from blindtune.federation.threshold.party import Party, Waiting
from blindtune.federation.threshold.terms import Terms
from blindtune.federation.threshold.transcript import REFRESH, Transcript
from blindtune.he.blob import largest_bytes
from blindtune.he.openfhe import joint
from blindtune.he.openfhe.joint import JointPublicKey
from blindtune.he.openfhe.refresh import Part, Stale, combine, part_bytes
from blindtune.wire.bundle import framed

_DIGEST = 32


class Refresh:
    """One refresh, as anyone can carry it out who reads the mailbox.

    Args:
        transcript: of a study whose keys are made.
        number: of the agreed refreshes, from 0 on.
        ciphertexts: blobs of the weights, then of those before where momentum looks back.

    Raises:
        FederationError: a refresh that was not agreed on, or ciphertexts that the program does not have then.
    """

    def __init__(self, transcript: Transcript, number: int, ciphertexts: Sequence[bytes]) -> None:
        terms = transcript.terms
        levels = _levels(terms, number)
        if len(ciphertexts) != len(levels):
            raise FederationError(f"{len(ciphertexts)} ciphertexts instead of {len(levels)}", where=REFRESH)
        self._transcript, self._number = transcript, number
        self._digest = _digest(terms, number, ciphertexts)
        self.stage = f"{REFRESH}-{number}"
        try:
            self._stale = [
                Stale.read(data, terms.checked_parameters, level, self._digest, n)
                for n, (data, level) in enumerate(zip(ciphertexts, levels, strict=True))
            ]
        except EngineError as error:
            raise FederationError(error.what, where=self.stage, remedy=error.remedy) from error

    def answer(self, party: Party) -> None:
        """This hospital's part; what it said before it says again.

        Raises:
            FederationError: someone ended the study; the refresh before is not through; or this one was
                answered for other weights.
        """
        party.transcript.check_running()
        party.transcript.before(self.stage)
        what = f"the weights of refresh {self._number + 1}"
        party.outbox.pin(f"refreshed.{self._number}", self._digest, what)
        party.say(self.stage, REFRESH, lambda: self._part_of(party))

    def advance(self) -> Waiting:
        """Whose parts are missing; with nobody absent :meth:`fresh` is there.

        Raises:
            FederationError: someone ended the study, or a part was altered.
        """
        self._transcript.check_running()
        return Waiting(self.stage, self._transcript.absent(self.stage))

    def fresh(self) -> list[bytes]:
        """The ciphertexts' blobs with all levels; the same, whoever puts them together.

        Raises:
            FederationError: a part is missing, of other weights, or cannot be one.
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

    def _part_of(self, party: Party) -> bytes:
        return self._digest + b"".join(party.share.refresh(stale).to_bytes() for stale in self._stale)

    def _parts(self, name: str) -> list[Part]:
        p = self._transcript.terms.checked_parameters
        body = self._transcript.read(self.stage, REFRESH, name) or b""
        if body[:_DIGEST] != self._digest:
            raise FederationError(
                f"{name} refreshed other weights",
                where=self.stage,
                remedy="Nothing was decrypted. Ask whoever trains why hospitals were given others.",
            )
        found, at = [], _DIGEST
        try:
            for stale in self._stale:
                size = part_bytes(stale.level, p)
                found.append(Part.from_bytes(body[at : at + size], stale, p))
                at += size
        except EngineError as error:
            raise FederationError(f"{name}: {error.what}", where=self.stage) from error
        return found


def read_stale(path: Path, terms: Terms, number: int) -> list[bytes]:
    """Weights that whoever trains left for the hospitals, as a frame.

    Raises:
        FederationError: a refresh that was not agreed on.
        BundleError: truncated, or other than as many items.
    """
    count = len(_levels(terms, number))
    return list(framed(path, f"refresh {number + 1}", count, largest_bytes(terms.checked_parameters)))


def _levels(terms: Terms, number: int) -> list[int]:
    agreed = len(terms.program.refreshes)
    if not 0 <= number < agreed:
        raise FederationError(
            f"refresh {number + 1} of {agreed} that were agreed on",
            where=REFRESH,
            remedy="Ask whoever trains: the agreed program has no such refresh.",
        )
    return terms.stale_levels(number)


def _digest(terms: Terms, number: int, ciphertexts: Sequence[bytes]) -> bytes:
    found = hashlib.sha256(b"blindtune refresh" + terms.digest + number.to_bytes(4, "big"))
    for data in ciphertexts:
        found.update(hashlib.sha256(data).digest())
    return found.digest()
