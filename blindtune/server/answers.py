"""Idempotency keys: a POST that is sent again, because its answer was lost, is answered but not done again.

A key belongs to the token that sent it. Kept are the status, a few headers and the body, for a day; an answer
that is long or secret is not kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from blindtune.errors import PlanError
from blindtune.server.database import Database
from blindtune.server.tables import idempotency

LAPSE = 86400.0
STALE = 300.0
"""Seconds after which a request that never was answered counts as lost, with the process that had it."""

LONGEST = 1 << 16
MOST = 10_000
"""Keys of a token that are kept; the oldest go first."""


@dataclass(frozen=True)
class Answer:
    """What was answered; ``text`` is None if that was not kept."""

    status: int
    text: str | None


class Answers:
    """The table of answers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, token: str, key: str, request: str) -> Answer | None:
        """Take a key for a request; the answer if the request had one before.

        Args:
            request: a digest of everything that the answer depends on.

        Raises:
            PlanError: the key was used for another request, or its request is still being answered.
        """
        busy = PlanError(
            "the request with this Idempotency-Key is still being answered", remedy="Wait and try again."
        )
        now, mine = time.time(), _mine(token, key)
        try:
            with self._database.transaction() as db:
                db.execute(delete(idempotency).where(mine, idempotency.c.created < now - LAPSE))
                row = db.execute(select(idempotency).where(mine)).mappings().first()
                if row is None:
                    _make_room(db, token)
                    fresh = {"token": token, "key": key, "request": request, "created": now}
                    db.execute(insert(idempotency).values(fresh))
                    return None
                if row["request"] != request:
                    raise PlanError(
                        "this Idempotency-Key came with another request",
                        remedy="Use a new key for a new request.",
                    )
                if row["status"] is not None:
                    return Answer(row["status"], row["answer"])
                if row["created"] >= now - STALE:
                    raise busy
                db.execute(update(idempotency).where(mine).values(created=now))
                return None
        except IntegrityError as error:
            # Two at once, on a database with several writers.
            raise busy from error

    def finish(self, token: str, key: str, status: int, text: str, *, secret: bool) -> None:
        """Keep the answer to a request."""
        kept = None if secret or len(text) > LONGEST else text
        with self._database.transaction() as db:
            db.execute(update(idempotency).where(_mine(token, key)).values(status=status, answer=kept))

    def abandon(self, token: str, key: str) -> None:
        """The request came to nothing: it may be tried again."""
        with self._database.transaction() as db:
            db.execute(delete(idempotency).where(_mine(token, key), idempotency.c.status.is_(None)))

    def sweep(self) -> None:
        """Forget old answers."""
        with self._database.transaction() as db:
            db.execute(delete(idempotency).where(idempotency.c.created < time.time() - LAPSE))


def _mine(token: str, key: str) -> ColumnElement[bool]:
    return and_(idempotency.c.token == token, idempotency.c.key == key)


def _make_room(db: Connection, token: str) -> None:
    """Bound what a token keeps here."""
    count = select(func.count()).select_from(idempotency).where(idempotency.c.token == token)
    more = db.execute(count).scalar_one() + 1 - MOST
    if more > 0:
        oldest = (
            select(idempotency.c.key)
            .where(idempotency.c.token == token)
            .order_by(idempotency.c.created)
            .limit(more)
        )
        db.execute(delete(idempotency).where(idempotency.c.token == token, idempotency.c.key.in_(oldest)))
