"""The provider's command for further hosts: ``worker``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blindtune.cli.options import Cores, Executor, ExecutorName, Workers


def worker(
    data_dir: Annotated[Path, typer.Option(help="A directory for work in hand; made if missing.")],
    database: Annotated[str, typer.Option(help="URL of the server's PostgreSQL database.")],
    blobs: Annotated[str, typer.Option(help="Address of the server's blob storage, as fsspec has it.")],
    workers: Workers = 1,
    cores: Cores = None,
    executor: Executor = ExecutorName.local,
) -> None:
    """Train a server's jobs on this host too. It never holds a secret key."""
    from blindtune.cli.render import console
    from blindtune.server.lending import lend

    console().print("blindtune worker: waiting for jobs")
    lend(data_dir, database, blobs, workers=workers, cores=cores, executor=executor.value)
    # It returns after Ctrl-C only, once running jobs are queued again.
    raise KeyboardInterrupt
