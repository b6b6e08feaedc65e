"""The audit log: who did what to which object and when, append only, each entry chained to the one before.

An entry names tokens, tenants, studies and jobs by their random identifiers, never what a tenant sent. Its
hash is SHA-256 over its fields and the hash before it, so that an entry cannot be altered, removed or put in
between without changing all that follow. Whoever may write the database can still write a whole new chain:
note the last number and hash elsewhere from time to time, and have :func:`verify` look for it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

from sqlalchemy import Connection, select, text

from blindtune.errors import InputError
from blindtune.server.tables import audit

FIRST = "0" * 64
"""What the first entry names as the hash before it."""


class Entry(NamedTuple):
    """One entry: ``actor`` (a token, a worker, the command line) did ``action`` to ``object`` at ``time``."""

    number: int
    time: float
    actor: str
    action: str
    object: str
    previous: str
    hash: str

    def computed(self) -> str:
        """The hash that these fields give."""
        return hashlib.sha256(json.dumps(self[:-1], separators=(",", ":")).encode()).hexdigest()


class Point(NamedTuple):
    """An entry's number and hash: enough to tell later that the chain still runs through it."""

    number: int
    hash: str

    @classmethod
    def parse(cls, text: str) -> Point:
        """From ``NUMBER:HASH``.

        Raises:
            InputError: it is none.
        """
        number, _, digest = text.partition(":")
        if not (number.isascii() and number.isdecimal() and len(digest) == 64):
            raise InputError("not an entry of the audit log", where=text[:80], remedy="Give NUMBER:HASH.")
        return cls(int(number), digest)

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


actor: ContextVar[str] = ContextVar("actor", default="server")
"""Who acts in this context: a token's identifier, or a part of the server."""


def append(connection: Connection, action: str, object: str) -> None:
    """Add an entry within the transaction of what it tells of: both are kept, or neither.

    Last in the transaction: on PostgreSQL it takes a lock that others wait for until the end.
    """
    if connection.dialect.name == "postgresql":
        # SQLite has one writer at a time; here two could find the same last entry.
        connection.execute(text("LOCK TABLE audit IN SHARE ROW EXCLUSIVE MODE"))
    columns = select(audit.c.number, audit.c.hash).order_by(audit.c.number.desc()).limit(1)
    last = connection.execute(columns).first()
    number, previous = (last.number + 1, last.hash) if last else (1, FIRST)
    entry = Entry(number, time.time(), actor.get(), action, object, previous, "")
    connection.execute(audit.insert().values(**entry._replace(hash=entry.computed())._asdict()))


def entries(connection: Connection, after: int = 0) -> Iterator[Entry]:
    """All entries past a number, in their order, in constant memory."""
    rows = select(audit).where(audit.c.number > after).order_by(audit.c.number)
    for row in connection.execution_options(yield_per=1000).execute(rows):
        yield Entry(*row)


def verify(connection: Connection, noted: Point | None = None) -> Point:
    """Follow the whole chain; its last entry.

    Args:
        noted: an entry that an earlier look found, kept outside the server.

    Raises:
        InputError: an entry was altered, removed or put in, or ``noted`` is no longer there.
    """
    last = Point(0, FIRST)
    passed = noted is None or noted == last
    for entry in entries(connection):
        at = f"entry {entry.number} of the audit log"
        if entry.number != last.number + 1:
            raise _broken(f"entry {last.number + 1} of the audit log", "it is missing")
        if entry.previous != last.hash:
            raise _broken(at, "it does not follow the entry before it")
        if entry.hash != entry.computed():
            raise _broken(at, "it was altered")
        last = Point(entry.number, entry.hash)
        passed = passed or last == noted
    if noted is not None and not passed:
        raise _broken(f"entry {noted.number} of the audit log", "it is not the entry that was noted")
    return last


def _broken(where: str, what: str) -> InputError:
    return InputError(
        what,
        where=where,
        remedy="The database was changed from outside: keep it as it is and find out by whom.",
    )
