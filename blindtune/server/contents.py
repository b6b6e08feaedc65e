"""What tenants keep, by SHA-256: rows and blobs that agree, whatever is cut off in between.

A content on its way has a row in ``uploads`` from before its first byte until, in one transaction, that row
gives way to one in ``blobs``. So a blob without either row is nobody's and can go at any time, and a row in
``blobs`` always has its blob.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, or_, select, update

from blindtune.errors import BundleError, QuotaError
from blindtune.server.blobs import Blobs
from blindtune.server.database import Database, lock_tenant
from blindtune.server.tables import blobs, jobs, messages, parts, uploads
from blindtune.server.tenants import check_room
from blindtune.wire.bundle import file_sha256

MOST_UPLOADS = 64
"""A tenant's at a time."""

NAMING = (parts, messages)
"""Tables whose rows name contents that tenants send."""

LAPSE = 86400.0
"""Seconds after which an upload that nothing came for is forgotten."""


@dataclass(frozen=True)
class Upload:
    """A content on its way: the bytes so far are in ``file``."""

    id: str
    tenant: str
    sha256: str
    size: int
    changed: float
    file: Path

    @property
    def offset(self) -> int:
        """Bytes that are here."""
        return self.file.stat().st_size if self.file.exists() else 0

    @property
    def lapses(self) -> float:
        """When it is forgotten if nothing comes."""
        return self.changed + LAPSE


