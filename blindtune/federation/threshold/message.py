"""Signed messages: what is said, by whom, in which study, after what."""

from __future__ import annotations

import hashlib

from blindtune.errors import FederationError
from blindtune.federation.identity import Identity, Roster
from blindtune.wire.message import PURPOSE, Statement, joined, parsed


def signed(identity: Identity, statement: Statement, body: bytes) -> bytes:
    """A message: the statement, its signature and the body."""
    text = statement.text
    return joined(text, identity.sign(PURPOSE, text), body)


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


def _altered(stage: str, sender: str) -> FederationError:
    return FederationError(
        f"a message of {sender} was altered, or is not from {sender}",
        where=stage,
        remedy="Nothing was decrypted. Ask the sender and whoever runs the mailbox.",
    )
