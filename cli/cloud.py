"""The provider's command: ``serve``."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blindtune.cli.options import Cores, Executor, ExecutorName, Workers

if TYPE_CHECKING:
    from blindtune.wire.tls import Certificate


class LogLevel(str, Enum):
    """How grave a line has to be."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def serve(
    data_dir: Annotated[Path, typer.Option(help="Where studies are kept; made if missing.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8400,
    workers: Workers = 1,
    cores: Cores = None,
    executor: Executor = ExecutorName.local,
    database: Annotated[
        str | None, typer.Option(help="URL of a PostgreSQL database; else SQLite in DATA_DIR.")
    ] = None,
    blobs: Annotated[
        str | None, typer.Option(help="Address of blob storage, as fsspec has it; else DATA_DIR/blobs.")
    ] = None,
    keep_days: Annotated[
        float | None, typer.Option(help="Delete studies that nothing was done with for so long.", min=0.01)
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate chain (PEM): serve https. Read again on SIGHUP.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's key (PEM).")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Only clients with a certificate from this authority (PEM).")
    ] = None,
    insecure_http: Annotated[
        bool, typer.Option("--insecure-http", help="Plain http beyond this machine: a proxy encrypts.")
    ] = False,
    log_level: Annotated[
        LogLevel, typer.Option(help="What is logged, as JSON lines on stderr.")
    ] = LogLevel.info,
) -> None:
    """Run the training server. It never holds a secret key.

    Who may use it: blindtune tokens. For one tenant alone the token can come from BLINDTUNE_TOKEN; without
    any, the first start makes one in DATA_DIR/token.
    """
    from blindtune.cli.render import console
    from blindtune.server.run import serve as run

    certificate = _certificate(tls_cert, tls_key, tls_client_ca)
    scheme = "https" if certificate else "http"

    def ready(real_port: int) -> None:
        url = f"{scheme}://{host}:{real_port}"
        # On stdout, and alone on its line, for scripts that wait for it.
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        made = data_dir / "token"
        where = f"token in {made}" if made.exists() else "tokens: blindtune tokens, or the environment"
        console().print(f"blindtune server on [bold]{url}[/bold]; {where}", soft_wrap=True)

    run(
        data_dir,
        host=host,
        port=port,
        workers=workers,
        cores=cores,
        executor=executor.value,
        database=database,
        blobs=blobs,
        keep_days=keep_days,
        certificate=certificate,
        insecure_http=insecure_http,
        log_level=log_level.value,
        ready=ready,
    )
    # It returns after Ctrl-C only, once running jobs are queued again.
    raise KeyboardInterrupt


def _certificate(certificate: Path | None, key: Path | None, client_ca: Path | None) -> Certificate | None:
    from blindtune.errors import InputError
    from blindtune.wire.tls import Certificate

    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise InputError("half of what TLS needs", remedy="Give --tls-cert and --tls-key together.")
    return Certificate(certificate, key, client_ca)
