"""A hospital's side of secure aggregation: five answers in order, each given once.

Whatever the server sends, a member never masks two vectors under one session, and never opens both shares
of one peer: together they would lay that peer's vector open (Bonawitz et al. 2017, section 6). Nor does it
open a second sum for the same model and purpose over other members: a server that calls a round failed and
repeats it without one hospital would learn that one's vector from the difference.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from numpy.typing import NDArray

from blindtune.errors import FederationError
from blindtune.federation.identity import Identity, Roster
from blindtune.federation.secagg import masks, shamir
from blindtune.federation.secagg.journal import Journal
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
    distinct,
)
from blindtune.federation.secagg.session import Policy, Session

ADVERTISED, SHARED, MASKED, AGREED = "advertised", "shared", "masked", "agreed"
NONCE_BYTES = 12


class Member:
    """One hospital.

    Args:
        name: on the roster.
        identity: its signing key.
        roster: the one that the hospital has checked by telephone, not the server's.
        journal: of this hospital, for as long as it lives.
        policy: what it insists on.

    Attributes:
        name, roster, policy: as given.
        number: its number on the roster.

    Raises:
        FederationError: the identity is not the one on the roster.
    """

    def __init__(
        self, name: str, identity: Identity, roster: Roster, journal: Journal, policy: Policy | None = None
    ) -> None:
        self.number = roster.number(name)
        if roster.keys[name] != identity.public:
            raise FederationError(
                "the roster has another key for this hospital",
                where=name,
                remedy="Send the roster's keeper the public key of this identity.",
            )
        self.name, self.roster = name, roster
        self._identity, self._journal = identity, journal
        self.policy = policy or Policy()

    def advertise(self, session: Session) -> Advert:
        """Begin a session: fresh keys, signed.

        Raises:
            FederationError: another roster, a session that protects too little, or one begun before.
        """
        if session.roster != self.roster:
            raise FederationError(
                "the server's roster is not this hospital's",
                where="secure aggregation",
                remedy="Compare fingerprints with the other members.",
            )
        self.policy.check(session)
        sealing, masking, seed = masks.private_key(), masks.private_key(), os.urandom(shamir.SECRET_BYTES)
        advert = Advert(
            member=self.number,
            sealing=masks.public_key(sealing),
            masking=masks.public_key(masking),
            commitment=commitment(seed),
            signature=bytes(64),
        )
        signature = self._identity.sign(ADVERT, session.digest + advert.signed)
        advert = advert.model_copy(update={"signature": signature})
        state = {"sealing": sealing, "masking": masking, "seed": seed, "advert": advert.to_bytes()}
        at = (session.round, session.attempt)
        self._journal.begin(session.digest, session.study, at, ADVERTISED, _packed(state))
        return advert

    def share(self, session: Session, adverts: Adverts) -> Sharing:
        """Share the secrets that unmask with all who advertised.

        Raises:
            FederationError: too few, a signature that does not verify, keys that stand twice.
        """
        state = self._state(session, ADVERTISED)
        known = {a.member: a for a in adverts.adverts}
        own = Advert.model_validate_json(state["advert"])
        if not distinct([a.member for a in adverts.adverts]) or known.get(self.number) != own:
            raise self._refusal("a list of keys without this hospital's own, or out of order")
        self._enough(session, len(known), "advertised")
        keys = [k for a in known.values() for k in (a.sealing, a.masking)]
        if len(set(keys)) < len(keys):
            raise self._refusal("a list of keys in which one stands twice")
        for number, advert in known.items():
            content = session.digest + advert.signed
            if not self.roster.verify(number, ADVERT, content, advert.signature):
                raise self._refusal(f"keys of {self.roster.names[number - 1]} with a wrong signature")
        numbers = sorted(known)
        parts = [shamir.split(state[name], session.threshold, numbers) for name in ("masking", "seed")]
        sealed = {}
        for number in numbers:
            if number != self.number:
                key = self._sealing_key(session, state, known[number].sealing, self.number, number)
                nonce = os.urandom(NONCE_BYTES)
                sealed[number] = nonce + ChaCha20Poly1305(key).encrypt(
                    nonce, b"".join(p[number] for p in parts), None
                )
        state["adverts"] = {n: [a.sealing, a.masking] for n, a in known.items()}
        state["own"] = [p[self.number] for p in parts]
        del state["advert"]
        self._journal.advance(session.digest, ADVERTISED, SHARED, _packed(state))
        return Sharing(member=self.number, sealed=sealed)

    def mask(self, session: Session, delivery: Delivery, vector: NDArray[np.floating]) -> bytes:
        """The vector under its masks, as little-endian words: once in a session.

        Args:
            vector: shape (session.length,).

        Raises:
            FederationError: a vector that does not fit, or shares of too few.
        """
        state = self._state(session, SHARED)
        if vector.shape != (session.length,):
            raise FederationError(
                f"an update of shape {vector.shape}",
                where="update",
                remedy=f"Give {session.length:,} values.",
            )
        peers = sorted(delivery.sealed)
        if self.number in peers or not set(peers) <= state["adverts"].keys():
            raise self._refusal("shares of members that did not advertise")
        self._enough(session, len(peers) + 1, "shared")
        words = session.quantiser.encode(vector).astype("<u4", copy=False)
        # Forgotten before it leaves: no second vector can go under these masks, whatever happens next.
        masking, seed = state.pop("masking"), state.pop("seed")
        state["sealed"] = dict(delivery.sealed)
        self._journal.advance(session.digest, SHARED, MASKED, _packed(state))
        masks.add_mask(words, masks.derive(seed, session.digest, "self"), 1)
        for peer in peers:
            key = masks.agree(masking, state["adverts"][peer][1], session.digest, "pair")
            masks.add_mask(words, key, 1 if self.number < peer else -1)
        return words.tobytes()

    def agree(self, session: Session, survivors: Survivors) -> Consent:
        """Sign who survived: one list in a session.

        Raises:
            FederationError: too few, members that did not share, or this hospital not among them.
        """
        state = self._state(session, MASKED)
        members = survivors.members
        if (
            not distinct(members)
            or self.number not in members
            or not set(members) <= {*state["sealed"], self.number}
        ):
            raise self._refusal("a list of survivors that cannot be")
        self._enough(session, len(members), "survived")
        state["survivors"] = members
        self._journal.advance(session.digest, MASKED, AGREED, _packed(state))
        signature = self._identity.sign(CONSENT, session.digest + survivors.signed)
        return Consent(member=self.number, signature=signature)

    def open(self, session: Session, consents: Consents) -> Opening:
        """Open one share of each peer: of the self mask if it survived, of the masking key if not.

        A repeated request gets the same answer, so that one that was lost can be asked for again.

        Raises:
            FederationError: too few members signed the same survivors.
        """
        state = self._state(session, AGREED)
        survivors = Survivors(members=state["survivors"])
        content = session.digest + survivors.signed
        signed = [
            number
            for number, signature in consents.signatures.items()
            if number in survivors.members and self.roster.verify(number, CONSENT, content, signature)
        ]
        self._enough(session, len(signed), "agreed on who survived")
        peers = {*state["sealed"], self.number}
        kinds = {n: "seed" if n in survivors.members else "key" for n in sorted(peers)}
        found: dict[str, dict[int, bytes]] = {"seed": {}, "key": {}}
        for number, kind in kinds.items():
            shares = state["own"] if number == self.number else self._unsealed(session, state, number)
            # A peer that sealed nonsense is the loser: others' shares may still do.
            if shares is not None:
                found[kind][number] = shares[1 if kind == "seed" else 0]
        about = (session.study, session.model, session.purpose)
        self._journal.open(session.digest, kinds, about, survivors.members)
        return Opening(member=self.number, seeds=found["seed"], keys=found["key"])

    def _state(self, session: Session, stage: str) -> dict[str, Any]:
        at, state = self._journal.stage(session.digest)
        if at != stage or not state:
            raise self._refusal(f"a message out of turn: this session is {at}")
        return _unpacked(state)

    def _enough(self, session: Session, count: int, what: str) -> None:
        if count < max(session.threshold, self.policy.fewest):
            raise self._refusal(f"only {count} members {what}")

    def _sealing_key(
        self, session: Session, state: dict[str, Any], public: bytes, sender: int, receiver: int
    ) -> bytes:
        return masks.agree(state["sealing"], public, session.digest, f"seal {sender} {receiver}")

    def _unsealed(self, session: Session, state: dict[str, Any], sender: int) -> list[bytes] | None:
        public, sealed = state["adverts"][sender][0], state["sealed"][sender]
        key = self._sealing_key(session, state, public, sender, self.number)
        try:
            text = ChaCha20Poly1305(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
        except InvalidTag:
            return None
        return [text[: shamir.SHARE_BYTES], text[shamir.SHARE_BYTES :]]

    def _refusal(self, what: str) -> FederationError:
        return FederationError(
            what, where="secure aggregation", remedy="This hospital leaves the round; it can be tried again."
        )


def _packed(state: dict[str, Any]) -> bytes:
    """State as JSON, bytes as hexadecimal digits."""
    return json.dumps(state, default=bytes.hex).encode()


def _unpacked(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data)
    for name in ("sealing", "masking", "seed", "advert"):
        if name in found:
            found[name] = bytes.fromhex(found[name])
    for name in ("adverts", "sealed"):
        if name in found:
            found[name] = {int(k): _bytes(v) for k, v in found[name].items()}
    if "own" in found:
        found["own"] = _bytes(found["own"])
    return found


def _bytes(value: Any) -> Any:
    return [bytes.fromhex(v) for v in value] if isinstance(value, list) else bytes.fromhex(value)
