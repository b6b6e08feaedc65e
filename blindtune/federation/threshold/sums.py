"""Sums over all hospitals that only the hospitals see: counts, and the moments that rows are whitened by.

Each vector is hidden by pairwise masks that cancel in the sum of all (Bonawitz et al. 2017, without their
part for members that drop out: a study with a joint key needs everyone anyway), and sealed from the mailbox.

This is sounder than adding the moments up under the joint key. The sum is exact, so nothing of the key's
error has to be hidden and no opening is spent; the server cannot put another ciphertext in its place to have
it opened; and what is opened is read by hospitals alone. What the sum tells them is the pooled mean and
covariance of the features and how many rows there are of each class: of two hospitals, each can subtract its
own part and has the other's. Noise against that is in :mod:`.private`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blindtune.errors import FederationError
from blindtune.federation.parcel import Parcel
from blindtune.federation.secagg import masks
from blindtune.federation.secagg.quantise import Quantiser
from blindtune.federation.threshold import envelope
from blindtune.federation.threshold.party import Party, Waiting
from blindtune.federation.threshold.transcript import SUM


def stage_of(purpose: str) -> str:
    """The stage of a sum's messages."""
    return f"{SUM}-{purpose}"


class MaskedSum:
    """One sum, at one hospital whose key generation is through.

    Args:
        party: the hospital.
        purpose: a short name; a study has one sum of each.
        parcel: what is summed, as all agreed.
    """

    def __init__(self, party: Party, purpose: str, parcel: Parcel) -> None:
        self._party, self._parcel = party, parcel
        self._stage = stage_of(purpose)
        self._grid = Quantiser(1.0, len(party.terms.roster))

    def add(self, values: Callable[[], Mapping[str, ArrayLike]]) -> None:
        """Add this hospital's values; what was added before stays.

        Args:
            values: called until its answer lies on the disk, and no more: noise that was drawn again could be
                averaged away.

        Raises:
            FederationError: values that do not fit the parcel.
        """
        masked = self._party.outbox.once
        self._party.say(
            self._stage, SUM, lambda: self._sealed(masked(self._name, lambda: self._masked(values())))
        )

    @property
    def added(self) -> bool:
        """Whether this hospital's values are made."""
        return self._party.outbox.recall(self._name) is not None

    def advance(self) -> Waiting:
        """Whose values are missing; with nobody absent :meth:`total` is there."""
        self._party.transcript.check_running()
        return Waiting(self._stage, self._party.transcript.absent(self._stage))

    def total(self) -> dict[str, NDArray[np.float64]]:
        """The sums of the parcel's parts.

        Raises:
            FederationError: someone has not added, or what was added does not open.
        """
        if absent := self.advance().absent:
            raise FederationError(f"{', '.join(absent)} has not added", where=self._stage)
        total = np.zeros(self._parcel.length, np.uint32)
        for name in self._party.terms.roster.names:
            total += self._words(name)
        return self._parcel.unpack(self._grid.decode(total))

    def _masked(self, values: Mapping[str, ArrayLike]) -> bytes:
        """Words under all masks of this hospital."""
        party, words = self._party, self._grid.encode(self._parcel.pack(values))
        for name in party.terms.roster.names:
            if name != party.name:
                low, high = sorted((name, party.name))
                purpose = f"{self._stage} {low} {high}"
                key = masks.agree(party.sealing, party.sealing_key_of(name), party.terms.digest, purpose)
                masks.add_mask(words, key, 1 if party.name == low else -1)
        return words.astype("<u4").tobytes()

    def _sealed(self, content: bytes) -> bytes:
        party = self._party
        others = {n: party.sealing_key_of(n) for n in party.terms.roster.names if n != party.name}
        return envelope.sealed(content, party.name, party.sealing, others, self._context)

    def _words(self, name: str) -> NDArray[np.uint32]:
        party = self._party
        if name == party.name:
            data = party.outbox.recall(self._name) or b""
        else:
            body = party.transcript.read(self._stage, SUM, name) or b""
            order = [n for n in party.terms.roster.names if n != name]
            public = party.sealing_key_of(name)
            data = envelope.unsealed(body, name, public, party.name, party.sealing, order, self._context)
        if len(data) != 4 * self._parcel.length:
            raise FederationError(f"{name} added something else than was agreed on", where=self._stage)
        return np.frombuffer(data, "<u4")

    @property
    def _name(self) -> str:
        """Where this hospital's part of the sum is kept."""
        return f"masked.{self._stage}"

    @property
    def _context(self) -> bytes:
        return hashlib.sha256(self._party.terms.digest + self._stage.encode()).digest()
