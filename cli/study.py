"""Studies under a joint key: made, joined and approved. The rest is in :mod:`blindtune.cli.joint`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blindtune.cli import joint, render
from blindtune.cli import terms as agreed
from blindtune.cli.joint import Directory, Passphrase, Wait, held_up, session, until
from blindtune.cli.options import Ca, ClientCert, Degree, Json, Memory, PlainHttp, Security, TokenFile, number
from blindtune.cli.place import SERVER, given_or_kept, keep, remote

if TYPE_CHECKING:
    from blindtune.kernels.training import Progress

app = typer.Typer(
    help="Train with other hospitals under a key that no one holds; the head opens when all agree.",
    no_args_is_help=True,
)
Home = Annotated[Path, typer.Option(help="This hospital's keys, from blindtune federate init.")]
ServerUrl = Annotated[str | None, typer.Option("--server", help="The server's URL; else BLINDTUNE_SERVER.")]


@app.command()
def create(
    terms: Annotated[Path, typer.Argument(help="File for the terms.")],
    roster: Annotated[Path, typer.Option(help="The members, from blindtune federate roster.")],
    features: Annotated[int, typer.Option(help="Features of a row.", min=1, max=1 << 14)],
    class_: Annotated[list[str], typer.Option("--class", help="A class's name, in order; repeat.")],
    rate: Annotated[
        list[float] | None, typer.Option(help="Learning rate of a step; repeat for each step.", min=0.001)
    ] = None,
    directions: Annotated[
        int | None, typer.Option(help="Whitened directions; 63, or as many as there are features.", min=1)
    ] = None,
    rows: Annotated[int, typer.Option(help="Most training rows of a hospital.", min=1, max=1 << 17)] = 2048,
    degree: Degree = 7,
    interval: Annotated[
        float, typer.Option(help="Largest |logit| that the polynomial is for.", min=1)
    ] = 12.0,
    epsilon: Annotated[float, typer.Option(help="Shrinkage of the whitening.", min=0, callback=number)] = 0.1,
    reach: Annotated[
        float, typer.Option(help="Length that a row is cut to in sums.", min=0.001, callback=number)
    ] = 64.0,
    sums_epsilon: Annotated[
        float | None,
        typer.Option(
            help="Add noise to counts and moments, with this epsilon by patient.",
            min=0.01,
            max=100,
            callback=number,
        ),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(help="Its delta; a tenth of one over --rows.", min=1e-10, max=1, callback=number),
    ] = None,
    results: Annotated[int, typer.Option(help="Heads opened in the study's whole life.", min=1)] = 1,
    security: Security = 128,
    memory: Memory = 16.0,
    home: Annotated[
        Path | None, typer.Option(help="This hospital's keys, to offer the terms with --server.")
    ] = None,
    server: ServerUrl = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    client_cert: ClientCert = None,
    plain_http: PlainHttp = False,
    passphrase: Passphrase = False,
    json_: Json = False,
) -> None:
    """Plan a study, measure its error, write its terms and, with --server, offer them to the members.

    The error is measured by a rehearsal under keys that are thrown away; it takes as long as the training.
    """
    from blindtune.errors import InputError
    from blindtune.federation.identity import Identity
    from blindtune.federation.members import CARD, IDENTITY, Card, Members, read
    from blindtune.federation.threshold import offer
    from blindtune.federation.threshold.draft import Draft
    from blindtune.files import whole_file, writing

    if server and not home:
        raise InputError("nobody signs the offer", where="--server", remedy="Give --home as well.")
    if terms.exists():
        raise InputError("it exists already", where=terms.name, remedy="Choose another file.")
    members = read(Members, roster).roster
    identity = name = None
    if home:
        name = read(Card, home / CARD).name
        identity = Identity.read(home / IDENTITY, render.passphrase(ask=passphrase))
    task = agreed.task_of(
        features=features,
        directions=min(features, 63) if directions is None else directions,
        rows=rows,
        degree=degree,
        interval=interval,
        epsilon=epsilon,
        reach=reach,
        privacy=agreed.privacy_of(sums_epsilon, delta, rows),
        classes=class_,
        rates=rate or [4.0, 4.0, 4.0],
    )
    draft = Draft.planned(members, task, security=security, memory_limit=int(memory * 2**30))
    with _rehearsal(json_) as on_progress:
        length = draft.rehearsed(on_progress)
    made = draft.terms(length, results)
    with writing("the terms", terms.name), whole_file(terms) as partial:
        partial.write_text(made.model_dump_json(indent=1) + "\n")
    if server and identity and name:
        with remote(given_or_kept(None, server, ca, client_cert), token_file, plain_http) as there:
            offer.post(there.mailbox(made.study), made, name, identity)
    agreed.tell(made, json_, file=str(terms), offered=bool(server))


@app.command()
def join(
    directory: Annotated[Path, typer.Argument(help="Directory for this study; made if missing.")],
    home: Home,
    terms: Annotated[Path | None, typer.Option(help="The terms' file, from whoever made the study.")] = None,
    study: Annotated[str | None, typer.Option(help="Or its identifier, to fetch its terms.")] = None,
    server: ServerUrl = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    client_cert: ClientCert = None,
    plain_http: PlainHttp = False,
    json_: Json = False,
) -> None:
    """Look at what is offered: who, what, under which keys, and who will see what. Nothing is said yet."""
    from blindtune.errors import InputError
    from blindtune.federation.threshold import offer
    from blindtune.federation.threshold.station import Station
    from blindtune.federation.threshold.terms import Terms
    from blindtune.wire.message import MAX_TERMS

    if (terms is None) == (study is None):
        raise InputError("which study", where="join", remedy="Give --terms FILE or --study ID.")
    place = given_or_kept(None, server, ca, client_cert)
    sender = None
    if terms is not None:
        try:
            with terms.open("rb") as file:
                offered = Terms.parse(file.read(MAX_TERMS + 1))
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", where=terms.name) from None
    else:
        assert study is not None
        with remote(place, token_file, plain_http) as there:
            found = offer.fetch(there.mailbox(study), study)
        if found is None:
            raise InputError(
                "nothing is offered there", where="--study", remedy="Ask whoever made the study."
            )
        offered, sender = found.terms, found.sender
    render.make_directory(directory)
    station = Station.join(directory, offered, home)
    keep(station.private / SERVER, place)
    agreed.tell(
        offered,
        json_,
        this_hospital=station.name,
        offered_by=sender,
        next=f"blindtune study approve {directory}",
    )


@app.command()
def rehearse(directory: Directory, json_: Json = False) -> None:
    """Measure the error that openings have to hide, before approving terms that someone else measured.

    It takes as long as the training. Terms whose bound is too close to what is found here are refused.
    """
    from blindtune.federation.threshold.draft import error_of
    from blindtune.federation.threshold.station import Station

    terms = Station(directory).offered
    with _rehearsal(json_) as on_progress:
        found = error_of(terms, on_progress)
    told = {"study": terms.study, "agreed": terms.length, "found": found}
    render.tell("Rehearsal", {**told, "margin": round(terms.length / found, 2)}, json_)


@app.command()
def approve(
    directory: Directory,
    roster: Annotated[
        Path | None, typer.Option(help="This hospital's own roster: other members are refused.")
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Privacy ledger of the patients, for sums under noise; remembered.")
    ] = None,
    wait: Wait = True,
    token_file: TokenFile = None,
    plain_http: PlainHttp = False,
    passphrase: Passphrase = False,
    json_: Json = False,
) -> None:
    """Approve exactly these terms, and make the joint keys with the others. Run it again to go on."""
    from blindtune.errors import FederationError
    from blindtune.federation.members import Members, read

    with session(directory, token_file, plain_http, passphrase) as here:
        offered = here.offered
        if roster is not None and read(Members, roster).roster.keys != offered.roster.keys:
            raise FederationError(
                "the members are not those of this hospital's roster",
                where="terms",
                remedy="Compare rosters by telephone.",
            )
        here.station.approve(offered, ledger)
        party = here.party()
        waiting = until(party.advance, wait, json_)
        told: dict[str, Any] = {"study": offered.study, "terms": offered.fingerprint}
        told["privacy"] = agreed.account(offered, json_)
        if waiting.absent:
            told |= held_up(waiting)
        else:
            told |= {"state": "keys made", "fingerprint": party.transcript.fingerprint}
            told["next"] = f"compare the fingerprint; blindtune study contribute {directory} EMBEDDINGS"
    render.tell("Approved", told, json_)


app.command()(joint.contribute)
app.command("open")(joint.open_)
app.command()(joint.status)
app.command()(joint.refuse)
app.command()(joint.delete)


@contextmanager
def _rehearsal(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Progress of a rehearsal."""
    with render.progress(quiet) as shown:
        bar = shown.add_task("rehearsal: keys", total=None)

        def told(at: Progress) -> None:
            shown.update(bar, description=f"rehearsal: step {at.step}", total=at.total, completed=at.done)

        yield told
