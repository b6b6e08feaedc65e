"""Workers of one host: jobs are claimed here, and each is trained in a process of its own.

A process that dies is found at once and its job goes back to the queue, to go on from its last step. When
this process dies, its workers end themselves; whoever starts next on this host gives their jobs back.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from blindtune.errors import StorageError
from blindtune.files import write_secret
from blindtune.server.hosts import Hosts
from blindtune.server.leases import Claim
from blindtune.server.logs import ROOT
from blindtune.server.process import GIVEN_UP, STOPPED
from blindtune.server.service import Service
from blindtune.server.training import Executor

POLL = 0.2
"""Seconds between two looks at the queue and the workers."""

SETBACK = 5.0
"""Seconds before the pool goes on after the machine failed it."""

HEARD = 10.0
"""Seconds between two signs of life of this host."""

GIVES_WAY = 5
"""By how much trainings are nicer than the server."""

log = logging.getLogger(f"{ROOT}.pool")


@dataclass
class _Worker:
    claim: Claim
    process: subprocess.Popen[bytes]
    lost: bool = False


class Pool:
    """Trains the jobs of a service's database.

    Args:
        service: whose data directory no other pool uses.
        workers: jobs at a time.
        cores: threads of each; this machine's shared out if None.
        executor: where they train; see :class:`~blindtune.server.training.Training`.

    Raises:
        InputError: another host is there, and the database or the contents cannot be shared.
    """

    def __init__(
        self, service: Service, workers: int, cores: int | None, executor: Executor = "local"
    ) -> None:
        self._service, self._count, self._executor = service, workers, executor
        self._cores = cores or max(1, (os.cpu_count() or 1) // workers)
        self._host, self._hosts = host_of(service.data_dir), Hosts(service.database)
        self._hosts.join(self._host, service.given["blobs"])
        self._heard = time.monotonic()
        self._work = service.data_dir / "work"
        self._workers: list[_Worker] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="pool", daemon=True)

    def start(self) -> None:
        """Begin. What this host's workers were at when they last ended is queued again."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._service.leases.abandon_host(self._host)
        self._thread.start()

    def stop(self) -> None:
        """End the workers, give their jobs back, and return when that is done."""
        self._stopping.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stopping.wait(POLL):
            try:
                self._reap()
                self._fill()
                if time.monotonic() - self._heard > HEARD:
                    self._heard = time.monotonic()
                    self._hosts.beat(self._host)
                    self._end_stuck()
            except (OSError, StorageError) as error:
                # A full disk, a database that restarts, no memory for another process: it may pass.
                log.error("the pool could not go on", exc_info=error)
                self._stopping.wait(SETBACK)
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
            # Where the database is gone too, the leases lapse.
            with suppress(StorageError):
                self._service.leases.release(worker.claim)
        with suppress(StorageError):
            self._hosts.leave(self._host)
        shutil.rmtree(self._work, ignore_errors=True)

    def _reap(self) -> None:
        for worker in list(self._workers):
            code = worker.process.poll()
            if code is None:
                continue
            if code == STOPPED:
                self._service.leases.release(worker.claim)
            elif code not in (0, GIVEN_UP):
                log.error("a worker died", extra={"fields": {"job": worker.claim.id, "status": code}})
                self._service.leases.abandon(worker.claim)
            self._workers.remove(worker)
            shutil.rmtree(self._place(worker.claim), ignore_errors=True)

    def _end_stuck(self) -> None:
        """Kill workers that lost their claims and do not end themselves: stopped ones hold a place."""
        for worker in self._workers:
            held = self._service.leases.held(worker.claim)
            # Whoever finished a moment ago is on its way out.
            if worker.lost and not held:
                worker.process.kill()
            worker.lost = not held

    def _fill(self) -> None:
        leases = self._service.leases
        while len(self._workers) < self._count and leases.waiting():
            claim = leases.claim(self._host, self._cores)
            if claim is None:
                return
            try:
                self._workers.append(_Worker(claim, self._start(claim)))
            except OSError:
                leases.release(claim)
                raise

    def _start(self, claim: Claim) -> subprocess.Popen[bytes]:
        given = {
            "service": self._service.given,
            "claim": asdict(claim),
            "work": str(self._place(claim)),
            "executor": self._executor,
            "parent": os.getpid(),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "blindtune.server.process"],
            stdin=subprocess.PIPE,
            # A session of its own: Ctrl-C is for this process, which then stops its workers in order.
            start_new_session=True,
        )
        _give_way(process.pid)
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(json.dumps(given).encode())
        return process

    def _place(self, claim: Claim) -> Path:
        return self._work / claim.worker.rsplit("/", 1)[-1]


def _give_way(pid: int) -> None:
    """Whoever asks the server waits for no training."""
    os.setpriority(os.PRIO_PROCESS, pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + GIVES_WAY))
    # Where the kernel weighs sessions against each other, niceness counts within one alone.
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(GIVES_WAY))


def host_of(data_dir: Path) -> str:
    """The name under which this data directory's workers claim jobs, made at first."""
    path = data_dir / "host"
    with suppress(FileExistsError):
        write_secret(path, secrets.token_hex(8).encode())
    return path.read_text()
