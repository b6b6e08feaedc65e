"""Workers' side of jobs: claimed by one worker at a time, given back when that worker dies, done once.

A claim is a lease: its worker's name is its own, and everything that a worker writes names it. Who was
thought dead, or whose job was cancelled, changes nothing any more.

Tenants take turns: first the one with fewest cores at work, then the one whose turn is longest ago. Within
a tenant the higher priority goes first, then the longer queued.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, case, func, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from blindtune.server import audit
from blindtune.server.database import Database
from blindtune.server.jobs import database_time, ended
from blindtune.server.tables import jobs, tenants

LEASE = 30.0
"""Seconds after which a silent worker counts as dead. Where its death is seen, nobody waits for that."""

ATTEMPTS = 5
"""Claims without a step done, after which a job is given up."""

Also = Callable[[Connection], None]

_CLAIMING = 0x626C696F
"""PostgreSQL's advisory lock of claims: together they hold to the quotas of cores."""


@dataclass(frozen=True)
class Claim:
    """A worker's right to a job.

    Attributes:
        worker: ``HOST/…``, of this claim alone.
        cores: threads to train on.
        checkpoint: the blob to go on from, after ``step`` steps; None to begin.
        timing: what was kept with the checkpoint.
    """

    id: str
    tenant: str
    study: str
    worker: str
    cores: int
    step: int
    checkpoint: str | None
    timing: dict[str, Any] | None


def _nothing(_: Connection) -> None:
    pass


