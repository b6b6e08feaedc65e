"""What everybody knows of a message between hospitals, the server included: how it begins and is signed.

A message is a statement, its Ed25519 signature and a body. Statements and the members' public keys are
public, so a mailbox can refuse what a sender did not sign without understanding any body.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field

MAGIC = b"BTM1"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
"""Of a message's stage, item and sender."""

PURPOSE = "threshold message"
MAX_STATEMENT, SIGNATURE_BYTES = 4096, 64
MAX_TERMS = 1 << 16

OFFER = ("terms", "terms", "offer")
"""Stage, item and place of the terms. Whoever joins does not know yet who offers: the place names nobody."""

STALE = ("stale", "server")
"""Item and sender of a refresh's weights, as a server leaves them; signed by nobody."""
FRESH = "fresh"
"""Item of a refresh's weights, as a hospital put them together."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_LENGTH = struct.Struct("<I")


class Statement(BaseModel):
    """What a member signs.

    Attributes:
        terms: digest of the terms that the sender approved.
        code: version of blindtune that the sender runs.
        before: digest of all statements of the stages before this one, as the sender heard them.
        body: SHA-256 of what comes with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    terms: Digest
    code: Annotated[str, Field(max_length=40)]
    stage: Annotated[str, Field(max_length=80)]
    item: Annotated[str, Field(max_length=80)]
    sender: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    before: Digest
    body: Digest

    @property
    def text(self) -> bytes:
        """What is signed."""
        return self.model_dump_json().encode()


def joined(text: bytes, signature: bytes, body: bytes) -> bytes:
    """A message of a statement's text, its signature and a body."""
    return MAGIC + _LENGTH.pack(len(text)) + text + signature + body


def parsed(message: bytes) -> tuple[Statement, bytes, bytes, int]:
    """A statement that nobody has verified, its text and signature, and where the body begins.

    Raises:
        ValueError: malformed.
    """
    at = _text_end(message[:8])
    end = at + SIGNATURE_BYTES
    if len(message) < end:
        raise ValueError("cut off")
    return Statement.model_validate_json(message[8:at]), message[8:at], message[at:end], end


def body_start(path: Path) -> int:
    """Where the body of a message on the disk begins.

    Raises:
        ValueError: not a message.
    """
    with path.open("rb") as file:
        return _text_end(file.read(8)) + SIGNATURE_BYTES


def overhead() -> int:
    """Bytes that a message has at most beside its body."""
    return 8 + MAX_STATEMENT + SIGNATURE_BYTES


def verified(key: bytes, purpose: str, content: bytes, signature: bytes) -> bool:
    """Whether the owner of an Ed25519 public key (32 bytes) signed ``content`` for ``purpose``."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, for_signature(purpose, content))
    except InvalidSignature:
        return False
    return True


def for_signature(purpose: str, content: bytes) -> bytes:
    """What is signed: a signature for another purpose never verifies."""
    head = b"blindtune " + purpose.encode()
    return len(head).to_bytes(2, "big") + head + content


def refresh_stage(number: int) -> str:
    """The stage of a program's refresh, from 0 on."""
    return f"refresh-{number}"


def _text_end(first: bytes) -> int:
    if first[:4] != MAGIC or len(first) < 8:
        raise ValueError("not a message")
    (length,) = _LENGTH.unpack(first[4:8])
    if length > MAX_STATEMENT:
        raise ValueError("a statement that is too long")
    return 8 + int(length)
