"""The aggregator of a study over a network, from its first round to its last."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flwr.serverapp import Grid

from blindtune.errors import FederationError, InputError
from blindtune.federation.agreement import Agreement
from blindtune.federation.channel import Channel
from blindtune.federation.coordinator import Coordinator, Round
from blindtune.federation.flower.apps import most_bytes, server_app
from blindtune.federation.flower.channel import FlowerChannel
from blindtune.federation.flower.link import Link, Tls, link
from blindtune.federation.learner import Values
from blindtune.federation.members import Members
from blindtune.federation.search import SearchPlan
from blindtune.federation.secagg.session import Policy
from blindtune.federation.trials import Search, Trial
from blindtune.files import exclusive

LOOK = 0.2
"""Seconds between two looks for hospitals that come."""
TRIES = 3
"""Of a round that fails with enough hospitals there, before the trial of a search has failed."""
LONGEST_PAUSE = 60.0
"""Seconds before a round that failed is tried again, at most."""


@dataclass(frozen=True)
class Done:
    """A round that is done.

    Attributes:
        round: what is known of it.
        seconds: since the one before, or since the start.
        sent, received: bytes of messages meanwhile.
        missing: members that were not there and gave no reason.
    """

    round: Round
    seconds: float
    sent: int
    received: int
    missing: list[str]


def aggregate(
    plan: Agreement,
    start: Values,
    members: Members,
    directory: Path,
    tls: Tls,
    *,
    host: str,
    port: int,
    timeout: float,
    gather: float,
    policy: Policy | None = None,
    ready: Callable[[int, int], None] = lambda port, rounds: None,
    done: Callable[[Done], None] = lambda done: None,
    told: Callable[[str], None] = lambda text: None,
) -> Coordinator:
    """Serve a study until its rounds are done; rounds that fail are tried again when sites are there.

    Args:
        start: the initial model.
        directory: of the study; one that holds the same study is resumed.
        timeout: seconds that a site may take to answer, its training included.
        gather: seconds that the first round waits for all members, once enough are there.
        ready: gets the port, and the rounds that were done before.
        done: gets every round.
        told: gets what a person may want to know.

    Raises:
        InputError: certificates that cannot be used, or another aggregator in this directory.
        RemoteError: the address cannot be listened at.
        FederationError: another study in this directory, or a start that is not the plan's.
    """
    found: list[Coordinator] = []

    def work(channel: FlowerChannel, linked: Link, enough: int) -> None:
        coordinator = Coordinator(plan, members.roster, channel, directory, start, policy)
        found.append(coordinator)
        ready(linked.port, len(coordinator.progress.rounds))
        _gather(linked, len(members.roster), enough, gather)
        _rounds(coordinator, linked, enough, done, told)
        coordinator.publish()

    _serve(plan, members, directory, tls, (host, port), timeout, policy, work)
    return found[0]


def aggregate_search(
    plan: SearchPlan,
    start: Values,
    members: Members,
    directory: Path,
    tls: Tls,
    *,
    host: str,
    port: int,
    timeout: float,
    gather: float,
    policy: Policy | None = None,
    ready: Callable[[int, Search], None] = lambda port, search: None,
    tried: Callable[[Trial], None] = lambda trial: None,
    told: Callable[[str], None] = lambda text: None,
) -> Search:
    """Serve a search until its trials are done; see :func:`aggregate`.

    A round that fails several times over, with enough sites there, ends its trial, and not the search.

    Args:
        ready: gets the port, and the search with the trials that were done before.
        tried: gets every trial.

    Raises:
        MissingPackageError: Optuna is not installed.
    """
    search = Search(plan, directory / "search")

    def work(channel: FlowerChannel, linked: Link, enough: int) -> None:
        ready(linked.port, search)
        if search.left:
            _gather(linked, len(members.roster), enough, gather)

        def train(
            number: int, agreed: Agreement, wrapped: Callable[[Channel], Channel], place: Path
        ) -> Coordinator:
            coordinator = Coordinator(agreed, members.roster, wrapped(channel), place, start, policy)
            _rounds(coordinator, linked, enough, lambda _: None, told, TRIES)
            return coordinator

        for trial in search.run(train):
            tried(trial)

    _serve(plan, members, directory, tls, (host, port), timeout, policy, work)
    return search


def _serve(
    plan: Agreement | SearchPlan,
    members: Members,
    directory: Path,
    tls: Tls,
    address: tuple[str, int],
    timeout: float,
    policy: Policy | None,
    work: Callable[[FlowerChannel, Link, int], None],
) -> None:
    """Have work done over a channel to the members; it gets how many of them are enough."""
    base = plan if isinstance(plan, Agreement) else plan.base
    roster, limit = members.roster, most_bytes(base)
    enough = (policy or Policy()).threshold(len(roster)) if base.secure else 1
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    busy = InputError(
        "another aggregator is at work here", where=directory.name, remedy="Stop it first, or choose another."
    )
    with (
        exclusive(directory / "lock", busy),
        link(members.doors, *address, tls, limit) as linked,
    ):

        def run(grid: Grid) -> None:
            work(FlowerChannel(grid, linked.nodes, roster, plan.digest, limit, timeout), linked, enough)

        server_app(run)(linked.grid, linked.context)


def _gather(linked: Link, everyone: int, enough: int, longest: float) -> None:
    """Wait for enough members, and a while longer for all."""
    _wait(linked, enough)
    end = time.monotonic() + longest
    while len(linked.online) < everyone and time.monotonic() < end:
        time.sleep(LOOK)


def _wait(linked: Link, enough: int) -> None:
    while len(linked.online) < enough:
        time.sleep(LOOK)


def _rounds(
    coordinator: Coordinator,
    linked: Link,
    enough: int,
    done: Callable[[Done], None],
    told: Callable[[str], None],
    tries: float = math.inf,
) -> None:
    names, pause, failed = set(linked.nodes), 1.0, 0
    since, before = time.monotonic(), linked.traffic
    while True:
        _wait(linked, enough)
        try:
            for round_ in coordinator.run():
                now, after = time.monotonic(), linked.traffic
                missing = sorted(names - set(round_.sites) - round_.excluded.keys())
                sent, received = after[0] - before[0], after[1] - before[1]
                done(Done(round_, now - since, sent, received, missing))
                since, before, pause, failed = now, after, 1.0, 0
            return
        except FederationError as error:
            failed += 1
            if failed >= tries:
                raise
            told(f"{error.what}; trying again in {pause:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
