"""Jobs as their tenants see them: queued, looked at, cancelled, queued again.

Workers take and end them (:mod:`blindtune.server.leases`).
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, delete, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from blindtune.errors import PlanError, QuotaError
from blindtune.server import audit
from blindtune.server.database import Database, lock_tenant
from blindtune.server.tables import bundles, jobs, studies, tenants

ACTIVE = ("queued", "running")


@dataclass(frozen=True)
class Job:
    """A job as its tenant sees it.

    Attributes:
        state: one of ``tables.JOB_STATES``.
        attempts: claims since its last step.
        cores: threads that it runs on; 0 before it ran.
        error, remedy: why it failed, or what it waits for, in one line each.
        step: steps whose weights are kept.
        progress: a ``JobProgress`` as plain data; None before it ran.
    """

    id: str
    tenant: str
    study: str
    state: str
    priority: int
    queued: float
    started: float | None
    changed: float
    attempts: int
    cores: int
    error: str
    remedy: str
    step: int
    progress: dict[str, Any] | None


def latest(connection: Connection, tenant: str, study: str) -> Job | None:
    """The last job of a study."""
    row = connection.execute(
        _shown().where(jobs.c.tenant == tenant, jobs.c.study == study).order_by(jobs.c.id.desc()).limit(1)
    ).one_or_none()
    return None if row is None else _job(row)


def active(connection: Connection, tenant: str, study: str) -> bool:
    """Whether a job of a study is queued or running."""
    found = latest(connection, tenant, study)
    return found is not None and found.state in ACTIVE


class Jobs:
    """The jobs of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def enqueue(self, tenant: str, study: str, priority: int = 0) -> Job:
        """A new job for a study whose bundles are there; or the one that is queued, running or waiting.

        It goes on from what the study's last job has kept, if that was stopped.

        Raises:
            PlanError: the study is gone or trained.
            QuotaError: the tenant has as many jobs as it may.
        """
        with self._database.transaction() as connection:
            lock_tenant(connection, tenant)
            before = latest(connection, tenant, study)
            if before is not None and before.state in ACTIVE:
                return before
            _check_study(connection, tenant, study)
            _check_quota(connection, tenant)
            if before is not None and before.state == "waiting":
                return _requeued(connection, before.id)
            now = database_time(connection)
            kept: dict[str, Any] = {"step": 0, "checkpoint": None, "timing": None}
            if before is not None and before.state != "done":
                row = connection.execute(
                    select(*(jobs.c[k] for k in kept)).where(jobs.c.id == before.id)
                ).one()
                connection.execute(update(jobs).where(jobs.c.id == before.id).values(kept))
                kept = row._asdict()
            # Sorts by time; the rest cannot be guessed.
            made = f"{int(now * 1e6):014x}{secrets.token_hex(9)}"
            connection.execute(
                jobs.insert().values(
                    id=made, tenant=tenant, study=study, state="queued", priority=priority, queued=now,
                    changed=now, attempts=0, cores=0, error="", remedy="", **kept,
                )
            )  # fmt: skip
            audit.append(connection, "job.queued", made)
            return _one(connection, jobs.c.id == made)

    def get(self, job: str, tenant: str | None = None) -> Job | None:
        """A job, of this tenant if one is named."""
        with self._database.reading() as connection:
            row = connection.execute(_shown().where(_whose(job, tenant))).one_or_none()
        return None if row is None else _job(row)

    def page(
        self,
        tenant: str | None = None,
        study: str | None = None,
        *,
        limit: int = 100,
        after: str | None = None,
    ) -> list[Job]:
        """Jobs from the newest to the oldest, of this tenant and study if named.

        Args:
            after: the last job of the page before.
        """
        query = _shown().order_by(jobs.c.id.desc()).limit(limit)
        for column, value in ((jobs.c.tenant, tenant), (jobs.c.study, study)):
            query = query if value is None else query.where(column == value)
        if after is not None:
            query = query.where(jobs.c.id < after)
        with self._database.reading() as connection:
            return [_job(row) for row in connection.execute(query)]

    def timing(self, job: str, tenant: str | None = None) -> dict[str, Any] | None:
        """What a job that is done took, and where; None for others."""
        query = select(jobs.c.timing).where(_whose(job, tenant), jobs.c.state == "done")
        with self._database.reading() as connection:
            found = connection.execute(query).scalar_one_or_none()
        return None if found is None else json.loads(found)

    def cancel(self, job: str, tenant: str | None = None) -> Job:
        """Take a job out of the queue or stop it; what it has kept stays.

        Raises:
            PlanError: it is done, failed or gone.
        """
        with self._database.transaction() as connection:
            _move(connection, _whose(job, tenant), (*ACTIVE, "waiting", "cancelled"), "cancelled")
            audit.append(connection, "job.cancelled", job)
            return _one(connection, _whose(job, tenant))

    def retry(self, job: str, tenant: str | None = None) -> Job:
        """Queue a failed, cancelled or waiting job again: it goes on from what it has kept.

        Raises:
            PlanError: it is none of these, it is gone, or its study is trained or has another job by now.
            QuotaError: the tenant has as many jobs as it may.
        """
        with self._database.transaction() as connection:
            found = _one(connection, _whose(job, tenant))
            lock_tenant(connection, found.tenant)
            last = latest(connection, found.tenant, found.study)
            if last is None or last.id != found.id:
                raise PlanError("the study has another job by now", remedy="Look at that one.")
            _check_study(connection, found.tenant, found.study)
            _check_quota(connection, found.tenant)
            return _requeued(connection, job)


