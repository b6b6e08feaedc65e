"""A whole federation in one process: coordinator and sites as over a network, without the network."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from blindtune.errors import InputError
from blindtune.federation.agreement import Agreement
from blindtune.federation.channel import Channel, LocalChannel
from blindtune.federation.coordinator import Coordinator, Round
from blindtune.federation.hospital import Hospital, opened
from blindtune.federation.identity import NAME, Roster
from blindtune.federation.learner import Learner, Values
from blindtune.federation.members import CARD, Card, Members, make, read
from blindtune.federation.search import SearchPlan
from blindtune.federation.secagg.session import Policy
from blindtune.federation.trials import Search, Trial
from blindtune.files import whole_file
from blindtune.privacy.ledger import Ledger
from blindtune.tables import read_csv

OnRound = Callable[[int, Round], None]
"""Called with the number of a trial, and one of its rounds that is done."""


@contextmanager
def simulated(
    plan: Agreement,
    start: Values,
    learners: Mapping[str, Learner],
    directory: Path,
    policy: Policy | None = None,
    ledgers: Mapping[str, Path] | None = None,
) -> Iterator[Coordinator]:
    """A coordinator that reaches sites in this process.

    Args:
        start: the initial model.
        learners: by name of the site.
        directory: coordinator and sites are kept below; one that holds the same study is resumed.
        ledgers: of the sites' patients, by site, for a private plan.

    Raises:
        FederationError: see :class:`~blindtune.federation.coordinator.Coordinator`.
    """
    with _together(plan, learners, directory, policy, ledgers) as (roster, hospitals):
        channel = _channel(hospitals)
        yield Coordinator(plan, roster, channel, directory / "study", start, policy)


@contextmanager
def simulated_search(
    plan: SearchPlan,
    start: Values,
    makers: Mapping[str, Callable[[Agreement, Path], Learner]],
    directory: Path,
    policy: Policy | None = None,
    ledgers: Mapping[str, Path] | None = None,
) -> Iterator[tuple[Search, dict[str, Ledger], Callable[[OnRound], Iterator[Trial]]]]:
    """A search over sites in this process.

    Args:
        makers: what makes a site's learner for a trial, in a directory of its own; by name of the site.
        start, directory, policy, ledgers: see :func:`simulated`.

    Yields:
        the search, the sites' ledgers, and what runs its trials, which gets the number of a trial and each
        of its rounds.

    Raises:
        FederationError: see :class:`~blindtune.federation.trials.Search`.
    """
    with _together(plan, makers, directory, policy, ledgers) as (roster, hospitals):
        channel, search = _channel(hospitals), Search(plan, directory / "search")

        def trials(on_round: OnRound) -> Iterator[Trial]:
            def train(
                number: int, agreed: Agreement, wrapped: Callable[[Channel], Channel], place: Path
            ) -> Coordinator:
                coordinator = Coordinator(agreed, roster, wrapped(channel), place, start, policy)
                for done in coordinator.run():
                    on_round(number, done)
                return coordinator

            return search.run(train)

        yield search, {h.name: h.ledger for h in hospitals if h.ledger}, trials


@contextmanager
def _together(
    plan: Agreement | SearchPlan,
    learners: Mapping[str, Any],
    directory: Path,
    policy: Policy | None,
    ledgers: Mapping[str, Path] | None,
) -> Iterator[tuple[Roster, list[Hospital]]]:
    """Hospitals below a directory, all at work."""
    homes = {name: directory / "sites" / name for name in learners}
    roster = Members(members=[_card(home) for home in homes.values()]).roster
    with ExitStack() as stack:
        yield (
            roster,
            [
                stack.enter_context(
                    opened(
                        home, plan, roster, learners[name], policy=policy, ledger=(ledgers or {}).get(name)
                    )
                )
                for name, home in homes.items()
            ],
        )


def _channel(hospitals: Sequence[Hospital]) -> LocalChannel:
    return LocalChannel({h.name: h.site.handle for h in hospitals})


def split_labels(labels: Path, column: str, directory: Path) -> dict[str, Path]:
    """One table of labels a site, from a table of all with a column that names the site.

    Returns:
        the new tables by site, ``directory/SITE/labels.csv``.

    Raises:
        InputError: no such column, a site's name that is not plain, or fewer than two sites.
    """
    table = read_csv(labels, "Write a line a file, with its site.")
    at = table.required(column, (column.lower(),), "Name the column that tells the sites apart.")
    rows: dict[str, list[tuple[str, ...]]] = {}
    for line in table.lines:
        rows.setdefault(table.cell(line, at, column), []).append(line.cells)
    if len(rows) < 2 or not all(NAME.fullmatch(site) for site in rows):
        raise InputError(
            f"the column {column} does not tell sites apart",
            where=labels.name,
            remedy="It needs two names or more, of up to 32 lower-case letters, digits and hyphens.",
        )
    found = {}
    for site, lines in rows.items():
        place = directory / site
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        found[site] = place / "labels.csv"
        with whole_file(found[site]) as partial, partial.open("w", newline="") as file:
            csv.writer(file).writerows([table.header, *lines])
    return found


def _card(home: Path) -> Card:
    """A site's card; its keys are made at first."""
    if (home / CARD).is_file():
        return read(Card, home / CARD)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return make(home, home.name)
