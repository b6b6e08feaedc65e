"""A hospital's home directory in federations: its keys, its journal, and its part in each study.

identity.key, node.key, card.json    of :mod:`.members`
journal.sqlite                       what it did in secure sums, for as long as the hospital lives
studies/NAME-DIGEST/                 what is ready to be summed in one study
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blindtune.errors import FederationError, InputError
from blindtune.federation.agreement import Agreement
from blindtune.federation.identity import Identity, Roster
from blindtune.federation.learner import Learner
from blindtune.federation.members import CARD, IDENTITY, Card, read
from blindtune.federation.secagg.journal import Journal
from blindtune.federation.secagg.member import Member
from blindtune.federation.secagg.session import Policy
from blindtune.federation.site import Site
from blindtune.files import exclusive
from blindtune.privacy.ledger import Ledger


@dataclass(frozen=True)
class Hospital:
    """One hospital in one study, in this process alone.

    Attributes:
        name: on the roster.
        identity: its signing key.
        site: answers the coordinator.
    """

    name: str
    identity: Identity
    site: Site


@contextmanager
def opened(
    home: Path,
    plan: Agreement,
    roster: Roster,
    learner: Learner,
    *,
    passphrase: str | None = None,
    policy: Policy | None = None,
    ledger: Path | None = None,
) -> Iterator[Hospital]:
    """A hospital at work.

    Args:
        home: that ``blindtune federate init`` made.
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
            place = home / "studies" / f"{plan.study}-{plan.digest[:16]}"
            yield Hospital(name, identity, Site(member, plan, learner, place, spent))
        finally:
            journal.close()
            if spent is not None:
                spent.close()
