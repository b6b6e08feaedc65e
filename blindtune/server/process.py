"""The process that trains one claimed job: ``python -m blindtune.server.process``, started by the pool.

What to do comes on its standard input, so that no address with a password is seen among the arguments. It
renews its lease and tells how the job stands twice a second, and ends when the claim is lost, when the
process that started it is gone, or at once on SIGTERM; what it kept with the last step stays.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import psutil

from blindtune.errors import BlindtuneError, StorageError
from blindtune.server import logs
from blindtune.server.leases import LEASE, Claim, Leases
from blindtune.server.refreshing import Waits
from blindtune.server.service import Service
from blindtune.server.training import ClaimLost, Pulse, Training

BEAT = 0.5
"""Seconds between two signs of life."""

GIVEN_UP = 3
"""Exit status of a process whose claim is lost, or whose parent is gone."""

UNTOLD = 4
"""Of one that the storage or the cluster failed: the job is to go back to the queue."""

STOPPED = 143
"""Of one that was told to stop, as systemd tells all processes of a service at once."""

log = logging.getLogger(f"{logs.ROOT}.worker")


class Heart(Pulse):
    """Beats beside the training, and ends the process when it is to train no longer.

    Args:
        parent: the process that started this one.
    """

    def __init__(self, leases: Leases, claim: Claim, parent: int) -> None:
        super().__init__()
        self._leases, self._claim, self._parent = leases, claim, parent
        self._process, self._stopping = psutil.Process(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="heart", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more, once the last beat is over."""
        self._stopping.set()
        self._thread.join()

    def _loop(self) -> None:
        heard = time.monotonic()
        while not self._stopping.wait(BEAT):
            self.memory = self._process.memory_info().rss
            self.peak = max(self.peak, self.memory)
            if os.getppid() != self._parent:
                _end(GIVEN_UP)
            try:
                held = self._leases.beat(self._claim, asdict(self.progress) if self.progress else None)
                heard = time.monotonic()
            except StorageError:
                # It may pass, but not for longer than others believe in this process.
                held = time.monotonic() - heard < LEASE
            if not held:
                _end(GIVEN_UP)


def main() -> int:
    """Train one job; the exit status is 0 if the database says what became of it."""
    given = json.load(sys.stdin)
    # At once, as kill -9 would: an exception could come up inside a compiler, which then prints it.
    signal.signal(signal.SIGTERM, lambda *_: _end(STOPPED))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure()
    claim, work = Claim(**given["claim"]), Path(given["work"])
    service = Service.open(**given["service"])
    heart = Heart(service.leases, claim, given["parent"])
    heart.start()
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        Training(service, claim, work, heart, given["executor"]).run()
    except ClaimLost:
        return GIVEN_UP
    except Waits as waits:
        heart.stop()
        try:
            service.leases.wait(claim, waits.what, waits.remedy)
        except StorageError:
            return UNTOLD
    except Exception as error:
        if isinstance(error, StorageError) and not error.full:
            # It may pass: the next worker goes on from the last step.
            log.error("a training was broken off", exc_info=error, extra={"fields": {"job": claim.id}})
            return UNTOLD
        what, remedy = _told(error)
        log.error("a training failed", exc_info=error, extra={"fields": {"job": claim.id}})
        try:
            service.leases.fail(claim, what, remedy)
        except StorageError:
            return UNTOLD
    finally:
        heart.stop()
        shutil.rmtree(work, ignore_errors=True)
    return 0


def _told(error: Exception) -> tuple[str, str]:
    """Why a training failed, and what to do; of what is unexpected the kind alone."""
    if isinstance(error, BlindtuneError):
        return error.what, error.remedy
    if isinstance(error, MemoryError):
        return "the training process ran out of memory", "Use a larger machine."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the server's disk is full", "Ask its operator for room, then start it again: it goes on."
    return f"the training process failed ({type(error).__name__})", "Start it again."


def _end(status: int) -> NoReturn:
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
