"""Federated studies at the terminal: keys, the roster, the plan, certificates for trials."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blindtune.cli import render, rounds, simulation
from blindtune.cli.options import Json

app = typer.Typer(help="Train with other hospitals; data stays where it is.", no_args_is_help=True)


@app.command()
def init(
    home: Annotated[Path, typer.Argument(help="Directory for this hospital's keys; made if missing.")],
    name: Annotated[str, typer.Option(help="Its name on rosters: lower-case letters, digits, hyphens.")],
    passphrase: Annotated[
        bool, typer.Option(help="Ask for a passphrase to lock the key that signs.")
    ] = False,
    json_: Json = False,
) -> None:
    """Make a hospital's keys, once for all studies, and the card that goes to the roster's keeper.

    The card holds public keys only. The keys and the journal that will lie beside them stay for as long
    as the hospital takes part: a restored backup of the journal could be talked into answering twice.
    """
    from blindtune.federation.members import CARD, make

    locked = render.passphrase(ask=passphrase, confirm=True)
    render.make_directory(home)
    card = make(home, name, locked)
    told = {"name": card.name, "public key": card.identity, "card": str(home / CARD)}
    render.tell("Hospital", told, json_)


@app.command()
def roster(
    file: Annotated[Path, typer.Argument(help="The roster.")],
    cards: Annotated[
        list[Path] | None, typer.Argument(help="Cards of all hospitals; without them the roster is shown.")
    ] = None,
    json_: Json = False,
) -> None:
    """Make a roster of cards, or show one, with the fingerprint that hospitals compare by telephone."""
    from blindtune.federation.members import Card, Members, read, write

    members = Members(members=[read(Card, card) for card in cards]) if cards else read(Members, file)
    # Both are checked before anything is written.
    found, _ = members.roster, members.doors
    if cards:
        write(file, members)
    if json_:
        told = {"fingerprint": found.fingerprint, "members": {n: k.hex() for n, k in found.keys.items()}}
        render.print_json(told)
        return
    render.rows(f"Fingerprint {found.fingerprint}", [(name, found.keys[name].hex()) for name in found.names])


@app.command()
def plan(
    file: Annotated[Path, typer.Argument(help="A plan; with --out a draft: one without start.")],
    out: Annotated[Path | None, typer.Option(help="Directory for plan.json and start.safetensors.")] = None,
    weights: Annotated[Path | None, typer.Option(help="The network's pretrained weights.")] = None,
    space: Annotated[
        Path | None, typer.Option(help="A search's space: with --out, search.json around a plan.")
    ] = None,
    trials: simulation.TrialCount = 20,
    objective: simulation.Objective = "mcc",
    json_: Json = False,
) -> None:
    """Check a plan and show its digest, or complete a draft: count the model's values and fix its start.

    plan.json goes to every hospital, which approves it by giving it to join; the start goes to the
    aggregator. So does search.json, for a search.
    """
    from blindtune.errors import InputError
    from blindtune.federation.agreement import Agreement
    from blindtune.federation.plans import (
        START,
        complete,
        read_bytes,
        read_either,
        read_plan,
        read_start,
        write_plan,
    )
    from blindtune.federation.search import SearchPlan

    found: Agreement | SearchPlan
    if space and not out:
        raise InputError("no place for the search", where="--space", remedy="Give --out as well.")
    if space and out:
        base = read_plan(file)
        found = SearchPlan.of(base, read_bytes(space), trials, objective)
        start = read_start(file.with_name(START), base)
        render.make_directory(out)
        write_plan(found, start, out)
    elif out:
        render.make_directory(out)
        found = complete(file, out, weights)
    else:
        found = read_either(file)
    if json_:
        render.print_json({"digest": found.digest, "plan": found.model_dump()})
        return
    told = found.model_dump(exclude={"start"})
    parts = {k: v if isinstance(v, dict) else {"": v} for k, v in told.items() if v is not None}
    render.rows(
        f"Plan {found.digest}",
        [(f"{k} {n}".strip(), str(v)) for k, part in parts.items() for n, v in part.items()],
    )


@app.command()
def certificates(
    out: Annotated[Path, typer.Argument(help="Directory for ca.pem, server.pem and server.key.")],
    host: Annotated[list[str] | None, typer.Option(help="The aggregator's name or address.")] = None,
) -> None:
    """Make a throw-away authority and an aggregator's certificate of 30 days, for trials only."""
    from blindtune.federation.flower.certificates import make

    render.make_directory(out)
    make(out, host or ["localhost", "127.0.0.1"])
    render.console().print(f"for trials, 30 days: {out}/ca.pem goes to hospitals, the others stay here")


app.command()(rounds.serve)
app.command()(rounds.join)
app.command()(simulation.run)
app.command()(simulation.search)
