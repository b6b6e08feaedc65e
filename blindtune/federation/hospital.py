"""A hospital's home directory in federations: its keys, its journal, and its part in each study.

identity.key, node.key, card.json    of :mod:`.members`
journal.sqlite                       what it did in secure sums, for as long as the hospital lives
studies/NAME-DIGEST/                 what is ready to be summed in one study
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blindtune.errors import FederationError, InputError
from blindtune.federation.agreement import Agreement
from blindtune.federation.identity import Identity, Roster
from blindtune.federation.learner import Learner
from blindtune.federation.members import CARD, IDENTITY, Card, read
from blindtune.federation.search import SearchPlan
from blindtune.federation.secagg.journal import Journal
from blindtune.federation.secagg.member import Member
from blindtune.federation.secagg.session import Policy
from blindtune.federation.site import Site, check_privacy
from blindtune.federation.trials import SearchSite
from blindtune.files import exclusive
from blindtune.privacy.ledger import Ledger


@dataclass(frozen=True)
class Hospital:
    """One hospital in one study or search, in this process alone.

    Attributes:
        name: on the roster.
        identity: its signing key.
        site: answers the coordinator.
        ledger: of its patients' privacy, for a private plan.
    """

    name: str
    identity: Identity
    site: Site | SearchSite
    ledger: Ledger | None


@contextmanager
def opened(
    home: Path,
    plan: Agreement | SearchPlan,
    roster: Roster,
    learner: Learner | Callable[[Agreement, Path], Learner],
    *,
    passphrase: str | None = None,
    policy: Policy | None = None,
    ledger: Path | None = None,
) -> Iterator[Hospital]:
    """A hospital at work.

    Args:
        home: that ``blindtune federate init`` made.
        learner: for a search what makes one for each trial, in a directory of its own.
        ledger: of its patients' privacy, for a private plan.

    Raises:
        InputError: no home, or another process is at work in it.
        FederationError: a roster without this hospital's key, or a plan that its policy does not allow.
        KeyFileError: an identity that is locked or damaged.
        PrivacyError: no ledger there.
    """
    name = read(Card, home / CARD).name
    identity = Identity.read(home / IDENTITY, passphrase)
    if name not in roster.names:
        raise FederationError(
            "this hospital is not on the roster", where=name, remedy="Send its card to the roster's keeper."
        )
    busy = InputError(
        "another process is at work here", where=home.name, remedy="Stop it first: a hospital joins once."
    )
    with exclusive(home / "lock", busy):
        journal = Journal(home / "journal.sqlite")
        spent = Ledger(ledger) if ledger else None
        try:
            member = Member(name, identity, roster, journal, policy)

            def site(agreed: Agreement) -> Site:
                place = home / "studies" / f"{agreed.study}-{agreed.digest[:16]}"
                found = learner(agreed, place) if callable(learner) else learner
                return Site(member, agreed, found, place, spent)

            if isinstance(plan, Agreement):
                yield Hospital(name, identity, site(plan), spent)
                return
            if plan.base.privacy:
                # Trials come later: what they would all be refused for is said now.
                check_privacy(plan.base.privacy, member, spent)
            yield Hospital(name, identity, SearchSite(plan, site), spent)
        finally:
            journal.close()
            if spent is not None:
                spent.close()
