"""The provider's command: ``serve``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def serve(
    data_dir: Annotated[Path, typer.Option(help="Where studies are kept; made if missing.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8400,
    cores: Annotated[
        int | None, typer.Option(help="Cores a training may use; all by default.", min=1)
    ] = None,
) -> None:
    """Run the training server. It never holds a secret key.

    The bearer token comes from BLINDTUNE_TOKEN; without it, DATA_DIR/token is made on the first start.
    """
    from blindtune.cli.render import console
    from blindtune.server.run import serve as run

    def ready(real_port: int) -> None:
        url = f"http://{host}:{real_port}"
        # On stdout, and alone on its line, for scripts that wait for it.
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        console().print(
            f"blindtune server on [bold]{url}[/bold]; token in {data_dir / 'token'} or the environment",
            soft_wrap=True,
        )

    run(data_dir, host=host, port=port, token=None, cores=cores, ready=ready)
    # It returns after Ctrl-C only, once a running study is queued again.
    raise KeyboardInterrupt
