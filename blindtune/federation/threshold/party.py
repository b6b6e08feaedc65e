"""A hospital in a study with a joint key: its share, its part in making the keys, and in opening results.

Only the hospital runs this. Its directory holds the share of the secret key and everything that it said:
stopped at any point, it goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from blindtune import __version__
from blindtune.errors import FederationError
from blindtune.federation.identity import Identity
from blindtune.federation.secagg import masks
from blindtune.federation.threshold import offer
from blindtune.federation.threshold import transcript as spoken
from blindtune.federation.threshold.mailbox import Mailbox
from blindtune.federation.threshold.message import signed
from blindtune.federation.threshold.outbox import Outbox
from blindtune.federation.threshold.terms import Terms, approve
from blindtune.federation.threshold.transcript import Transcript
from blindtune.he.openfhe import joint
from blindtune.he.openfhe.joint import JointPublicKey
from blindtune.he.openfhe.share import SecretShare
from blindtune.wire.message import Statement

SHARE_FILE, SEALING_FILE = "secret-share", "secret-sealing"


@dataclass(frozen=True)
class Waiting:
    """Where a study stands: whose messages of which stage are missing; nobody's once it is through."""

    stage: str
    absent: tuple[str, ...]


class Party:
    """One hospital.

    Args:
        offered: the terms as whoever created the study sent them.
        expected: the terms that this hospital approved.
        name: this hospital's.
        directory: its own, for this study alone.
        insecure: accept test parameters without a security level.

    Raises:
        FederationError: terms that were not approved, or an identity that is not this member's.
    """

    def __init__(
        self,
        offered: Terms,
        expected: Terms,
        name: str,
        identity: Identity,
        mailbox: Mailbox,
        directory: Path,
        *,
        insecure: bool = False,
    ) -> None:
        approve(offered, expected, insecure=insecure)
        if offered.members.get(name) != identity.public.hex():
            raise FederationError(
                "this identity is not the member's", where=name, remedy="Give the key that the terms list."
            )
        self.terms, self.name = offered, name
        self._identity, self._mailbox = identity, mailbox
        self.outbox = Outbox(directory)
        self.transcript = Transcript(offered, mailbox, self.outbox)
        self._said: set[tuple[str, str]] = set()

    def advance(self) -> Waiting:
        """Say what can be said now in key generation; with nobody absent the joint keys are there.

        Raises:
            FederationError: someone ended the study; or what someone said is wrong, and this hospital has
                ended it. No key can be used then.
        """
        self.transcript.check_running()
        with_bodies: dict[str, Callable[[str], bytes]] = {
            spoken.JOIN: self._joining,
            spoken.FIRST: self._first,
            spoken.SECOND: self._second,
            spoken.CONFIRM: lambda _: b"",
        }
        try:
            for stage in spoken.STAGES:
                for item in self.transcript.items(stage):
                    self.say(stage, item, lambda i=item, s=stage: with_bodies[s](i))  # type: ignore[misc]
                absent = self.transcript.absent(stage)
                if absent:
                    return Waiting(stage, absent)
        except FederationError as error:
            self.end(error.what)
            raise
        return Waiting(spoken.CONFIRM, ())

    def end(self, reason: str) -> None:
        """End the study, and tell the others why."""
        message = self._message(spoken.ABORT, spoken.ABORT, reason.encode()[:400], "0" * 64)
        self._mailbox.post(
            spoken.ABORT, spoken.ABORT, self.name, self.outbox.once("said.abort", lambda: message)
        )

    @cached_property
    def public_key(self) -> JointPublicKey:
        """What this hospital encrypts its rows with.

        Raises:
            FederationError: key generation is not through.
        """
        if self.advance().absent:
            raise FederationError("the joint key is not there yet", where="key generation")
        return JointPublicKey(self.terms.checked_parameters, self.transcript.joint(joint.PUBLIC))

    @cached_property
    def share(self) -> SecretShare:
        """This hospital's share of the secret key."""
        return self._made[0]

    @cached_property
    def sealing(self) -> bytes:
        """This hospital's X25519 key for the study."""
        return self.outbox.once(SEALING_FILE, masks.private_key)

    def sealing_key_of(self, name: str) -> bytes:
        """A member's X25519 public key."""
        return self._joined(name)[32:]

    def offer(self) -> None:
        """Leave the terms for the others, unless someone does just now: a server takes nothing before."""
        with suppress(FederationError):
            offer.post(self._mailbox, self.terms, self.name, self._identity)

    def say(self, stage: str, item: str, make: Callable[[], bytes]) -> None:
        """Post a message that is made once; what was said before is said again byte by byte."""
        # What this hospital has heard of itself lies in the mailbox.
        if (stage, item) in self._said or self.outbox.recall(spoken.heard_name(stage, item, self.name)):
            return
        message = self.outbox.once(
            f"said.{stage}.{item}",
            lambda: self._message(stage, item, make(), self.transcript.before(stage)),
        )
        self._mailbox.post(stage, item, self.name, message)
        self._said.add((stage, item))

    def _message(self, stage: str, item: str, body: bytes, before: str) -> bytes:
        statement = Statement(
            terms=self.terms.digest.hex(),
            code=__version__,
            stage=stage,
            item=item,
            sender=self.name,
            before=before,
            body=hashlib.sha256(body).hexdigest(),
        )
        return signed(self._identity, statement, body)

    @cached_property
    def _made(self) -> tuple[SecretShare, bytes]:
        """The share, and its public item; both in one file, so that neither is ever without the other."""
        p, digest = self.terms.checked_parameters, self.terms.digest

        def generate() -> bytes:
            share, item = SecretShare.generate(p, digest)
            return share.to_bytes() + item

        data = self.outbox.once(SHARE_FILE, generate)
        at = len(data) - joint.header_of(joint.PUBLIC, p).bytes(p)
        return SecretShare.from_bytes(p, digest, data[:at]), data[at:]

    def _joining(self, _: str) -> bytes:
        """A commitment: no member can choose its public share after the others'."""
        return hashlib.sha256(self._made[1]).digest() + masks.public_key(self.sealing)

    def _first(self, item: str) -> bytes:
        return self._made[1] if item == joint.PUBLIC else self.share.item(item)

    def _second(self, _: str) -> bytes:
        self._check_commitments()
        read = self.transcript.joint
        return self.share.relinearised(read(joint.ZERO), read(joint.RELINEARISATION))

    def _check_commitments(self) -> None:
        for name in self.terms.roster.names:
            item = self.transcript.read(spoken.FIRST, joint.PUBLIC, name)
            if item is None or hashlib.sha256(item).digest() != self._joined(name)[:32]:
                raise FederationError(
                    f"{name} sent another public share than it had committed to", where=spoken.FIRST
                )

    def _joined(self, name: str) -> bytes:
        body = self.transcript.read(spoken.JOIN, spoken.JOIN, name)
        if body is None or len(body) != 64:
            raise FederationError(f"{name} has not joined as it should", where=spoken.JOIN)
        return body
