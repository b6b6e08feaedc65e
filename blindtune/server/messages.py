"""A blind mailbox: messages of studies under a joint key, each written once, to be read by its tenant.

A message is a content (:mod:`blindtune.server.contents`) under three names. Nothing of it is understood here:
members sign what they say, and seal what only members may read.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select

from blindtune.errors import PlanError, QuotaError
from blindtune.server import audit
from blindtune.server.contents import Contents
from blindtune.server.database import Database, lock_tenant
from blindtune.server.places import touch
from blindtune.server.tables import messages
from blindtune.server.tenants import MESSAGE_ROW, check_room

MOST = 1 << 14
"""Messages of a study: fifty members, and two hundred keys of each."""


@dataclass(frozen=True)
class Letter:
    """Where a message lies."""

    tenant: str
    study: str
    stage: str
    item: str
    sender: str

    @property
    def where(self) -> ColumnElement[bool]:
        """Its row."""
        return and_(*(messages.c[name] == value for name, value in asdict(self).items()))


class Messages:
    """The table of messages."""

    def __init__(self, database: Database, contents: Contents) -> None:
        self._database, self._contents = database, contents

    def post(self, letter: Letter, sha256: str, size: int) -> bool:
        """Say what a message is; whether its content is still to be uploaded.

        Raises:
            PlanError: another one lies there.
            QuotaError: the study has too many, or the tenant no room.
        """
        tenant, study = letter.tenant, letter.study
        with self._database.transaction() as db:
            lock_tenant(db, tenant)
            found = db.execute(select(messages.c.sha256, messages.c.size).where(letter.where)).first()
            if found is None:
                _check_count(db, tenant, study)
                check_room(db, tenant, MESSAGE_ROW)
                row = {**asdict(letter), "sha256": sha256, "size": size, "created": time.time()}
                db.execute(insert(messages).values(row))
                touch(db, tenant, study)
                # What members say, and their names, are their tenant's business.
                audit.append(db, "message.posted", f"{tenant}/{study}")
            elif tuple(found) != (sha256, size):
                raise PlanError(
                    "another message lies there", remedy="Messages are written once: begin a new study."
                )
            return not self._contents.here(db, tenant, [sha256])

    def find(self, letter: Letter) -> str | None:
        """The SHA-256 of a message; None if there is none, or if its content is not wholly here."""
        with self._database.reading() as db:
            sha256: str | None = db.execute(select(messages.c.sha256).where(letter.where)).scalar()
            there = sha256 is not None and self._contents.here(db, letter.tenant, [sha256])
        return sha256 if there else None

    def said(self, tenant: str, study: str, stage: str, item: str) -> str | None:
        """The SHA-256 of the oldest message of a stage and item, of any sender, that is wholly here."""
        mine = (messages.c.tenant == tenant, messages.c.study == study)
        query = select(messages.c.sha256).where(*mine, messages.c.stage == stage, messages.c.item == item)
        with self._database.reading() as db:
            found = list(db.execute(query.order_by(messages.c.created)).scalars())
            there = self._contents.here(db, tenant, found)
        return next((sha256 for sha256 in found if sha256 in there), None)


def drop(db: Connection, tenant: str, study: str) -> set[str]:
    """Forget a study's messages; the contents that they named."""
    mine = (messages.c.tenant == tenant, messages.c.study == study)
    named: set[str] = set(db.execute(select(messages.c.sha256).where(*mine)).scalars())
    db.execute(delete(messages).where(*mine))
    return named


def _check_count(db: Connection, tenant: str, study: str) -> None:
    mine = (messages.c.tenant == tenant, messages.c.study == study)
    if db.execute(select(func.count()).select_from(messages).where(*mine)).scalar_one() >= MOST:
        raise QuotaError(f"more than {MOST} messages of a study", remedy="Begin a new study.")
