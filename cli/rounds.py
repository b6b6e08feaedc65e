"""Rounds at the terminal: the aggregator, and a hospital that joins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blindtune.cli import render
from blindtune.cli.options import PlainHttp, TokenFile, number
from blindtune.cli.tally import Tally
from blindtune.cli.trials import Trials, say_cost

if TYPE_CHECKING:
    from blindtune.federation.agreement import Agreement
    from blindtune.federation.hospital import Hospital
    from blindtune.federation.learner import Learner
    from blindtune.federation.search import SearchPlan
    from blindtune.federation.secagg.session import Policy
    from blindtune.federation.setup import OnImage, Outsourcing
    from blindtune.federation.trials import Search

PlanFile = Annotated[Path, typer.Argument(help="The plan, from blindtune federate plan.")]
EitherFile = Annotated[Path, typer.Argument(help="The plan of a study or a search, from federate plan.")]
RosterFile = Annotated[Path, typer.Option("--roster", help="The roster, compared by telephone.")]
StartFile = Annotated[Path | None, typer.Option(help="The plan's start; beside the plan by default.")]
Weights = Annotated[Path | None, typer.Option(help="The backbone's weights, for a head on scans.")]
Fewest = Annotated[int, typer.Option(help="Hospitals that a sum must have at least.", min=2)]
Colluding = Annotated[
    int | None, typer.Option(help="Hospitals that may side with the aggregator; under a third.", min=0)
]
Lines = Annotated[
    bool, typer.Option("--json", help="Print one JSON document a line: first where, then rounds.")
]


def serve(
    plan: EitherFile,
    roster: RosterFile,
    out: Annotated[Path, typer.Option(help="Where the study is kept; made if missing.")],
    certificate: Annotated[Path, typer.Option(help="This server's certificate with its chain (PEM).")],
    key: Annotated[Path, typer.Option(help="The certificate's key (PEM).")],
    start: StartFile = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8443,
    timeout: Annotated[
        float,
        typer.Option(
            help="Seconds that a hospital may take to answer, training included.", min=1, callback=number
        ),
    ] = 3600.0,
    gather: Annotated[
        float,
        typer.Option(help="Seconds to wait for all hospitals once enough are there.", min=0, callback=number),
    ] = 60.0,
    fewest: Fewest = 3,
    colluding: Colluding = None,
    json_: Lines = False,
) -> None:
    """Aggregate a study over the network: it sees sums and who took part, and sends no code.

    Rounds that fail are tried again when enough hospitals are there. Ctrl-C stops; the same command
    goes on with the next round. A search ends in OUT/best/plan.json, with the best values.
    """
    from blindtune.federation.members import Members, read
    from blindtune.federation.plans import START, read_either, read_start
    from blindtune.federation.search import SearchPlan
    from blindtune.federation.setup import save_model

    with _needs_flower():
        from blindtune.federation.flower.aggregator import aggregate, aggregate_search
        from blindtune.federation.flower.link import Tls

    agreed, members = read_either(plan), read(Members, roster)
    base = agreed.base if isinstance(agreed, SearchPlan) else agreed
    values = read_start(start or plan.with_name(START), base)
    policy = policy_of(base, len(members.members), fewest, colluding)
    shown = Tally(json_)
    if isinstance(agreed, SearchPlan):
        trials: list[Trials] = []

        def begin(real_port: int, search: Search) -> None:
            trials.append(Trials(agreed, search, json_))
            trials[0].where(sorted(members.roster.names), {}, address=f"{host}:{real_port}")
            shown.say(f"roster {members.roster.fingerprint}")

        aggregate_search(
            agreed,
            values,
            members,
            out,
            Tls(certificate, key),
            host=host,
            port=port,
            timeout=timeout,
            gather=gather,
            policy=policy,
            ready=begin,
            tried=lambda trial: trials[0].trial(trial),
            told=shown.say,
        )
        trials[0].end(values, out)
        return

    def ready(real_port: int, done: int) -> None:
        shown.where({"address": f"{host}:{real_port}", "plan": agreed.digest, "rounds_done": done})
        shown.say(f"roster {members.roster.fingerprint}")

    found = aggregate(
        agreed,
        values,
        members,
        out,
        Tls(certificate, key),
        host=host,
        port=port,
        timeout=timeout,
        gather=gather,
        policy=policy,
        ready=ready,
        done=lambda d: shown.round(d.round, d.seconds, d.sent, d.received, d.missing),
        told=shown.say,
    )
    save_model(agreed, found.values, found.totals, out / "model")
    shown.say(f"all rounds are done; the model is in {out / 'model'}")


def join(
    plan: EitherFile,
    address: Annotated[str, typer.Argument(help="The aggregator, as HOST:PORT.")],
    home: Annotated[Path, typer.Option(help="This hospital's keys, from blindtune federate init.")],
    roster: RosterFile,
    ca: Annotated[Path, typer.Option(help="Certificate that vouches for the aggregator's (PEM).")],
    data: Annotated[Path, typer.Option(help="Folder of scans, or an .npz of embeddings.")],
    labels: Annotated[Path | None, typer.Option(help="CSV of the scans: file,label[,patient,split].")] = None,
    weights: Weights = None,
    ledger: Annotated[Path | None, typer.Option(help="Privacy ledger, for a private plan.")] = None,
    server: Annotated[
        str | None, typer.Option(help="URL of this hospital's provider, for blind rounds.")
    ] = None,
    token_file: TokenFile = None,
    server_ca: Annotated[
        Path | None, typer.Option(help="Authorities (PEM) that vouch for the provider; else the system's.")
    ] = None,
    server_cert: Annotated[
        Path | None, typer.Option(help="Our certificate with its key (PEM), if the provider wants one.")
    ] = None,
    plain_http: PlainHttp = False,
    passphrase: Annotated[bool, typer.Option(help="Ask for the key's passphrase.")] = False,
    fewest: Fewest = 3,
    colluding: Colluding = None,
) -> None:
    """Take part in a study until Ctrl-C: train on request, and add what was learned to secure sums.

    Giving a plan approves it; requests under any other are refused. Only the code that is installed here
    runs. A lost connection is taken up again, for ever.
    """
    from blindtune.federation.hospital import opened
    from blindtune.federation.members import NODE, Members, read, read_node_key
    from blindtune.federation.plans import read_either
    from blindtune.federation.search import SearchPlan
    from blindtune.federation.setup import open_data

    with _needs_flower():
        from blindtune.federation.flower.fleet import Fleet
        from blindtune.federation.flower.node import take_part

    agreed, members = read_either(plan), read(Members, roster)
    base = agreed.base if isinstance(agreed, SearchPlan) else agreed
    fleet = Fleet(address, ca, read_node_key(home / NODE))
    locked = render.passphrase(ask=passphrase)
    shown = Tally(False)
    shown.say(f"plan {agreed.digest}")
    shown.say(f"roster {members.roster.fingerprint}")
    with ExitStack() as stack:
        stack.callback(fleet.close)
        provider = None
        if server:
            from blindtune.client.blind import HttpProvider
            from blindtune.client.remote import Remote

            token = render.token(token_file)
            remote = Remote(server, token, allow_plain_http=plain_http, ca=server_ca, client_cert=server_cert)
            provider = HttpProvider(stack.enter_context(remote))
        with images() as on_image:
            made = open_data(
                base, data, labels=labels, weights=weights, cache=home / "features", on_image=on_image
            )

        def outsourced(place: Path) -> Outsourcing | None:
            return (provider, place / "blind") if provider else None

        def learner(trial: Agreement, place: Path) -> Learner:
            return made(trial, place, outsourced(place))

        opening = opened(
            home,
            agreed,
            members.roster,
            learner if agreed is not base else made(base, home / "features", outsourced(home)),
            passphrase=locked,
            policy=policy_of(base, len(members.members), fewest, colluding),
            ledger=ledger,
        )
        here = stack.enter_context(opening)
        if isinstance(agreed, SearchPlan) and here.ledger:
            _say_cost(agreed, here, shown)
        take_part(here, agreed, fleet, shown.say)


def _say_cost(plan: SearchPlan, here: Hospital, shown: Tally) -> None:
    """What a search will cost this hospital's patients; refuses what the budget does not cover."""
    from blindtune.federation.spending import afford

    ledger = here.ledger
    assert ledger is not None
    cost = afford(plan, {here.name: ledger}, 0, range(plan.trials))[here.name]
    say_cost(shown, here.name, ledger.spent_epsilon, ledger.epsilon, cost.search, cost.training)


@contextmanager
def images() -> Iterator[OnImage]:
    """Progress over the images of a hospital."""
    with render.progress() as shown:
        task = shown.add_task("images", total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


@contextmanager
def _needs_flower() -> Iterator[None]:
    from blindtune.errors import MissingPackageError

    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{error.name} is not installed",
            remedy="Run pip install 'blindtune[federated]', with Python 3.11 or newer.",
        ) from error


def policy_of(agreed: Agreement, members: int, fewest: int, colluding: int | None) -> Policy:
    """The policy of hospitals that ask for so much.

    Raises:
        InputError: more hospitals than there are must be in every sum.
    """
    from blindtune.errors import InputError
    from blindtune.federation.secagg.session import Policy

    found = Policy(fewest, colluding)
    if agreed.secure and found.threshold(members) > members:
        raise InputError(
            f"{members} hospitals, and {found.threshold(members)} must be in every sum",
            where="members",
            remedy="Find more, or trust them more: --fewest, --colluding.",
        )
    return found