class Contents:
    """Uploads and blobs of all tenants.

    Args:
        incoming: where bytes on their way lie, on this host; made if absent.
    """

    def __init__(self, database: Database, kept: Blobs, incoming: Path) -> None:
        self._database, self._blobs, self._incoming = database, kept, incoming
        incoming.mkdir(mode=0o700, parents=True, exist_ok=True)

    # On their way

    def announce(self, tenant: str, sha256: str, size: int) -> Upload | None:
        """Make room for a content that a bundle or message lacks, or find what was begun; None if it is here.

        Raises:
            BundleError: no opened bundle has such a part, and no message is it.
            QuotaError: the tenant has no room for it, or too many uploads.
        """
        with self._database.transaction() as db:
            lock_tenant(db, tenant)
            named = [
                exists().where(table.c.tenant == tenant, table.c.sha256 == sha256, table.c.size == size)
                for table in NAMING
            ]
            if not db.execute(select(or_(*named))).scalar():
                raise BundleError(
                    "no opened bundle or message has a content of this SHA-256 and size",
                    remedy="Run submit again.",
                )
            if self.here(db, tenant, [sha256]):
                return None
            found = self._find(db, uploads.c.sha256 == sha256, tenant)
            if found is not None:
                return found
            check_room(db, tenant, size)
            count = select(func.count()).select_from(uploads).where(uploads.c.tenant == tenant)
            if db.execute(count).scalar_one() >= MOST_UPLOADS:
                raise QuotaError("too many uploads at a time", remedy="Finish some first.", passing=True)
            return self._reserve(db, tenant, sha256, size)

    def upload(self, tenant: str, identifier: str) -> Upload | None:
        """A tenant's upload."""
        with self._database.reading() as db:
            return self._find(db, uploads.c.id == identifier, tenant)

    def touch(self, upload: Upload) -> None:
        """Something came."""
        with self._database.transaction() as db:
            db.execute(update(uploads).where(uploads.c.id == upload.id).values(changed=time.time()))

    def place(self, upload: Upload) -> None:
        """A content is whole and checked: from now on it is kept."""
        self._blobs.put(upload.tenant, upload.sha256, upload.file)
        key = {"tenant": upload.tenant, "sha256": upload.sha256}
        with self._database.transaction() as db:
            lock_tenant(db, upload.tenant)
            db.execute(delete(uploads).where(uploads.c.id == upload.id))
            if not self.here(db, upload.tenant, [upload.sha256]):
                db.execute(insert(blobs).values(**key, size=upload.size, created=time.time()))

    def abandon(self, upload: Upload) -> None:
        """Forget an upload and its bytes."""
        with self._database.transaction() as db:
            db.execute(delete(uploads).where(uploads.c.id == upload.id))
        upload.file.unlink(missing_ok=True)

    def keep(self, tenant: str, file: Path) -> str:
        """Take in a file of the server's own making, whatever the tenant's quota; its SHA-256.

        A bundle or a job's checkpoint has to name it within a day: a sweep removes what nothing names.
        """
        sha256, size = file_sha256(file), file.stat().st_size
        with self._database.transaction() as db:
            lock_tenant(db, tenant)
            if self.here(db, tenant, [sha256]):
                file.unlink()
                return sha256
            begun = self._find(db, uploads.c.sha256 == sha256, tenant)
            upload = begun or self._reserve(db, tenant, sha256, size)
        os.replace(file, upload.file)
        self.place(upload)
        return sha256

    # Kept

    def path(self, tenant: str, sha256: str) -> Path:
        """A local file with a kept content, not to be written to.

        Raises:
            OSError: the storage failed.
        """
        return self._blobs.path(tenant, sha256)

    def here(self, db: Connection, tenant: str, named: Iterable[str]) -> set[str]:
        """Which of these contents are kept."""
        found: set[str] = set()
        for few in _few(named):
            query = select(blobs.c.sha256).where(blobs.c.tenant == tenant, blobs.c.sha256.in_(few))
            found.update(db.execute(query).scalars())
        return found

    def forget(self, db: Connection, tenant: str, named: Iterable[str]) -> list[str]:
        """Forget those of these contents that nothing names, in the caller's transaction.

        Returns:
            What to hand to :meth:`remove` once the transaction is through.
        """
        gone: list[str] = []
        for few in _few(set(named)):
            used: set[str] = set()
            for column in (*(table.c.sha256 for table in NAMING), jobs.c.checkpoint):
                mine = column.table.c.tenant == tenant
                used.update(db.execute(select(column).where(mine, column.in_(few))).scalars())
            unused = [sha256 for sha256 in few if sha256 not in used]
            for table in (blobs, uploads):
                db.execute(delete(table).where(table.c.tenant == tenant, table.c.sha256.in_(unused)))
            gone += unused
        return gone

    def remove(self, tenant: str, named: Sequence[str]) -> None:
        """Remove blobs that :meth:`forget` found to be nobody's, unless they are somebody's again."""
        for sha256 in named:
            with self._database.transaction() as db:
                lock_tenant(db, tenant)
                coming = exists().where(uploads.c.tenant == tenant, uploads.c.sha256 == sha256)
                if not self.here(db, tenant, [sha256]) and not db.execute(select(coming)).scalar():
                    self._blobs.delete(tenant, sha256)
        if named:
            self._remove_strays()

    def drop(self, tenant: str, named: Iterable[str]) -> None:
        """Forget and remove those of these contents that nothing names."""
        with self._database.transaction() as db:
            lock_tenant(db, tenant)
            gone = self.forget(db, tenant, named)
        self.remove(tenant, gone)

    def sweep(self) -> None:
        """Forget lapsed uploads and contents that nobody names, and remove what has no row."""
        old = time.time() - LAPSE
        with self._database.transaction() as db:
            db.execute(delete(uploads).where(uploads.c.changed < old))
            query = select(blobs.c.tenant, blobs.c.sha256).where(
                blobs.c.created < old,
                *(
                    ~exists().where(table.c.tenant == blobs.c.tenant, table.c.sha256 == blobs.c.sha256)
                    for table in NAMING
                ),
            )
            for tenant, sha256 in db.execute(query).all():
                self.forget(db, tenant, [sha256])
        with self._database.reading() as db:
            known = {tuple(row) for row in db.execute(select(blobs.c.tenant, blobs.c.sha256))}
        for tenant, sha256 in self._blobs.names():
            if (tenant, sha256) not in known:
                self.remove(tenant, [sha256])
        self._remove_strays()

    def _remove_strays(self) -> None:
        # Listed before the rows are read: what comes up in between has its row first.
        there = list(self._incoming.iterdir())
        with self._database.reading() as db:
            known = set(db.execute(select(uploads.c.id)).scalars())
        for file in there:
            if file.name not in known:
                file.unlink(missing_ok=True)

    def _reserve(self, db: Connection, tenant: str, sha256: str, size: int) -> Upload:
        identifier, now = secrets.token_hex(16), time.time()
        upload = Upload(identifier, tenant, sha256, size, now, self._incoming / identifier)
        row = {"id": identifier, "tenant": tenant, "sha256": sha256, "size": size}
        db.execute(insert(uploads).values(**row, created=now, changed=now))
        return upload

    def _find(self, db: Connection, which: ColumnElement[bool], tenant: str) -> Upload | None:
        row = db.execute(select(uploads).where(which, uploads.c.tenant == tenant)).mappings().first()
        if row is None:
            return None
        told = {name: row[name] for name in ("id", "tenant", "sha256", "size", "changed")}
        return Upload(**told, file=self._incoming / row["id"])


def _few(named: Iterable[str]) -> Iterator[list[str]]:
    """A few at a time: databases bound the values of one statement."""
    left = iter(named)
    while few := list(islice(left, 500)):
        yield few
