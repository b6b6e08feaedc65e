"""Workers on a host of their own, for the jobs of a server elsewhere."""

from __future__ import annotations

import signal
import threading
from contextlib import closing
from pathlib import Path

from blindtune.errors import InputError
from blindtune.files import exclusive
from blindtune.server.pool import Pool
from blindtune.server.service import Service
from blindtune.server.training import Executor
from blindtune.server.warm import warming


def lend(
    data_dir: Path,
    database: str,
    blobs: str,
    *,
    workers: int = 1,
    cores: int | None = None,
    executor: Executor = "local",
    insecure: bool = False,
) -> None:
    """Train jobs until SIGINT or SIGTERM; running jobs then go back to the queue. In the main thread only.

    Args:
        data_dir: for what is only needed while it trains; made if absent, and no other process's.
        database: URL of the servers' PostgreSQL database.
        blobs: the servers' blob storage, an address of fsspec's.
        workers: trainings at a time on this host.
        cores: threads of each; all cores shared out if None.
        executor: where they train; see :class:`~blindtune.server.training.Training`.

    Raises:
        InputError: the database or the storage is one that hosts cannot share, or the directory is in use.
        StorageError: the database cannot be reached.
    """
    if database.startswith("sqlite"):
        raise InputError(
            "SQLite serves one host alone",
            remedy="Give servers and workers the same PostgreSQL database by --database.",
        )
    busy = InputError("another process uses this directory", where=str(data_dir), remedy="Stop it first.")
    service, stopping = Service.open(data_dir, database, blobs, insecure=insecure), threading.Event()
    with closing(service), exclusive(data_dir / "lock", busy), warming():
        pool = Pool(service, workers, cores, executor)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        pool.start()
        stopping.wait()
        pool.stop()
