"""The operator's commands on a server's tenants and tokens: ``tokens create``, ``list`` and ``revoke``.

They work on the database itself, beside a running server or without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blindtune.cli import render
from blindtune.cli.options import Json

if TYPE_CHECKING:
    from blindtune.server.tenants import Tenants

app = typer.Typer(help="Make, list and revoke the tokens of a server.", no_args_is_help=True)

DataDir = Annotated[Path | None, typer.Option(help="The server's data directory.")]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database", help="The server's database, if it has its own.")
]


@app.command()
def create(
    data_dir: DataDir = None,
    database: DatabaseUrl = None,
    tenant: Annotated[
        str | None, typer.Option(help="Whose token; made if there is none of this name.")
    ] = None,
    operator: Annotated[
        bool, typer.Option("--operator", help="A token that sees all tenants' states.")
    ] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="To look and fetch, not to submit.")] = False,
    label: Annotated[str, typer.Option(help="A remark, such as who has it.")] = "",
    days: Annotated[float | None, typer.Option(help="Days until it lapses; else never.", min=0.001)] = None,
    max_gb: Annotated[float | None, typer.Option(help="What the tenant may keep.", min=0.001)] = None,
    max_jobs: Annotated[
        int | None, typer.Option(help="Jobs that the tenant may have queued or running.", min=1)
    ] = None,
    max_cores: Annotated[int | None, typer.Option(help="Cores of all its running jobs.", min=1)] = None,
    json_: Json = False,
) -> None:
    """Make a token; its text is shown this once. Quotas given are the tenant's from now on."""
    from blindtune.errors import InputError
    from blindtune.server.tenants import TENANT_SCOPES

    if operator == (tenant is not None):
        raise InputError("whose token", remedy="Give --tenant NAME or --operator, one of them.")
    most = None if max_gb is None else int(max_gb * 1e9)
    limits = {"max_bytes": most, "max_jobs": max_jobs, "max_cores": max_cores}
    given = {name: value for name, value in limits.items() if value is not None}
    if operator and (given or read_only):
        raise InputError("an operator has no quotas, and reads only", remedy="Leave those options out.")
    with _tenants(data_dir, database) as tenants:
        owner = None if tenant is None else tenants.make(tenant)
        if owner is not None and given:
            tenants.limit(owner, given)
        scopes = ("operator",) if operator else ("read",) if read_only else TENANT_SCOPES
        identifier, text = tenants.issue(owner, scopes, label=label, days=days)
    told = {"token": text, "id": identifier, "tenant": tenant, "scopes": " ".join(scopes)}
    render.tell("Made; the token is not shown again", told, json_)


@app.command("list")
def list_(data_dir: DataDir = None, database: DatabaseUrl = None, json_: Json = False) -> None:
    """Tokens, without their texts; the newest first."""
    import time

    with _tenants(data_dir, database) as tenants:
        names = tenants.names()
        rows = [{**row, "tenant": names.get(row["tenant"])} for row in tenants.tokens()]
    if json_:
        render.print_json({"tokens": rows})
        return
    for row in rows:
        lapsed = row["expires"] is not None and row["expires"] <= time.time()
        state = "revoked" if row["revoked"] else "lapsed" if lapsed else "valid"
        owner = row["tenant"] or "(operator)"
        typer.echo(f"{row['id']:<16}  {owner:<20}  {row['scopes']:<12}  {state:<8}  {row['label']}")


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(help="The token's identifier, from tokens list.")],
    data_dir: DataDir = None,
    database: DatabaseUrl = None,
    json_: Json = False,
) -> None:
    """Let a token in no more, from the next request on."""
    from blindtune.errors import InputError

    with _tenants(data_dir, database) as tenants:
        if not tenants.revoke(token):
            raise InputError("no such token", where=token[:40], remedy="See blindtune tokens list.")
    render.tell("Revoked", {"id": token}, json_)


@contextmanager
def _tenants(data_dir: Path | None, database: str | None) -> Iterator[Tenants]:
    from blindtune.cli.render import make_directory
    from blindtune.errors import InputError
    from blindtune.server.database import Database
    from blindtune.server.tenants import Tenants

    if (data_dir is None) == (database is None):
        raise InputError("no server's database", remedy="Give --data-dir or --database, one of them.")
    if data_dir is not None:
        make_directory(data_dir)
        data_dir.chmod(0o700)
    opened = Database(str(database)) if data_dir is None else Database.beside(data_dir)
    try:
        yield Tenants(opened)
    finally:
        opened.close()
