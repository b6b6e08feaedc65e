"""The server in the foreground: one process for HTTP and the queue, one more for each training."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from blindtune.errors import InputError, RemoteError
from blindtune.files import exclusive
from blindtune.server.app import create_app
from blindtune.server.queue import Queue
from blindtune.server.store import Store
from blindtune.server.warm import warming

TOKEN = "BLINDTUNE_TOKEN"  # noqa: S105 - the name of a variable
SHORTEST_TOKEN = 16


def serve(
    data_dir: Path,
    host: str = "127.0.0.1",
    port: int = 8400,
    token: str | None = None,
    cores: int | None = None,
    insecure: bool = False,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; a running study then stays queued.

    Args:
        data_dir: made if absent.
        port: 0 for any free one.
        token: else from ``BLINDTUNE_TOKEN``, else from ``data_dir/token``, which is made at first.
        cores: threads of a training; all cores if None.
        insecure: accept test parameters without a security level.
        ready: called with the real port once the server answers.

    Raises:
        InputError: the directory cannot be used or is in use, or the token is too short.
        RemoteError: the address cannot be listened at.
    """
    store = Store(data_dir, insecure=insecure)
    cores = cores or os.cpu_count() or 1
    busy = InputError("another server uses this data directory", where=str(data_dir), remedy="Stop it first.")
    with exclusive(data_dir / "lock", busy), _listen(host, port) as listening:
        secret = token or os.environ.get(TOKEN) or read_token(data_dir)
        if len(secret) < SHORTEST_TOKEN or not secret.isascii():
            raise InputError(
                f"the token has fewer than {SHORTEST_TOKEN} characters, or others than ASCII",
                remedy=f"Leave {TOKEN} unset and one is made in the data directory.",
            )
        queue = Queue(store, cores)
        real_port = listening.getsockname()[1]

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            await run_in_threadpool(queue.start)
            if ready is not None:
                ready(real_port)
            yield
            await run_in_threadpool(queue.stop)

        app = create_app(store, secret, lifespan=lifespan)
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
        with warming(), suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def read_token(data_dir: Path) -> str:
    """The token of a data directory, made at first; readable by its owner only.

    Raises:
        InputError: it cannot be read or written.
    """
    path = data_dir / "token"
    try:
        with (
            suppress(FileExistsError),
            open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as f,
        ):
            f.write(secrets.token_urlsafe(32) + "\n")
        return path.read_text().strip()
    except OSError as error:
        raise InputError("the token file cannot be read", where=str(path)) from error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise RemoteError(
            "cannot listen at this address", where=f"{host}:{port}", remedy="Choose another port or host."
        ) from error
