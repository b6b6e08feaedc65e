"""Signed messages: what is said, by whom, in which study, after what."""

from __future__ import annotations

import hashlib
import struct
from typing import Annotated

from pydantic import Field

from blindtune.errors import FederationError
from blindtune.federation.agreement import Schema, SiteName
from blindtune.federation.identity import SIGNATURE_BYTES, Identity, Roster
from blindtune.wire.message import MAGIC

MAX_STATEMENT = 4096
PURPOSE = "threshold message"
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_LENGTH = struct.Struct("<I")


class Statement(Schema):
    """What a member signs.

    Attributes:
        terms: digest of the terms that the sender approved.
        code: version of blindtune that the sender runs.
        before: digest of all statements of the stages before this one, as the sender heard them.
        body: SHA-256 of what comes with it.
    """

    terms: Digest
    code: Annotated[str, Field(max_length=40)]
    stage: Annotated[str, Field(max_length=80)]
    item: Annotated[str, Field(max_length=80)]
    sender: SiteName
    before: Digest
    body: Digest

    @property
    def text(self) -> bytes:
        """What is signed."""
        return self.model_dump_json().encode()


def signed(identity: Identity, statement: Statement, body: bytes) -> bytes:
    """A message: the statement, its signature and the body."""
    text = statement.text
    return MAGIC + _LENGTH.pack(len(text)) + text + identity.sign(PURPOSE, text) + body


def opened(message: bytes, roster: Roster, stage: str, item: str, sender: str) -> tuple[Statement, bytes]:
    """A message's statement and body, both as the sender signed them.

    Raises:
        FederationError: malformed, altered, or signed as another message or by someone else.
    """
    statement, end = stated(message, roster, stage, item, sender)
    body = message[end:]
    if statement.body != hashlib.sha256(body).hexdigest():
        raise _altered(stage, sender)
    return statement, body


def stated(message: bytes, roster: Roster, stage: str, item: str, sender: str) -> tuple[Statement, int]:
    """A message's statement, from its first :func:`overhead` bytes, and where its body begins.

    Raises:
        FederationError: see :func:`opened`.
    """
    refused = _altered(stage, sender)
    try:
        statement, text, signature, end = parsed(message)
    except ValueError:
        raise refused from None
    if not roster.verify(roster.number(sender), PURPOSE, text, signature):
        raise refused
    if (statement.stage, statement.item, statement.sender) != (stage, item, sender):
        raise refused
    return statement, end


def parsed(message: bytes) -> tuple[Statement, bytes, bytes, int]:
    """A statement that nobody has verified, its text and signature, and where the body begins.

    Raises:
        ValueError: malformed.
    """
    if message[:4] != MAGIC or len(message) < 8:
        raise ValueError("not a message")
    (length,) = _LENGTH.unpack(message[4:8])
    at, end = 8 + length, 8 + length + SIGNATURE_BYTES
    if length > MAX_STATEMENT or len(message) < end:
        raise ValueError("cut off")
    return Statement.model_validate_json(message[8:at]), message[8:at], message[at:end], end


def overhead() -> int:
    """Bytes that a message has at most beside its body."""
    return 8 + MAX_STATEMENT + SIGNATURE_BYTES


def _altered(stage: str, sender: str) -> FederationError:
    return FederationError(
        f"a message of {sender} was altered, or is not from {sender}",
        where=stage,
        remedy="Nothing was decrypted. Ask the sender and whoever runs the mailbox.",
    )
