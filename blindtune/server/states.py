"""States, uploads and progress of studies in SQLite; each call is one transaction.

The server and its worker process open the same file. Every change of state names the states it starts
from, so that whoever comes second changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blindtune.errors import PlanError
from blindtune.wire.manifest import Part

SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
    id TEXT PRIMARY KEY,
    header TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN
        ('uploading', 'ready', 'queued', 'running', 'done', 'failed', 'cancelled')),
    error TEXT NOT NULL DEFAULT '',
    remedy TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL,
    changed REAL NOT NULL,
    queued REAL
);
CREATE TABLE IF NOT EXISTS parts (
    study TEXT NOT NULL REFERENCES studies (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    member TEXT NOT NULL,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (study, kind, member, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS progress (
    study TEXT PRIMARY KEY REFERENCES studies (id) ON DELETE CASCADE,
    content TEXT NOT NULL
);
"""

STARTABLE = ("ready", "failed", "cancelled")


@dataclass(frozen=True)
class JobProgress:
    """Where a running study stands; ``eta`` is None while it cannot be told.

    Attributes:
        phase: ``verify``, ``load``, or a phase of a training step.
        level: rescales left in the weights.
        operations: homomorphic operations so far, by name.
    """

    step: int
    steps: int
    phase: str
    level: int
    done: int
    total: int
    seconds: float
    eta: float | None
    operations: dict[str, int]


class States:
    """The table of studies.

    Args:
        path: the database; made if absent.

    Raises:
        sqlite3.Error: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._database() as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(SCHEMA)

    def ids(self) -> set[str]:
        """All studies."""
        with self._database() as db:
            return {row["id"] for row in db.execute("SELECT id FROM studies")}

    def study(self, study: str) -> dict[str, Any] | None:
        """The row of a study; None if it is unknown."""
        with self._database() as db:
            row = db.execute("SELECT * FROM studies WHERE id = ?", (study,)).fetchone()
        return None if row is None else dict(row)

    def open(self, study: str, header: str, kind: str, member: str, parts: Iterable[Part]) -> None:
        """Open an upload of a bundle, in the place of one that was not completed; makes the study."""
        now, key = time.time(), (study, kind, member)
        with self._database() as db:
            db.execute(
                "INSERT OR IGNORE INTO studies (id, header, state, created, changed) "
                "VALUES (?, ?, 'uploading', ?, ?)",
                (study, header, now, now),
            )
            # A study has one bundle of keys and one of weights to start from, whoever brings it.
            db.execute(
                "DELETE FROM parts WHERE study = ? AND kind = ? AND (member = ? OR kind <> 'data')", key
            )
            db.executemany(
                "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?)",
                [(*key, p.name, p.sha256, p.size) for p in parts],
            )

    def part(self, study: str, kind: str, member: str, name: str) -> Part | None:
        """What an opened upload says about a part; None if there is no such part."""
        with self._database() as db:
            row = db.execute(
                "SELECT sha256, size FROM parts WHERE study = ? AND kind = ? AND member = ? AND name = ?",
                (study, kind, member, name),
            ).fetchone()
        return None if row is None else Part(name=name, sha256=row["sha256"], size=row["size"])

    def ready(self, study: str) -> None:
        """All bundles of an uploading study are there."""
        self._move(study, ("uploading",), "ready")

    def reopen(self, study: str) -> None:
        """A study that is complete or trained waits for a bundle again.

        Raises:
            PlanError: it is queued or running.
        """
        if not self._move(study, ("uploading", "ready", "done", "failed", "cancelled"), "uploading"):
            raise PlanError("the study is queued or running", remedy="Wait until it is done, or cancel it.")

    def queue(self, study: str) -> None:
        """Put a complete study at the end of the queue; nothing changes when it is there or running.

        Raises:
            PlanError: it is trained already, or not complete.
        """
        if self._move(study, STARTABLE, "queued"):
            with self._database() as db:
                db.execute("UPDATE studies SET queued = ? WHERE id = ?", (time.time(), study))
                db.execute("DELETE FROM progress WHERE study = ?", (study,))
            return
        row = self.study(study)
        if row is None or row["state"] not in ("queued", "running"):
            raise PlanError(
                f"the study is {row['state'] if row else 'gone'}", remedy="Fetch its head, or delete it."
            )

    def claim(self) -> str | None:
        """Take the next study from the queue and call it running."""
        with self._database() as db:
            row = db.execute("SELECT id FROM studies WHERE state = 'queued' ORDER BY queued").fetchone()
        return row["id"] if row and self._move(row["id"], ("queued",), "running") else None

    def finish(self, study: str) -> None:
        """A running study is trained."""
        self._move(study, ("running",), "done")

    def fail(self, study: str, error: str, remedy: str) -> None:
        """A running study failed, for a reason in one line."""
        self._move(study, ("running",), "failed", error, remedy)

    def requeue(self, study: str) -> None:
        """A running study was interrupted; it keeps its turn."""
        self._move(study, ("running",), "queued")

    def cancel(self, study: str) -> None:
        """Take a study out of the queue or stop it.

        Raises:
            PlanError: it is neither queued nor running.
        """
        if not self._move(study, ("queued", "running", "cancelled"), "cancelled"):
            row = self.study(study)
            raise PlanError(f"the study is {row['state'] if row else 'gone'}: nothing to cancel")

    def requeue_all(self) -> None:
        """Whatever ran was interrupted."""
        with self._database() as db:
            db.execute("UPDATE studies SET state = 'queued' WHERE state = 'running'")

    def forget(self, study: str) -> None:
        """Remove a study's rows.

        Raises:
            PlanError: it is queued or running.
        """
        with self._database() as db:
            done = db.execute(
                "DELETE FROM studies WHERE id = ? AND state NOT IN ('queued', 'running')", (study,)
            )
        if not done.rowcount and self.study(study) is not None:
            raise PlanError("the study is queued or running", remedy="Cancel it first.")

    def record(self, study: str, progress: JobProgress) -> None:
        """Record where a running study stands."""
        with self._database() as db:
            db.execute(
                "INSERT OR REPLACE INTO progress "
                "SELECT id, ? FROM studies WHERE id = ? AND state = 'running'",
                (json.dumps(asdict(progress)), study),
            )

    def progress(self, study: str) -> Any:
        """What :meth:`record` kept, as plain data; None if nothing."""
        with self._database() as db:
            row = db.execute("SELECT content FROM progress WHERE study = ?", (study,)).fetchone()
        return None if row is None else json.loads(row["content"])

    def _move(self, study: str, old: tuple[str, ...], new: str, error: str = "", remedy: str = "") -> bool:
        marks = ", ".join("?" * len(old))
        with self._database() as db:
            done = db.execute(
                "UPDATE studies SET state = ?, error = ?, remedy = ?, changed = ? "  # noqa: S608 - only marks
                f"WHERE id = ? AND state IN ({marks})",
                (new, error, remedy, time.time(), study, *old),
            )
            return done.rowcount > 0

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._path, timeout=30)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            with db:
                yield db
        finally:
            db.close()
