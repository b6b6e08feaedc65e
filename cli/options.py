"""Options that several commands share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


def number(value: float | None) -> float | None:
    """Refuse "nan", which some versions of typer take for a number of any size.

    Raises:
        typer.BadParameter: as said.
    """
    if value is not None and value != value:
        raise typer.BadParameter("not a number")
    return value


class ExecutorName(str, Enum):
    """Where a server trains."""

    local = "local"
    ray = "ray"


Executor = Annotated[
    ExecutorName, typer.Option(help="ray spreads each training over the Ray cluster at RAY_ADDRESS.")
]
Workers = Annotated[int, typer.Option(help="Trainings at a time.", min=1)]
Cores = Annotated[
    int | None, typer.Option(help="Cores a training may use; all shared out by default.", min=1)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Study = Annotated[Path, typer.Argument(help="The study's directory, from blindtune encrypt.")]
Steps = Annotated[int | None, typer.Option(help="Gradient steps; the head's own.", min=1, max=32)]
Degree = Annotated[int, typer.Option(help="Degree of the residual polynomial: 1, 3, 5 or 7.")]
Security = Annotated[int, typer.Option(help="Bits of security: 128, 192 or 256.")]
Memory = Annotated[
    float, typer.Option(help="GiB of memory that the server may use.", min=0.1, callback=number)
]
MachineFile = Annotated[
    Path | None,
    typer.Option(
        "--machine", help="The server's machine file, from blindtune bench, for the predicted time."
    ),
]
GridText = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        help="Settings side by side: rate=3,6 or shrinkage=0,0.01 or weights=balanced,equal; repeatable.",
    ),
]
HeadName = Annotated[str, typer.Option("--head", help="auto, logistic, one-vs-rest, softmax or ridge.")]
PlainHttp = Annotated[bool, typer.Option(help="Allow http to another machine: the token is readable.")]
Server = Annotated[str | None, typer.Option(help="The server's URL; remembered by submit.")]
TokenFile = Annotated[Path | None, typer.Option(help="File with the server's token; else BLINDTUNE_TOKEN.")]
Ca = Annotated[
    Path | None,
    typer.Option(help="Authorities (PEM) to trust instead of the system's; remembered by submit."),
]
ClientCert = Annotated[
    Path | None, typer.Option(help="Our certificate with its key (PEM), if asked for; remembered by submit.")
]
