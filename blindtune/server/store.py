"""What the server keeps: bundles as files, states in SQLite; everything survives a restart.

    data_dir/state.sqlite
    data_dir/studies/<study>/keys/             bundles; <name>.partial while parts are missing
                            /data/<member>/
                            /start/            weights that the next training starts from, if it wants them
                            /head/
                            /incoming/         parts on their way, swept at each start
                            /timing.json

A bundle is complete when its directory has its final name; the database never contradicts that.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import uuid
from pathlib import Path
from typing import Any

from blindtune.errors import BundleError, InputError, PlanError
from blindtune.server.states import States
from blindtune.wire.bundle import MANIFEST, PARTS, Bundle
from blindtune.wire.manifest import Manifest, Part, parse_manifest
from blindtune.wire.study import check_start, check_study


class Store:
    """The server's memory on disk.

    Args:
        data_dir: made if absent, for its owner only.
        insecure: accept test parameters without a security level.

    Attributes:
        states: what is known of each study besides its files.

    Raises:
        InputError: the directory cannot be used.
    """

    def __init__(self, data_dir: Path, *, insecure: bool = False) -> None:
        self.data_dir, self.insecure = data_dir, insecure
        self._lock = threading.RLock()
        try:
            (data_dir / "studies").mkdir(parents=True, exist_ok=True)
            data_dir.chmod(0o700)
            self.states = States(data_dir / "state.sqlite")
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
            row = self.states.study(study)
            if row is not None and row["header"] != header:
                raise BundleError(
                    "the study here has another key, other members, parameters or another program",
                    remedy="Encrypt with the study's key and plan, or delete the study here first.",
                )
            if place.is_dir():
                if _text(place) == text:
                    return []
                if manifest.kind != "start":
                    raise PlanError(
                        f"another bundle of {manifest.kind} is here already",
                        remedy="Delete the study here to upload it anew.",
                    )
                # Other weights: the study is trained anew from them.
                self.states.reopen(study)
                shutil.rmtree(place)
            partial = _partial(place)
            if _text(partial) != text:
                shutil.rmtree(partial, ignore_errors=True)
                (partial / PARTS).mkdir(parents=True)
                self.states.open(study, header, manifest.kind, manifest.member, manifest.parts)
                # Last, so that an upload that broke off before it counts as another one.
                (partial / MANIFEST).write_text(text)
            here = {p.name for p in (partial / PARTS).iterdir()}
        return [p.name for p in manifest.parts if p.name not in here]

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
            if self.states.part(study, kind, member, part.name) != part or not partial.is_dir():
                raise PlanError("this upload is closed", remedy="Run submit again.")
            os.replace(file, partial / PARTS / part.name)

    def complete(self, study: str, kind: str, member: str) -> None:
        """Check a bundle whose parts have all arrived, and place it.

        Raises:
            BundleError: a part is missing or altered, or the bundle was never opened.
            PlanError: the upload was opened anew meanwhile.
        """
        place = self._place(study, kind, member)
        partial = _partial(place)
        if not place.is_dir():
            if not partial.is_dir():
                raise BundleError("no upload of this bundle is open", remedy="Run submit again.")
            checked = _text(partial)
            bundle = Bundle(partial, insecure=self.insecure)
            try:
                # Not under the lock: it takes seconds, and whatever arrives meanwhile has its hash checked.
                bundle.verify()
            except BundleError:
                # Damaged after it arrived whole: only a new upload can mend it.
                with self._lock:
                    shutil.rmtree(partial, ignore_errors=True)
                raise
            with self._lock:
                if not place.is_dir():
                    if _text(partial) != checked:
                        raise PlanError("this upload is closed", remedy="Run submit again.")
                    os.replace(partial, place)
                    _sync(place.parent)
        with self._lock:
            self._settle(study)

    # Studies

    def status(self, study: str) -> dict[str, Any] | None:
        """A study's state for the outside; None if it is unknown."""
        row = self.states.study(study)
        if row is None:
            return None
        members = json.loads(row["header"])["members"]
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
            "start": self._place(study, "start", "").is_dir() if _started(row) else None,
            "progress": self.states.progress(study),
        }

    def bundles(self, study: str) -> tuple[Bundle, list[Bundle], Bundle | None]:
        """A study's keys, its members' data and its weights to start from, checked against each other.

        Raises:
            PlanError: something is missing, or they do not make one study.
        """
        row = self.states.study(study)
        members = json.loads(row["header"])["members"] if row else []
        missing = [m for m in members if not self._place(study, "data", m).is_dir()]
        if not self._place(study, "keys", "").is_dir():
            missing.append("the evaluation keys")
        started = row is not None and _started(row)
        if started and not self._place(study, "start", "").is_dir():
            missing.append("the weights to start from")
        if missing or not members:
            named = ", ".join(missing[:5]) + (" and more" if len(missing) > 5 else "")
            raise PlanError(f"not uploaded yet: {named}", remedy="Submit what is missing, then start.")
        try:
            keys = Bundle(self._place(study, "keys", ""), insecure=self.insecure)
            data = [Bundle(self._place(study, "data", m), insecure=self.insecure) for m in members]
            start = Bundle(self._place(study, "start", ""), insecure=self.insecure) if started else None
            check_study(keys.manifest, [b.manifest for b in data])
            check_start(keys.manifest, start.manifest if start else None)
        except BundleError as error:
            raise PlanError(error.what, remedy=error.remedy) from error
        return keys, data, start

    def delete(self, study: str) -> None:
        """Forget a study and remove its files.

        Raises:
            PlanError: it is queued or running.
        """
        with self._lock:
            self.states.forget(study)
            shutil.rmtree(self.directory(study), ignore_errors=True)

    def recover(self) -> None:
        """Set right what a crash left: running studies queue again, half-received parts go."""
        self.states.requeue_all()
        known = self.states.ids()
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
        return self.directory(study) / (f"data/{member}" if kind == "data" else kind)

    def _settle(self, study: str) -> None:
        status = self.status(study)
        complete = status and status["keys"] and status["uploaded"] == status["members"]
        if status and complete and status["start"] is not False:
            self.states.ready(study)


def _header(manifest: Manifest) -> str:
    """What all bundles of a study share."""
    shared = manifest.model_dump(include={"key", "members", "engine", "parameters", "program"})
    return json.dumps(shared, sort_keys=True)


def _started(row: dict[str, Any]) -> bool:
    """Whether a study's training starts from weights of its owner's."""
    return bool(json.loads(row["header"])["program"]["started"])


def _text(bundle: Path) -> str:
    path = bundle / MANIFEST
    return path.read_text() if path.is_file() else ""


def _partial(place: Path) -> Path:
    # A member's name holds no dot, so no member's data can take this name.
    return place.with_name(place.name + ".partial")


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