class Leases:
    """Claims on the jobs of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def waiting(self) -> bool:
        """Whether a claim may find something."""
        with self._database.reading() as connection:
            found = select(jobs.c.id).where(_open(database_time(connection))).limit(1)
            return connection.execute(found).first() is not None

    def claim(self, host: str, cores: int) -> Claim | None:
        """Take the next job; None if no tenant has one that may run.

        Args:
            host: of the worker, for :meth:`abandon_host`.
            cores: that the worker has; its tenant's quota may leave it fewer.
        """
        with self._database.transaction() as connection:
            if self._database.postgresql:
                connection.execute(select(func.pg_advisory_xact_lock(_CLAIMING)))
            now = database_time(connection)
            connection.execute(
                update(jobs)
                .where(_open(now), jobs.c.attempts >= ATTEMPTS)
                .values(
                    state="failed", worker=None, lease=None, changed=now,
                    error=f"the training process ended {ATTEMPTS} times before a step was done",
                    remedy="If it wants memory, plan fewer rows, features or steps; else start it again.",
                )
            )  # fmt: skip
            row = connection.execute(_next(now)).first()
            if row is None:
                return None
            worker = f"{host}/{secrets.token_hex(8)}"
            taken = connection.execute(
                update(jobs)
                # A cancellation may come between, where transactions run side by side.
                .where(jobs.c.id == row.id, _open(now))
                .values(
                    state="running", worker=worker, lease=now + LEASE, changed=now, error="", remedy="",
                    started=func.coalesce(jobs.c.started, now), attempts=jobs.c.attempts + 1,
                    cores=min(cores, row.free),
                )
            )  # fmt: skip
        if not taken.rowcount:
            return None
        timing = None if row.timing is None else json.loads(row.timing)
        return Claim(
            row.id, row.tenant, row.study, worker, min(cores, row.free), row.step, row.checkpoint, timing
        )

    def held(self, claim: Claim) -> bool:
        """Whether a claim still holds."""
        with self._database.reading() as connection:
            mine = _of(claim, database_time(connection))
            return connection.execute(select(jobs.c.id).where(mine)).first() is not None

    def beat(self, claim: Claim, progress: dict[str, Any] | None) -> bool:
        """Renew a lease, and record where the job stands; False if the claim is lost."""
        values = {} if progress is None else {"progress": json.dumps(progress)}
        return self._write(claim, lambda now: {"lease": now + LEASE, **values})

    def keep(
        self, claim: Claim, step: int, checkpoint: str, timing: dict[str, Any], also: Also = _nothing
    ) -> bool:
        """A step is done and its weights are kept in a blob; False if the claim is lost.

        Args:
            also: done in the same transaction, if the claim holds.
        """
        return self._write(
            claim,
            lambda now: {
                "step": step,
                "checkpoint": checkpoint,
                "timing": json.dumps(timing),
                "attempts": 1,
                "changed": now,
            },
            also,
        )

    def finish(
        self,
        claim: Claim,
        progress: dict[str, Any],
        timing: dict[str, Any],
        place: Also,
    ) -> bool:
        """The job is done; False, and nothing is placed, if the claim is lost.

        Args:
            place: writes the head's rows in the same transaction.
        """
        return self._write(
            claim,
            lambda now: {
                **ended("done", now),
                "progress": json.dumps(progress),
                "timing": json.dumps(timing),
                "checkpoint": None,
            },
            place,
            action="job.done",
        )

    def fail(self, claim: Claim, error: str, remedy: str) -> bool:
        """The job failed, for a reason in one line; False if the claim is lost."""
        return self._write(
            claim, lambda now: {**ended("failed", now), "error": error, "remedy": remedy}, action="job.failed"
        )

    def wait(self, claim: Claim, reason: str, remedy: str) -> bool:
        """The job goes on when its tenant starts it again; False if the claim is lost."""
        told = {"attempts": 0, "error": reason, "remedy": remedy}
        return self._write(claim, lambda now: {**ended("waiting", now), **told}, action="job.waiting")

    def release(self, claim: Claim) -> bool:
        """The worker was told to stop: the job keeps its turn, and the attempt does not count."""
        return self._write(claim, lambda now: {**ended("queued", now), "attempts": jobs.c.attempts - 1})

    def abandon(self, claim: Claim) -> bool:
        """The worker died: the job keeps its turn."""
        return self._write(claim, lambda now: ended("queued", now))

    def abandon_host(self, host: str) -> None:
        """No worker of a host is left: its jobs keep their turns."""
        with self._database.transaction() as connection:
            connection.execute(
                update(jobs)
                .where(jobs.c.state == "running", jobs.c.worker.startswith(f"{host}/", autoescape=True))
                .values(ended("queued", database_time(connection)))
            )

    def _write(
        self,
        claim: Claim,
        values: Callable[[float], dict[str, Any]],
        also: Also = _nothing,
        action: str = "",
    ) -> bool:
        with self._database.transaction() as connection:
            now = database_time(connection)
            mine = update(jobs).where(_of(claim, now))
            written = connection.execute(mine.values(values(now))).rowcount == 1
            if written:
                also(connection)
            if written and action:
                audit.append(connection, action, claim.id)
            return written


def _of(claim: Claim, now: float) -> ColumnElement[bool]:
    """A claim's job, while the claim holds."""
    return and_(
        jobs.c.id == claim.id,
        jobs.c.worker == claim.worker,
        jobs.c.state == "running",
        jobs.c.lease >= now,
    )


def _open(now: float) -> ColumnElement[bool]:
    """Jobs without a worker, or whose worker counts as dead."""
    return or_(jobs.c.state == "queued", and_(jobs.c.state == "running", jobs.c.lease < now))


def _next(now: float) -> Select[Any]:
    """The job whose turn it is, with the cores that its tenant has left."""
    turns = (
        select(
            jobs.c.tenant,
            func.sum(
                case((and_(jobs.c.state == "running", jobs.c.lease >= now), jobs.c.cores), else_=0)
            ).label("used"),
            func.max(jobs.c.started).label("last"),
        )
        .group_by(jobs.c.tenant)
        .subquery()
    )
    free = tenants.c.max_cores - turns.c.used
    kept = (jobs.c.step, jobs.c.checkpoint, jobs.c.timing)
    return (
        select(jobs.c.id, jobs.c.tenant, jobs.c.study, *kept, free.label("free"))
        .join(turns, turns.c.tenant == jobs.c.tenant)
        .join(tenants, tenants.c.id == jobs.c.tenant)
        .where(_open(now), free >= 1)
        .order_by(
            turns.c.used,
            func.coalesce(turns.c.last, 0),
            jobs.c.priority.desc(),
            jobs.c.queued,
            jobs.c.id,
        )
        .limit(1)
    )
