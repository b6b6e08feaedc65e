"""The server's side of secure aggregation: it learns the sum, who took part, and nothing else.

Each stage takes messages until it is closed; who is missing by then has dropped out. A message that cannot
be used names its sender and excludes it: the others go on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import FederationError
from blindtune.federation.secagg import masks, shamir
from blindtune.federation.secagg.messages import (
    ADVERT,
    CONSENT,
    Advert,
    Adverts,
    Consent,
    Consents,
    Delivery,
    Opening,
    Sharing,
    Survivors,
    commitment,
    parse,
)
from blindtune.federation.secagg.session import Session

TRIES = 200
"""Subsets of shares tried when some are wrong, beside the windows of neighbours."""


@dataclass(frozen=True)
class Sum:
    """What came of a session.

    Attributes:
        values: the sum, shape (length,).
        members: numbers of those whose vectors are in it.
        dropped: numbers of those who shared and then dropped out.
        excluded: reason by number of those whose message could not be used.
    """

    values: NDArray[np.float64]
    members: tuple[int, ...]
    dropped: tuple[int, ...]
    excluded: Mapping[int, str]


class Aggregator:
    """One session.

    ``receive_*`` take a message and the number of the member whose connection it came on.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.excluded: dict[int, str] = {}
        self._adverts: dict[int, Advert] = {}
        self._shared: dict[int, dict[int, bytes]] = {}
        self._total = np.zeros(session.length, "<u4")
        self._masked: set[int] = set()
        self._consents: dict[int, bytes] = {}
        self._openings: dict[int, Opening] = {}
        self._closed: set[str] = set()

    def receive_advert(self, sender: int, data: bytes) -> None:
        """A member's keys."""
        with self._judging(sender, "adverts", self._adverts):
            advert = parse(Advert, data)
            self._own(sender, advert.member)
            content = self.session.digest + advert.signed
            if not self.session.roster.verify(sender, ADVERT, content, advert.signature):
                raise FederationError("keys with a wrong signature: another model, roster or key")
            self._adverts[sender] = advert

    def adverts(self) -> Adverts:
        """All keys, for all who advertised.

        Raises:
            FederationError: too few.
        """
        self._close("adverts", len(self._adverts))
        return Adverts(adverts=[self._adverts[n] for n in sorted(self._adverts)])

    def receive_sharing(self, sender: int, data: bytes) -> None:
        """A member's sealed shares."""
        with self._judging(sender, "deliveries", self._shared, among=self._adverts):
            sharing = parse(Sharing, data)
            self._own(sender, sharing.member)
            if sharing.sealed.keys() != self._adverts.keys() - {sender}:
                raise FederationError("shares that are not for all others")
            self._shared[sender] = sharing.sealed

    def deliveries(self) -> dict[int, Delivery]:
        """What each member gets from all others.

        Raises:
            FederationError: too few.
        """
        self._close("deliveries", len(self._shared))
        return {
            n: Delivery(sealed={m: self._shared[m][n] for m in sorted(self._shared) if m != n})
            for n in sorted(self._shared)
        }

    def receive_masked(self, sender: int, data: bytes) -> None:
        """A member's masked vector, added to the sum."""
        with self._judging(sender, "survivors", self._masked, among=self._shared):
            if len(data) != 4 * self.session.length:
                raise FederationError(f"a vector of {len(data):,} bytes")
            self._total += np.frombuffer(data, "<u4")
            self._masked.add(sender)

    def survivors(self) -> Survivors:
        """Whose vectors arrived.

        Raises:
            FederationError: too few.
        """
        self._close("survivors", len(self._masked))
        return Survivors(members=sorted(self._masked))

    def receive_consent(self, sender: int, data: bytes) -> None:
        """A member's signature of the survivors."""
        with self._judging(sender, "consents", self._consents, among=self._masked):
            consent = parse(Consent, data)
            self._own(sender, consent.member)
            content = self.session.digest + Survivors(members=sorted(self._masked)).signed
            if not self.session.roster.verify(sender, CONSENT, content, consent.signature):
                raise FederationError("a wrong signature of who survived")
            self._consents[sender] = consent.signature

    def consents(self) -> Consents:
        """All signatures.

        Raises:
            FederationError: too few.
        """
        self._close("consents", len(self._consents))
        return Consents(signatures=dict(sorted(self._consents.items())))

    def receive_opening(self, sender: int, data: bytes) -> None:
        """A member's shares of what unmasks."""
        with self._judging(sender, "sum", self._openings, among=self._consents):
            opening = parse(Opening, data)
            self._own(sender, opening.member)
            dropped = self._shared.keys() - self._masked
            if not opening.seeds.keys() <= self._masked or not opening.keys.keys() <= dropped:
                raise FederationError("shares of what nobody asked for")
            self._openings[sender] = opening

    def result(self) -> Sum:
        """Unmask the sum.

        Raises:
            FederationError: too few answered, or their shares do not give the secrets back.
        """
        self._close("sum", len(self._openings))
        session, dropped = self.session, sorted(self._shared.keys() - self._masked)
        for n in sorted(self._masked):
            shares = {m: o.seeds[n] for m, o in self._openings.items() if n in o.seeds}
            expected = self._adverts[n].commitment
            seed = self._recovered(n, shares, lambda s, expected=expected: commitment(s) == expected)  # type: ignore[misc]
            masks.add_mask(self._total, masks.derive(seed, session.digest, "self"), -1)
        for n in dropped:
            shares = {m: o.keys[n] for m, o in self._openings.items() if n in o.keys}
            public = self._adverts[n].masking
            key = self._recovered(n, shares, lambda k, public=public: masks.public_key(k) == public)  # type: ignore[misc]
            for m in sorted(self._masked):
                pair = masks.agree(key, self._adverts[m].masking, session.digest, "pair")
                # The survivor's sign, turned round.
                masks.add_mask(self._total, pair, -1 if m < n else 1)
        values = session.quantiser.decode(self._total)
        return Sum(values, tuple(sorted(self._masked)), tuple(dropped), dict(self.excluded))

    def _recovered(self, owner: int, shares: dict[int, bytes], right: Callable[[bytes], bool]) -> bytes:
        """The secret that is right, and who gave a wrong share of it."""
        for few in subsets(sorted(shares), self.session.threshold):
            secret = shamir.recover({n: shares[n] for n in few})
            if secret is not None and right(secret):
                good = {n: shares[n] for n in few}
                for n in shares.keys() - good.keys():
                    if shamir.interpolate(good, n) != int.from_bytes(shares[n], "big"):
                        self.excluded[n] = "a wrong share"
                return secret
        name = self.session.roster.names[owner - 1]
        raise FederationError(
            f"the shares of what unmasks {name} do not fit together",
            where="secure aggregation",
            remedy="Repeat the round, without that member if it happens again.",
        )

    def _close(self, stage: str, count: int) -> None:
        self._closed.add(stage)
        if count < self.session.threshold:
            raise FederationError(
                f"{count} members are left, {self.session.threshold} are needed",
                where=f"secure aggregation, {stage}",
                remedy="Repeat the round when more hospitals are there.",
            )

    def _own(self, sender: int, member: int) -> None:
        if sender != member:
            raise FederationError("a message in another member's name")

    @contextmanager
    def _judging(
        self, sender: int, stage: str, seen: Container[int], among: Container[int] | None = None
    ) -> Iterator[None]:
        """Refuse messages that come twice, late or from outsiders; exclude the sender of a bad one."""
        if stage in self._closed:
            raise FederationError("a message after its stage was closed", where="secure aggregation")
        if sender in seen or sender in self.excluded:
            raise FederationError("a message that came before", where="secure aggregation")
        if among is not None and sender not in among:
            raise FederationError("a message of one who is not in this session", where="secure aggregation")
        try:
            yield
        except FederationError as error:
            self.excluded[sender] = error.what


def subsets(numbers: list[int], size: int) -> Iterator[tuple[int, ...]]:
    """Subsets to recover from: windows of neighbours, that soon leave a few wrong shares out, then random."""
    count = len(numbers)
    if count < size:
        return
    yield tuple(numbers[:size])
    if count == size:
        return
    for start in range(1, count):
        yield tuple(numbers[(start + i) % count] for i in range(size))
    # Not a secret: only which shares are tried first.
    choice = random.Random(0)  # noqa: S311
    for _ in range(TRIES):
        yield tuple(choice.sample(numbers, size))
