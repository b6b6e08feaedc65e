"""Requests and answers as Flower's records: split into pieces, bounded, and signed by who answers.

Flower signs a node's requests by their time alone, and forwards a reply under the sender that it claims. So
every answer carries the hospital's own signature, under a number that was drawn for this one request.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flwr.app import ConfigRecord, RecordDict

from blindtune.errors import FederationError
from blindtune.federation.channel import Answer, Request
from blindtune.federation.identity import Identity, Roster

PIECE = 4 << 20
"""Bytes of a body in one record: what Flower moves and hashes at a time, whatever the model's size."""
NONCE_BYTES = 32
SMALL = 1 << 20
"""Most bytes of a request's head."""
REFUSAL = 500
"""Most characters of a refusal."""
PURPOSE = "flower answer"

REQUEST, ANSWER, DATA = "request", "answer", "data"

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """A request as a hospital gets it.

    Attributes:
        plan: digest of the aggregator's plan.
        nonce: drawn for this request.
        request: what is asked.
    """

    plan: str
    nonce: bytes
    request: Request


def nonce() -> bytes:
    """A number for one request."""
    return os.urandom(NONCE_BYTES)


def pieces(body: bytes) -> dict[str, ConfigRecord]:
    """A body's records; the same ones may go into many messages, and are then stored once."""
    return {
        f"{DATA}-{i}": ConfigRecord({DATA: body[start : start + PIECE]})
        for i, start in enumerate(range(0, len(body), PIECE))
    }


def request_records(asked: Asked, body: Mapping[str, ConfigRecord]) -> RecordDict:
    """A request as records.

    Args:
        body: of :func:`pieces` of the request's body.
    """
    head = ConfigRecord(
        {
            "plan": asked.plan,
            "nonce": asked.nonce,
            "kind": asked.request.kind,
            "head": asked.request.head,
            "pieces": len(body),
        }
    )
    return RecordDict({REQUEST: head, **body})


def read_request(records: RecordDict, limit: int) -> Asked:
    """A request from records.

    Args:
        limit: most bytes of its body.

    Raises:
        FederationError: not a request, or a larger one.
    """
    head = _record(records, REQUEST)
    drawn = _field(head, "nonce", bytes)
    text = _field(head, "head", bytes)
    if len(drawn) != NONCE_BYTES or len(text) > SMALL:
        raise _unreadable()
    request = Request(_field(head, "kind", str), text, _joined(records, head, limit))
    return Asked(_field(head, "plan", str), drawn, request)


def answer_records(name: str, identity: Identity, drawn: bytes, answer: Answer) -> RecordDict:
    """A hospital's answer as records, signed.

    Args:
        drawn: the request's number.
    """
    refusal, body = answer.refusal[:REFUSAL], pieces(answer.data)
    head = ConfigRecord(
        {
            "name": name,
            "refusal": refusal,
            "signature": identity.sign(PURPOSE, _content(drawn, refusal, answer.data)),
            "pieces": len(body),
        }
    )
    return RecordDict({ANSWER: head, **body})


def read_answer(records: RecordDict, limit: int, roster: Roster, name: str, drawn: bytes) -> Answer:
    """An answer from records, if it is the member's own to this request.

    Args:
        limit: most bytes of it.
        name: of the member that was asked.
        drawn: the request's number.

    Raises:
        FederationError: not an answer, a larger one, or without this member's signature.
    """
    head = _record(records, ANSWER)
    refusal, data = _field(head, "refusal", str), _joined(records, head, limit)
    signature = _field(head, "signature", bytes)
    content = _content(drawn, refusal, data)
    own = _field(head, "name", str) == name
    if not own or not roster.verify(roster.number(name), PURPOSE, content, signature):
        raise FederationError("an answer that this member has not signed", where="federation")
    return Answer(data, refusal[:REFUSAL])


def _content(drawn: bytes, refusal: str, data: bytes) -> bytes:
    text = refusal.encode()
    return hashlib.sha256(drawn + len(text).to_bytes(4, "big") + text + data).digest()


def _joined(records: RecordDict, head: ConfigRecord, limit: int) -> bytes:
    """The body, whose size is known before it is put together: one record may stand in many places."""
    count = _field(head, "pieces", int)
    if count != len(records) - 1:
        raise _unreadable()
    parts = [_field(_record(records, f"{DATA}-{i}"), DATA, bytes) for i in range(count)]
    size = sum(map(len, parts))
    if size > limit:
        raise FederationError(f"a message of {size:,} bytes", where="federation")
    return b"".join(parts)


def _record(records: RecordDict, name: str) -> ConfigRecord:
    found = records.get(name)
    if not isinstance(found, ConfigRecord):
        raise _unreadable()
    return found


def _field(record: ConfigRecord, name: str, kind: type[T]) -> T:
    found: Any = record.get(name)
    # A bool is an int too.
    if type(found) is not kind:
        raise _unreadable()
    return found


def _unreadable() -> FederationError:
    return FederationError("a message that cannot be read", where="federation")
