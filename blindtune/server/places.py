"""The rows of one bundle: its manifest and its parts, at its place in a study."""

from __future__ import annotations

import time

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, and_, delete, insert, select, update

from blindtune.server.tables import bundles, parts, studies
from blindtune.wire.manifest import Manifest


class Place:
    """Where a bundle stands in a study."""

    def __init__(self, tenant: str, study: str, kind: str, member: str) -> None:
        self.tenant, self.study, self.kind = tenant, study, kind
        # A study has one bundle of keys and one of weights to start from, whoever brings it.
        self.member = member if kind == "data" else ""
        self._key = {"tenant": tenant, "study": study, "kind": kind, "member": self.member}
        self.where, self.parts = (_matches(table, self._key) for table in (bundles, parts))

    @classmethod
    def of(cls, tenant: str, manifest: Manifest) -> Place:
        return cls(tenant, manifest.study, manifest.kind, manifest.member)

    def row(self, db: Connection) -> RowMapping | None:
        return db.execute(select(bundles).where(self.where)).mappings().first()

    def remove(self, db: Connection) -> set[str]:
        """Take the bundle away; the contents it named."""
        named = set(db.execute(select(parts.c.sha256).where(self.parts)).scalars())
        db.execute(delete(bundles).where(self.where))
        return named

    def insert(self, db: Connection, manifest: Manifest, text: str, *, complete: bool) -> None:
        db.execute(insert(bundles).values(**self._key, manifest=text, complete=complete, created=time.time()))
        rows = [{**self._key, "name": p.name, "sha256": p.sha256, "size": p.size} for p in manifest.parts]
        db.execute(insert(parts), rows)
        touch(db, self.tenant, self.study)


def touch(db: Connection, tenant: str, study: str) -> None:
    """Something was done with a study."""
    where = (studies.c.tenant == tenant, studies.c.id == study)
    db.execute(update(studies).where(*where).values(changed=time.time()))


def _matches(table: Table, key: dict[str, str]) -> ColumnElement[bool]:
    return and_(*(table.c[name] == value for name, value in key.items()))
