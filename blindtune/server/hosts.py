"""The hosts whose workers share a database: several are only let in where they share the contents too."""

from __future__ import annotations

import hashlib

from sqlalchemy import delete, func, insert, select, update

from blindtune.errors import InputError
from blindtune.server.database import Database
from blindtune.server.jobs import database_time
from blindtune.server.tables import hosts

LAPSE = 60.0
"""Seconds after which a host that is not heard of counts as gone."""

_JOINING = 0x626C6970
"""PostgreSQL's advisory lock of hosts that come."""


class Hosts:
    """The table of hosts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def join(self, host: str, blobs: str | None) -> None:
        """A host begins.

        Args:
            blobs: the address of its contents; None for a directory of its own.

        Raises:
            InputError: another host is there, and the database or the contents cannot be shared.
        """
        # Addresses are only compared, and can hold passwords.
        place = "" if blobs is None else hashlib.sha256(blobs.encode()).hexdigest()
        with self._database.transaction() as connection:
            if self._database.postgresql:
                connection.execute(select(func.pg_advisory_xact_lock(_JOINING)))
            now = database_time(connection)
            gone = (hosts.c.seen < now - LAPSE) | (hosts.c.id == host)
            connection.execute(delete(hosts).where(gone))
            others = set(connection.execute(select(hosts.c.blobs)).scalars())
            if others and (not self._database.postgresql or not place or others != {place}):
                raise InputError(
                    "another host uses this database, and not all share their contents",
                    remedy="Several hosts need PostgreSQL (--database) and the same --blobs on each. "
                    f"If the other one is gone, wait {LAPSE:.0f} seconds.",
                )
            connection.execute(insert(hosts).values(id=host, blobs=place, seen=now))

    def beat(self, host: str) -> None:
        """A host is there still."""
        with self._database.transaction() as connection:
            connection.execute(update(hosts).where(hosts.c.id == host).values(seen=database_time(connection)))

    def leave(self, host: str) -> None:
        """A host ends."""
        with self._database.transaction() as connection:
            connection.execute(delete(hosts).where(hosts.c.id == host))
