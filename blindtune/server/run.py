"""The server in the foreground: one process for HTTP, which starts one more for each training."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from blindtune.errors import InputError, RemoteError, StorageError
from blindtune.files import exclusive, write_secret
from blindtune.server import logs
from blindtune.server.api.app import create_app
from blindtune.server.logs import ROOT
from blindtune.server.pool import Pool
from blindtune.server.service import Service
from blindtune.server.tenants import DEFAULT, TENANT_SCOPES
from blindtune.server.training import Executor
from blindtune.server.warm import warming
from blindtune.server.watch import Watched
from blindtune.wire.tls import Certificate, check_exposure

TOKEN = "BLINDTUNE_TOKEN"  # noqa: S105 - the name of a variable
SHORTEST_TOKEN = 16
SWEEP = 3600.0
"""Seconds between two sweeps of what is no longer wanted."""

log = logging.getLogger(ROOT)


def serve(
    data_dir: Path,
    host: str = "127.0.0.1",
    port: int = 8400,
    token: str | None = None,
    workers: int = 1,
    cores: int | None = None,
    executor: Executor = "local",
    database: str | None = None,
    blobs: str | None = None,
    keep_days: float | None = None,
    certificate: Certificate | None = None,
    insecure_http: bool = False,
    log_level: str = "warning",
    insecure: bool = False,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; running jobs then go back to the queue, with the steps they have done.

    Args:
        data_dir: made if absent.
        port: 0 for any free one.
        token: of the tenant ``default``; else from ``BLINDTUNE_TOKEN``. Without either the first start
            makes one and writes it to ``data_dir/token``.
        workers: trainings at a time on this host.
        cores: threads of each; all cores shared out if None.
        executor: where they train; see :class:`~blindtune.server.training.Training`.
        database: URL of a PostgreSQL database; SQLite in the data directory if None.
        blobs: an address of fsspec's; a directory in the data directory if None.
        keep_days: studies that nothing was done with for so long are deleted; never if None.
        certificate: for TLS; SIGHUP has it read once more. Plain HTTP if None.
        insecure_http: plain HTTP may go beyond this machine, since something else encrypts.
        log_level: debug, info, warning or error; lines go to stderr.
        insecure: accept test parameters without a security level.
        ready: called with the real port once the server answers.

    Raises:
        InputError: the directory cannot be used or is in use, the token is too short, or plain HTTP would go
            beyond this machine.
        StorageError: the database cannot be reached.
        RemoteError: the address cannot be listened at.
    """
    check_exposure(host, certificate is not None, insecure_http)
    secret = token or os.environ.get(TOKEN)
    if secret is not None and (len(secret) < SHORTEST_TOKEN or not secret.isascii()):
        raise InputError(
            f"the token has fewer than {SHORTEST_TOKEN} characters, or others than ASCII",
            remedy=f"Leave {TOKEN} unset and one is made in the data directory.",
        )
    service = Service.open(data_dir, database, blobs, insecure=insecure)
    busy = InputError("another server uses this data directory", where=str(data_dir), remedy="Stop it first.")
    with closing(service), exclusive(data_dir / "lock", busy), _listen(host, port) as listening:
        logs.configure(log_level)
        let_in(service, secret)
        pool = Pool(service, workers, cores, executor)
        real_port = listening.getsockname()[1]

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            await run_in_threadpool(pool.start)
            sweeping = asyncio.create_task(_sweep(service, keep_days))
            if certificate is not None:
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _renew, certificate)
            if ready is not None:
                ready(real_port)
            yield
            sweeping.cancel()
            await run_in_threadpool(pool.stop)

        app = create_app(
            service,
            lifespan=lifespan,
            stopping=lambda: server.should_exit,
            elsewhere=executor == "ray" and "RAY_ADDRESS" in os.environ,
        )
        config = uvicorn.Config(
            Watched(app, app.state.metrics),
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            # The other parser reads heads of any length.
            http="h11",
            ssl_context_factory=(lambda *_: certificate.context) if certificate else None,
            # Connections; requests are bounded before, with an answer that says more (server.watch).
            limit_concurrency=4000,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(config)
        with warming(), suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def let_in(service: Service, secret: str | None) -> None:
    """See to it that somebody is let in: by the token given, or by one that the first start makes.

    Raises:
        InputError: the file with the first token cannot be written.
    """
    tenants, file = service.tenants, service.data_dir / "token"
    if secret is not None:
        tenants.set_given(tenants.make(DEFAULT), secret)
        return
    if (default := tenants.find(DEFAULT)) is not None:
        tenants.set_given(default, None)
    now = time.time()
    if any(t["revoked"] is None and (t["expires"] or now + 1) > now for t in tenants.tokens()):
        return
    _, text = tenants.issue(tenants.make(DEFAULT), TENANT_SCOPES, label="made at the first start")
    try:
        file.unlink(missing_ok=True)
        write_secret(file, f"{text}\n".encode())
    except OSError as error:
        raise InputError("the token file cannot be written", where=str(file)) from error


def _renew(certificate: Certificate) -> None:
    try:
        certificate.reload()
        log.info("the certificate was read once more")
    except InputError as error:
        log.error("the certificate from before stays: %s", error.what)


async def _sweep(service: Service, keep_days: float | None) -> None:
    while True:
        try:
            await run_in_threadpool(service.sweep, keep_days)
        except (OSError, StorageError) as error:
            # The next one may find the disk or the database better.
            log.error("a sweep failed", exc_info=error)
        await asyncio.sleep(SWEEP)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise RemoteError(
            "cannot listen at this address", where=f"{host}:{port}", remedy="Choose another port or host."
        ) from error
