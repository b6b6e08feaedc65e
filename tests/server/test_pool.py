"""Worker processes: killed, stopped, cancelled, orphaned, and their jobs taken up again."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from blindtune.errors import BundleError
from blindtune.server import pool as module
from blindtune.server.process import _told
from tests.server.placing import Place, processes, until


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "data")
    yield made
    made.service.close()


def test_a_killed_worker_repeats_a_step_at_most_and_the_head_is_the_same(
    slow: Any, place: Place, tmp_path: Path
) -> None:
    south = place.service.tenants.make("south")
    undisturbed, disturbed = place.start(slow, south), place.start(slow)
    kill_at, step = [2, 5], 0
    with place.working():
        place.done(undisturbed)
        while place.job(disturbed).state in ("queued", "running"):
            assert place.job(disturbed).step >= step
            step = place.job(disturbed).step
            if kill_at and step >= kill_at[0]:
                kill_at.pop(0)
                for process in until(processes):
                    process.kill()
            time.sleep(0.02)
        place.done(disturbed)
    assert not kill_at
    heads = [place.head(slow, tmp_path / (t or "north"), t) / "parts" / "weights" for t in (south, None)]
    assert heads[0].read_bytes() == heads[1].read_bytes()
    assert len(place.kept(slow)) == 1
    assert not (place.service.data_dir / "work").exists()


def test_workers_that_are_told_to_stop_have_not_failed(slow: Any, place: Place) -> None:
    job = place.start(slow)
    with place.working():
        place.reached(job, 1)
        # As systemd does it: everybody is told at once.
        for process in until(processes):
            process.terminate()
        until(lambda: not processes() or place.job(job).state == "queued")
        place.reached(job, 2)
    assert not processes()
    left = place.job(job)
    assert (left.state, left.attempts <= 1) == ("queued", True)


def test_a_cancelled_job_makes_room_and_two_run_at_a_time(slow: Any, study: Any, place: Place) -> None:
    first = place.start(slow)
    with place.working():
        until(lambda: place.job(first).progress)
        second = place.start(study)
        assert place.job(second).state == "queued"
        place.service.jobs.cancel(first)
        until(lambda: place.job(second).state == "running")
    assert place.job(first).state == "cancelled"
    assert place.job(second).state == "queued"
    place.service.jobs.retry(first)
    with place.working(2):
        until(lambda: len(processes()) == 2)
        place.done(second)


def test_a_stopped_worker_whose_job_is_cancelled_holds_its_place_no_longer(
    slow: Any, study: Any, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARD", 0.3)
    job = place.start(slow)
    with place.working():
        place.reached(job, 1)
        (stopped,) = until(processes)
        assert stopped.nice() == min(19, psutil.Process().nice() + module.GIVES_WAY)
        stopped.suspend()
        place.service.jobs.cancel(job)
        place.done(place.start(study))
        assert not stopped.is_running()


POOL = """
import sys, time
from blindtune.server.pool import Pool
from blindtune.server.service import Service
Pool(Service.open(sys.argv[1], insecure=True), 1, 1).start()
time.sleep(600)
"""


def test_workers_whose_pool_is_killed_end_and_their_job_is_taken_up_at_once(slow: Any, place: Place) -> None:
    job = place.start(slow)
    with subprocess.Popen([sys.executable, "-c", POOL, str(place.service.data_dir)]) as pool:
        try:
            place.reached(job, 1)
            orphans = until(lambda: processes(psutil.Process(pool.pid)))
        finally:
            pool.kill()
    psutil.wait_procs(orphans, timeout=240)
    assert not any(process.is_running() for process in orphans)
    left = place.job(job)
    assert left.state == "running"
    # The lease has not lapsed, but the next pool of this directory knows that nobody holds it.
    with place.working():
        until(lambda: place.job(job).step > left.step)


def test_a_passing_failure_of_the_machine_leaves_the_pool_going(
    study: Any, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETBACK", 0)
    popen, failures = module.subprocess.Popen, [OSError(errno.ENOMEM, "Cannot allocate memory")]

    def start(*given: Any, **named: Any) -> Any:
        if failures:
            raise failures.pop()
        return popen(*given, **named)

    monkeypatch.setattr(module.subprocess, "Popen", start)
    job = place.start(study)
    with place.working():
        place.done(job)
    assert place.job(job).attempts == 1


def test_why_a_training_failed_is_told_without_what_it_saw() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/data/secret")
    assert _told(full)[0] == "the server's disk is full"
    assert _told(MemoryError())[0] == "the training process ran out of memory"
    assert _told(BundleError("part x was altered", remedy="Copy it.")) == ("part x was altered", "Copy it.")
    assert _told(ValueError("/data/secret"))[0] == "the training process failed (ValueError)"
