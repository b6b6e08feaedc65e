"""A disk that runs full, a small tmpfs here, during upload and during training."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress

import httpx
import numpy as np
import psutil
import pytest
from sqlalchemy import text

from blindtune.client.remote import Remote
from blindtune.errors import RemoteError
from blindtune.server import audit
from blindtune.wire.bundle import file_sha256
from tests.server.conftest import run_server

SIZE = 96 << 20
FULL = "disk is full"


class Disk:
    """A file system of a few megabytes."""

    def __init__(self, place):
        self.place, self._filler = place, place / "filler"

    def fill(self, left=0):
        """Leave so many bytes of room."""
        free = os.statvfs(self.place).f_bavail * os.statvfs(self.place).f_frsize
        # Unbuffered; others may take some of it meanwhile.
        with self._filler.open("ab", buffering=0) as file, suppress(OSError):
            for _ in range(max(0, free - left) // 4096):
                file.write(bytes(4096))

    def free(self):
        """Make room again."""
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a tmpfs")
    yield Disk(place)
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def until(condition, seconds=240):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return found


def check(running):
    """Everything that the database speaks of is there and whole."""
    service = running.service
    with service.database.reading() as db:
        assert db.execute(text("PRAGMA integrity_check")).scalar() == "ok"
        audit.verify(db)
        for tenant, sha256, size in db.execute(text("SELECT tenant, sha256, size FROM blobs")):
            file = service.contents.path(tenant, sha256)
            assert (file.stat().st_size, file_sha256(file)) == (size, sha256)


def test_an_upload_is_refused_and_goes_on_after_room_is_made(disk, study):
    bundles = study.bundles()
    with run_server(disk.place / "data", training=False) as running:
        disk.fill(left=sum(p.stat().st_size for p in bundles[1].rglob("*") if p.is_file()) // 2)
        with Remote(running.url, running.token, insecure=True) as remote:
            with pytest.raises(RemoteError, match=FULL):
                remote.submit(bundles)
            # What only looks is answered all the same.
            assert httpx.get(f"{running.url}/v1/ready").status_code == 200
            check(running)
            disk.free()
            remote.submit(bundles)
            assert remote.status(study.id).state == "ready"
        check(running)


def test_a_study_can_be_deleted_to_make_room(disk, study):
    with run_server(disk.place / "data", training=False) as running:
        # As the first sweep does.
        running.service.database.hold_room()
        with Remote(running.url, running.token, insecure=True) as remote:
            remote.submit(study.bundles())
            disk.fill()
            remote.delete(study.id)
        check(running)
        assert not [p for p in (disk.place / "data" / "blobs").rglob("*") if p.is_file()]


def workers():
    """The processes that train."""
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.Error):
            if "blindtune.server.process" in process.cmdline():
                found.append(process)
    return found


def test_a_training_waits_or_fails_with_the_reason_and_goes_on_from_its_last_step(disk, slow, tmp_path):
    with (
        run_server(disk.place / "data") as running,
        Remote(running.url, running.token, insecure=True) as remote,
    ):
        remote.submit(slow.bundles())
        remote.start(slow.id)
        until(lambda: (found := remote.status(slow.id)).progress and found.progress.step >= 2)
        disk.fill()
        until(lambda: not workers())
        # A failure that cannot be written down is none: the job waits.
        state = remote.status(slow.id)
        assert state.state in ("running", "queued") or FULL in state.error
        check(running)
        disk.free()
        if state.state == "failed":
            remote.start(slow.id)
        assert remote.wait(slow.id).state == "done"
        step = remote.timing(slow.id)["phases"][-1]["step"]
        assert step == slow.steps
        remote.fetch(slow.id, tmp_path / "head", key=slow.key.key_id)
        check(running)
    found = slow.decrypt(tmp_path / "head")
    assert np.abs(found - slow.dense()).max() < 1e-2 * np.abs(slow.dense()).max()
