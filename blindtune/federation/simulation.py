"""A whole federation in one process: coordinator and sites as over a network, without the network."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from blindtune.errors import InputError
from blindtune.federation.agreement import Agreement
from blindtune.federation.channel import LocalChannel
from blindtune.federation.coordinator import Coordinator
from blindtune.federation.hospital import opened
from blindtune.federation.identity import NAME
from blindtune.federation.learner import Learner, Values
from blindtune.federation.members import CARD, Card, Members, make, read
from blindtune.federation.secagg.session import Policy
from blindtune.files import whole_file
from blindtune.tables import read_csv


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
    books = ledgers or {}
    homes = {name: directory / "sites" / name for name in learners}
    roster = Members(members=[_card(home) for home in homes.values()]).roster
    with ExitStack() as stack:
        handlers = {
            name: stack.enter_context(
                opened(home, plan, roster, learners[name], policy=policy, ledger=books.get(name))
            ).site.handle
            for name, home in homes.items()
        }
        yield Coordinator(plan, roster, LocalChannel(handlers), directory / "study", start, policy)


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
