"""What a reader of the page is told: documents of studies and jobs, and again whenever they change.

Events, by name: ``self`` (whose token it is, what it keeps and may keep), ``study``, ``job``, ``gone`` (a
study or job that was deleted), and ``whole`` once everything was told for the first time. An operator is told
tenants' names, states, sizes and times, but not what members are called.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Hashable, Iterator
from typing import Any

from sqlalchemy import Connection, func, select

from blindtune.server.database import Database
from blindtune.server.memory import available_bytes
from blindtune.server.status import study_status, without_names
from blindtune.server.tables import blobs, jobs, parts, studies, tenants

MOST = 200
"""Studies and jobs that a reader is told of, the newest first."""

Event = tuple[str, dict[str, Any]]


class News:
    """One reader's view, and what of it is new since the last look.

    Args:
        tenant: who looks; None for an operator, who looks at all.
    """

    def __init__(self, database: Database, tenant: str | None) -> None:
        self._database, self._tenant = database, tenant
        self._told: dict[tuple[str, ...], Hashable] = {}
        self._begun = False

    def since(self) -> list[Event]:
        """The events since the call before; everything at first.

        Raises:
            StorageError: the database cannot be reached.
        """
        with self._database.reading() as connection:
            found = list(self._look(connection))
        if not self._begun:
            self._begun = True
            found.append(("whole", {}))
        return found

    def _look(self, connection: Connection) -> Iterator[Event]:
        own = self._self(connection)
        if self._new(("self",), json.dumps(own)):
            yield "self", own
        names = {row.id: row.name for row in connection.execute(select(tenants.c.id, tenants.c.name))}
        seen: set[tuple[str, ...]] = {("self",)}
        latest: dict[tuple[str, str], Hashable] = {}
        for row in self._jobs(connection):
            mark: Hashable = (row.state, row.changed, row.lease)
            latest.setdefault((row.tenant, row.study), (row.id, row.state, row.changed))
            seen.add(("job", row.id))
            if self._new(("job", row.id), mark):
                yield "job", self._named(row.tenant, names, _job(connection, row.id))
        for row in self._studies(connection):
            seen.add(("study", row.tenant, row.id))
            mark = (row.changed, latest.get((row.tenant, row.id)))
            if self._new(("study", row.tenant, row.id), mark):
                yield "study", self._named(row.tenant, names, self._study(connection, row.tenant, row.id))
        for key in [k for k in self._told if k not in seen]:
            del self._told[key]
            if key[0] == "job":
                yield "gone", {"job": key[1]}
            else:
                yield "gone", self._named(key[1], names, {"study": key[2]})

    def _new(self, key: tuple[str, ...], mark: Hashable) -> bool:
        before, self._told[key] = self._told.get(key), mark
        return before != mark

    def _named(self, tenant: str, names: dict[str, str], document: dict[str, Any]) -> dict[str, Any]:
        # A tenant knows who it is; only to operators is it told which one.
        return document if self._tenant else {**document, "tenant": names.get(tenant, "")}

    def _jobs(self, connection: Connection) -> Any:
        columns = (jobs.c.id, jobs.c.tenant, jobs.c.study, jobs.c.state, jobs.c.changed, jobs.c.lease)
        query = select(*columns).order_by(jobs.c.id.desc()).limit(MOST)
        return connection.execute(query.where(jobs.c.tenant == self._tenant) if self._tenant else query).all()

    def _studies(self, connection: Connection) -> Any:
        query = select(studies.c.tenant, studies.c.id, studies.c.changed)
        query = query.order_by(studies.c.changed.desc()).limit(MOST)
        return connection.execute(
            query.where(studies.c.tenant == self._tenant) if self._tenant else query
        ).all()

    def _self(self, connection: Connection) -> dict[str, Any]:
        kept, count = (
            select(func.coalesce(func.sum(blobs.c.size), 0)),
            select(func.count()).select_from(studies),
        )
        own: dict[str, Any] = {"tenant": None, "quota": None, "machine": None}
        if self._tenant:
            kept, count = (
                kept.where(blobs.c.tenant == self._tenant),
                count.where(studies.c.tenant == self._tenant),
            )
            row = connection.execute(select(tenants).where(tenants.c.id == self._tenant)).one()
            own["tenant"] = row.name
            own["quota"] = {"bytes": row.max_bytes, "jobs": row.max_jobs, "cores": row.max_cores}
        else:
            # To a tenth of a gigabyte, so that it is not news each second.
            available = round(available_bytes(), -8)
            own["machine"] = {"cores": os.cpu_count(), "available": available}
        usage = {"bytes": int(connection.execute(kept).scalar_one())}
        return {**own, "usage": usage, "studies": connection.execute(count).scalar_one()}

    def _study(self, connection: Connection, tenant: str, study: str) -> dict[str, Any]:
        found = study_status(connection, tenant, study)
        # A job's document has it.
        del found["progress"]
        mine = (studies.c.tenant == tenant, studies.c.id == study)
        header = json.loads(connection.execute(select(studies.c.header).where(*mine)).scalar_one())
        parameters = header["parameters"]
        found["steps"] = header["program"]["steps"]
        found["parameters"] = {
            "ring_degree": parameters["ring_degree"],
            "modulus_bits": sum(math.log2(p) for p in parameters["primes"]),
            "security": parameters["security"],
        }
        head = select(func.sum(parts.c.size)).where(
            parts.c.tenant == tenant, parts.c.study == study, parts.c.kind == "head"
        )
        size = connection.execute(head).scalar_one()
        found["head"] = None if size is None else {"bytes": int(size)}
        return found if self._tenant else without_names(found)


_SHOWN = (
    *("id", "study", "state", "priority", "queued", "started", "changed", "attempts", "cores", "error"),
    *("remedy", "step", "progress"),
)


def _job(connection: Connection, job: str) -> dict[str, Any]:
    columns = [jobs.c[name] for name in _SHOWN]
    found = dict(connection.execute(select(*columns).where(jobs.c.id == job)).mappings().one())
    found["progress"] = json.loads(found["progress"]) if found["progress"] else None
    return found