def ended(state: str, now: float) -> dict[str, Any]:
    """A job in another state, without a worker."""
    return {"state": state, "worker": None, "lease": None, "changed": now}


def database_time(connection: Connection) -> float:
    """Seconds since the epoch by the database's clock: hosts need not agree on theirs."""
    if connection.dialect.name == "postgresql":
        return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
    # One host alone uses it.
    return time.time()


def _whose(job: str, tenant: str | None) -> ColumnElement[bool]:
    return jobs.c.id == job if tenant is None else and_(jobs.c.id == job, jobs.c.tenant == tenant)


def _shown() -> Select[Any]:
    return select(*(jobs.c[field.name] for field in fields(Job)))


def check_idle(connection: Connection, tenant: str, study: str) -> None:
    """Refuse to change a study that is queued or running.

    Raises:
        PlanError: it is.
    """
    if active(connection, tenant, study):
        raise PlanError("the study is queued or running", remedy="Wait until it is done, or cancel it.")


def drop(connection: Connection, tenant: str, study: str) -> set[str]:
    """Forget a study's jobs; the contents that their checkpoints named."""
    mine = (jobs.c.tenant == tenant, jobs.c.study == study)
    kept = select(jobs.c.checkpoint).where(*mine, jobs.c.checkpoint.is_not(None))
    named: set[str] = set(connection.execute(kept).scalars())
    connection.execute(delete(jobs).where(*mine))
    return named


def _job(row: Row[Any]) -> Job:
    found = row._asdict()
    return Job(**{**found, "progress": found["progress"] and json.loads(found["progress"])})


def _one(connection: Connection, which: ColumnElement[bool]) -> Job:
    row = connection.execute(_shown().where(which)).one_or_none()
    if row is None:
        raise PlanError("no such job here")
    return _job(row)


def _move(connection: Connection, which: ColumnElement[bool], old: tuple[str, ...], new: str) -> None:
    """From the states named to another, without a worker."""
    moved = connection.execute(
        update(jobs).where(which, jobs.c.state.in_(old)).values(ended(new, database_time(connection)))
    )
    if not moved.rowcount:
        state = _one(connection, which).state
        raise PlanError(f"the job is {state}", remedy="Look at the study's state.")


def _requeued(connection: Connection, job: str) -> Job:
    _move(connection, jobs.c.id == job, ("failed", "cancelled", "waiting"), "queued")
    fresh = {"attempts": 0, "queued": database_time(connection), "error": "", "remedy": ""}
    connection.execute(update(jobs).where(jobs.c.id == job).values(fresh))
    audit.append(connection, "job.retried", job)
    return _one(connection, jobs.c.id == job)


def _check_study(connection: Connection, tenant: str, study: str) -> None:
    of_study = and_(bundles.c.tenant == tenant, bundles.c.study == study, bundles.c.kind == "head")
    known = select(studies.c.id).where(studies.c.tenant == tenant, studies.c.id == study)
    if connection.execute(known).first() is None:
        raise PlanError("no such study here", remedy="Submit it first.")
    if connection.execute(select(bundles.c.study).where(of_study)).first() is not None:
        raise PlanError("the study is done", remedy="Fetch its head, or delete it.")


def _check_quota(connection: Connection, tenant: str) -> None:
    busy = select(func.count()).select_from(jobs).where(jobs.c.tenant == tenant, jobs.c.state.in_(ACTIVE))
    most = connection.execute(select(tenants.c.max_jobs).where(tenants.c.id == tenant)).scalar_one()
    if connection.execute(busy).scalar_one() >= most:
        raise QuotaError(
            f"{most} jobs are queued or running, as many as this tenant may have",
            remedy="Wait until one is done, or cancel one.",
            passing=True,
        )
