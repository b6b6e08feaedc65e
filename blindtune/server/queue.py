"""One study at a time, first come first served, each in a worker process that this thread supervises."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import suppress

from blindtune.server.store import Store

POLL = 0.2
"""Seconds between two looks at the store and the worker."""

SETBACK = 5.0
"""Seconds before the queue goes on after the machine failed it."""

GRACE = 10.0
"""Seconds a worker has to end after SIGTERM."""

log = logging.getLogger("blindtune.server")


class Queue:
    """Takes queued studies from the store and trains them; a cancelled one's worker is stopped.

    Args:
        cores: threads of each training.
    """

    def __init__(self, store: Store, cores: int) -> None:
        self._store, self._cores = store, cores
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="queue", daemon=True)

    def start(self) -> None:
        """Begin; studies that ran when the server last ended are queued again."""
        self._store.recover()
        self._thread.start()

    def stop(self) -> None:
        """End the running worker, leave its study queued, and return when both are so."""
        self._stopping.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stopping.wait(POLL):
            try:
                study = self._store.states.claim()
                if study is not None:
                    self._train(study)
            except (OSError, sqlite3.Error) as error:
                # A full disk, or no memory for another process: it may pass.
                log.error("the queue could not go on: %s", type(error).__name__)
                self._stopping.wait(SETBACK)
                with suppress(sqlite3.Error):
                    self._store.states.requeue_all()

    def _train(self, study: str) -> None:
        command = [
            sys.executable,
            "-m",
            "blindtune.server.worker",
            str(self._store.data_dir.resolve()),
            study,
        ]
        command += ["--cores", str(self._cores)] + ["--insecure"] * self._store.insecure
        # A session of its own: Ctrl-C is for the server, which then stops the worker in order.
        worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            code = self._supervise(study, worker)
        finally:
            if worker.poll() is None:
                _end(worker)
        if self._stopping.is_set():
            self._store.states.requeue(study)
        elif code == -signal.SIGKILL:
            self._store.states.fail(
                study, "the training process was killed, probably for want of memory", "Use a larger machine."
            )
        else:
            self._store.states.fail(study, "the training process ended before it was done", "Start it again.")

    def _supervise(self, study: str, worker: subprocess.Popen[bytes]) -> int:
        """Wait for the worker, or end it once its study is not to run any more."""
        while True:
            try:
                return worker.wait(POLL)
            except subprocess.TimeoutExpired:
                row = self._store.states.study(study)
                if self._stopping.is_set() or row is None or row["state"] != "running":
                    return _end(worker)


def _end(worker: subprocess.Popen[bytes]) -> int:
    worker.terminate()
    try:
        return worker.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(worker.pid, signal.SIGKILL)
        return worker.wait()
