"""What the server keeps: bundles as files, states in SQLite; everything survives a restart.

    data_dir/state.sqlite
    data_dir/studies/<study>/keys/             bundles; <name>.partial while parts are missing
                            /data/<member>/
                            /head/
                            /incoming/         parts on their way, swept at each start
                            /timing.json

A bundle is complete when its directory has its final name; the database never contradicts that.
The server and its worker process share a store; each statement is one transaction.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blindtune.errors import BundleError, InputError, PlanError
from blindtune.wire.bundle import MANIFEST, PARTS, Bundle
from blindtune.wire.manifest import Manifest, Part, parse_manifest
from blindtune.wire.study import check_study

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


class Store:
    """The server's memory on disk.

    Args:
        data_dir: made if absent, for its owner only.
        insecure: accept test parameters without a security level.

    Raises:
        InputError: the directory cannot be used.
    """

    def __init__(self, data_dir: Path, *, insecure: bool = False) -> None:
        self.data_dir, self.insecure = data_dir, insecure
        self._lock = threading.RLock()
        try:
            (data_dir / "studies").mkdir(parents=True, exist_ok=True)
            data_dir.chmod(0o700)
            with self._database() as db:
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise InputError(
                "the data directory cannot be used", remedy="Give a directory that this user can write."
            ) from error

    # Uploads

    def open_bundle(self, manifest: Manifest) -> list[str]:
        """Open an upload, or continue it; returns the names of the parts still missing.

        Raises:
            BundleError: it does not belong to the study that its identifier names.
            PlanError: another bundle stands in its place already.
        """
        header, text = _header(manifest), manifest.model_dump_json()
        study, place = manifest.study, self._place(manifest.study, manifest.kind, manifest.member)
        with self._lock:
            row = self.study(study)
            if row is not None and row["header"] != header:
                raise BundleError(
                    "the study here has another key, other members, parameters or another program",
                    remedy="Encrypt with the study's key and plan, or delete the study here first.",
                )
            if place.is_dir():
                if (place / MANIFEST).read_text() != text:
                    raise PlanError(
                        f"another bundle of {manifest.kind} is here already",
                        remedy="Delete the study here to upload it anew.",
                    )
                return []
            partial = _partial(place)
            same = partial.is_dir() and (partial / MANIFEST).read_text() == text
            if not same:
                shutil.rmtree(partial, ignore_errors=True)
                (partial / PARTS).mkdir(parents=True)
                now = time.time()
                with self._database() as db:
                    db.execute(
                        "INSERT OR IGNORE INTO studies (id, header, state, created, changed) "
                        "VALUES (?, ?, 'uploading', ?, ?)",
                        (study, header, now, now),
                    )
                    key = (study, manifest.kind, manifest.member)
                    # A study has one bundle of keys, whoever brings it.
                    db.execute(
                        "DELETE FROM parts WHERE study = ? AND kind = ? AND (member = ? OR kind = 'keys')",
                        key,
                    )
                    db.executemany(
                        "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?)",
                        [(*key, p.name, p.sha256, p.size) for p in manifest.parts],
                    )
                # Last, so that an upload that broke off before it counts as another one.
                (partial / MANIFEST).write_text(text)
            here = {p.name for p in (partial / PARTS).iterdir()}
        return [p.name for p in manifest.parts if p.name not in here]

    def part(self, study: str, kind: str, member: str, name: str) -> Part | None:
        """What an opened upload says about a part; None if there is no such part."""
        with self._database() as db:
            row = db.execute(
                "SELECT sha256, size FROM parts WHERE study = ? AND kind = ? AND member = ? AND name = ?",
                (study, kind, member, name),
            ).fetchone()
        return None if row is None else Part(name=name, sha256=row["sha256"], size=row["size"])

    def incoming(self, study: str) -> Path:
        """A fresh name for a part on its way."""
        directory = self.directory(study) / "incoming"
        directory.mkdir(parents=True, exist_ok=True)
        return directory / uuid.uuid4().hex

    def keep_part(self, study: str, kind: str, member: str, part: Part, file: Path) -> None:
        """Move a received and checked part to its place.

        Raises:
            PlanError: the upload was opened anew, completed or deleted meanwhile.
        """
        partial = _partial(self._place(study, kind, member))
        with self._lock:
            if self.part(study, kind, member, part.name) != part or not partial.is_dir():
                raise PlanError("this upload is closed", remedy="Run submit again.")
            os.replace(file, partial / PARTS / part.name)

    def complete(self, study: str, kind: str, member: str) -> None:
        """Check a bundle whose parts have all arrived, and place it.

        Raises:
            BundleError: a part is missing or altered, or the bundle was never opened.
        """
        place = self._place(study, kind, member)
        with self._lock:
            if not place.is_dir():
                partial = _partial(place)
                if not partial.is_dir():
                    raise BundleError("no upload of this bundle is open", remedy="Run submit again.")
                bundle = Bundle(partial, insecure=self.insecure)
                try:
                    bundle.verify()
                except BundleError:
                    # Damaged after it arrived whole: only a new upload can mend it.
                    shutil.rmtree(partial)
                    raise
                os.replace(partial, place)
                _sync(place.parent)
            self._settle(study)

    # Studies

    def study(self, study: str) -> dict[str, Any] | None:
        """The row of a study; None if it is unknown."""
        with self._database() as db:
            row = db.execute("SELECT * FROM studies WHERE id = ?", (study,)).fetchone()
        return None if row is None else dict(row)

    def status(self, study: str) -> dict[str, Any] | None:
        """A study's state for the outside; None if it is unknown."""
        row = self.study(study)
        if row is None:
            return None
        members = json.loads(row["header"])["members"]
        with self._database() as db:
            progress = db.execute("SELECT content FROM progress WHERE study = ?", (study,)).fetchone()
        return {
            "study": study,
            "state": row["state"],
            "error": row["error"],
            "remedy": row["remedy"],
            "created": row["created"],
            "changed": row["changed"],
            "members": members,
            "uploaded": [m for m in members if self._place(study, "data", m).is_dir()],
            "keys": self._place(study, "keys", "").is_dir(),
            "progress": None if progress is None else json.loads(progress["content"]),
        }

    def bundles(self, study: str) -> tuple[Bundle, list[Bundle]]:
        """A study's keys and its members' data, checked against each other.

        Raises:
            PlanError: keys or a member's data are missing, or they do not make one study.
        """
        row = self.study(study)
        members = json.loads(row["header"])["members"] if row else []
        missing = [m for m in members if not self._place(study, "data", m).is_dir()]
        if not self._place(study, "keys", "").is_dir():
            missing.append("the evaluation keys")
        if missing or not members:
            named = ", ".join(missing[:5]) + (" and more" if len(missing) > 5 else "")
            raise PlanError(f"not uploaded yet: {named}", remedy="Submit what is missing, then start.")
        try:
            keys = Bundle(self._place(study, "keys", ""), insecure=self.insecure)
            data = [Bundle(self._place(study, "data", m), insecure=self.insecure) for m in members]
            check_study(keys, data)
        except BundleError as error:
            raise PlanError(error.what, remedy=error.remedy) from error
        return keys, data

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

    def delete(self, study: str) -> None:
        """Forget a study and remove its files.

        Raises:
            PlanError: it is queued or running.
        """
        with self._lock:
            row = self.study(study)
            if row is not None and row["state"] in ("queued", "running"):
                raise PlanError(f"the study is {row['state']}", remedy="Cancel it first.")
            with self._database() as db:
                db.execute("DELETE FROM studies WHERE id = ?", (study,))
            shutil.rmtree(self.directory(study), ignore_errors=True)

    def progress(self, study: str, progress: JobProgress) -> None:
        """Record where a running study stands."""
        with self._database() as db:
            db.execute(
                "INSERT OR REPLACE INTO progress "
                "SELECT id, ? FROM studies WHERE id = ? AND state = 'running'",
                (json.dumps(asdict(progress)), study),
            )

    def recover(self) -> None:
        """Set right what a crash left: running studies queue again, half-received parts go."""
        with self._database() as db:
            db.execute("UPDATE studies SET state = 'queued' WHERE state = 'running'")
            known = {row["id"] for row in db.execute("SELECT id FROM studies")}
        for directory in (self.data_dir / "studies").iterdir():
            if directory.name in known:
                shutil.rmtree(directory / "incoming", ignore_errors=True)
                self._settle(directory.name)
            else:
                shutil.rmtree(directory, ignore_errors=True)

    # Files

    def directory(self, study: str) -> Path:
        """Where a study's files lie."""
        return self.data_dir / "studies" / study

    def head(self, study: str) -> Path:
        """Where a study's head lies once it is trained."""
        return self.directory(study) / "head"

    def timing(self, study: str) -> Path:
        """Where a study's timing lies once it is trained."""
        return self.directory(study) / "timing.json"

    def head_manifest(self, study: str) -> Manifest:
        """The manifest of a trained study's head."""
        return parse_manifest((self.head(study) / MANIFEST).read_bytes(), insecure=self.insecure)

    def _place(self, study: str, kind: str, member: str) -> Path:
        return self.directory(study) / ("keys" if kind == "keys" else f"data/{member}")

    def _settle(self, study: str) -> None:
        status = self.status(study)
        if status and status["keys"] and status["uploaded"] == status["members"]:
            self._move(study, ("uploading",), "ready")

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
        db = sqlite3.connect(self.data_dir / "state.sqlite", timeout=30)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            with db:
                yield db
        finally:
            db.close()


def _header(manifest: Manifest) -> str:
    """What all bundles of a study share."""
    shared = manifest.model_dump(include={"key", "members", "engine", "parameters", "program"})
    return json.dumps(shared, sort_keys=True)


def _partial(place: Path) -> Path:
    # A member's name holds no dot, so no member's data can take this name.
    return place.with_name(place.name + ".partial")


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
