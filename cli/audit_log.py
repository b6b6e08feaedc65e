"""The operator's commands on a server's audit log: ``audit-log show`` and ``audit-log verify``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blindtune.cli import render
from blindtune.cli.options import Json

if TYPE_CHECKING:
    from sqlalchemy import Connection

app = typer.Typer(help="Read a server's audit log, and check that nobody changed it.", no_args_is_help=True)

DataDir = Annotated[Path | None, typer.Option(help="The server's data directory.")]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database", help="The server's database, if it has its own.")
]


@app.command()
def verify(
    data_dir: DataDir = None,
    database: DatabaseUrl = None,
    noted: Annotated[
        str | None, typer.Option(help="NUMBER:HASH that an earlier verify printed, kept elsewhere.")
    ] = None,
    json_: Json = False,
) -> None:
    """Follow the chain of hashes from the first entry to the last, which is printed to be noted elsewhere."""
    from blindtune.server import audit

    point = audit.Point.parse(noted) if noted else None
    with _reading(data_dir, database) as connection:
        last = audit.verify(connection, point)
    if json_:
        render.print_json({"entries": last.number, "last": str(last), "noted_entry_found": point is not None})
        return
    # Not in a table, which a narrow terminal cuts off: this is to be copied.
    found = "; the noted entry is among them" if point else ""
    typer.echo(f"The audit log is whole: {last.number} entries{found}. To be noted elsewhere:\n{last}")


@app.command()
def show(
    data_dir: DataDir = None,
    database: DatabaseUrl = None,
    after: Annotated[int, typer.Option(help="Only entries past this number.", min=0)] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print the entries: number, time, who, what, to which object."""
    import json
    from datetime import datetime, timezone

    from blindtune.server import audit

    with _reading(data_dir, database) as connection:
        for entry in audit.entries(connection, after):
            if json_:
                typer.echo(json.dumps(entry._asdict()))
                continue
            at = datetime.fromtimestamp(entry.time, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            typer.echo(f"{entry.number:>8}  {at}  {entry.actor:<20}  {entry.action:<18}  {entry.object}")


@contextmanager
def _reading(data_dir: Path | None, database: str | None) -> Iterator[Connection]:
    from blindtune.errors import InputError
    from blindtune.server.database import Database

    if (data_dir is None) == (database is None):
        raise InputError("no server's database", remedy="Give --data-dir or --database, one of them.")
    if data_dir is not None and not (data_dir / "state.sqlite").is_file():
        # Opening would make one.
        raise InputError("no server's data here", where=str(data_dir), remedy="Give what serve was given.")
    opened = Database(str(database)) if data_dir is None else Database.beside(data_dir)
    try:
        with opened.reading() as connection:
            yield connection
    finally:
        opened.close()
