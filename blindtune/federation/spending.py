"""What a private search costs a site's patients, told before it is begun."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from blindtune.errors import PrivacyError
from blindtune.federation.search import SearchPlan
from blindtune.privacy.account import Release, epsilon
from blindtune.privacy.ledger import Ledger


@dataclass(frozen=True)
class Spending:
    """Epsilon that a site will have spent, at most.

    Attributes:
        search: when the search is over.
        training: with a training like a trial after it.
    """

    search: float
    training: float


def afford(
    plan: SearchPlan, ledgers: Mapping[str, Ledger], waiting: int, begun: Collection[int]
) -> dict[str, Spending]:
    """What is left of a search will cost each site.

    Args:
        waiting: trials of which nothing was charged yet.
        begun: trials of which something may have been.

    Raises:
        PrivacyError: it would exceed a site's budget: nothing is to be begun.
    """
    found = {}
    for name, ledger in ledgers.items():
        after = [*ledger.spent(), *outstanding(plan, ledger, waiting, begun)]
        both = (epsilon(r, ledger.delta) for r in (after, [*after, *plan.releases()]))
        found[name] = Spending(*both)
        if found[name].search > ledger.epsilon:
            raise PrivacyError(
                f"the search would take epsilon to {found[name].search:.3g} of {ledger.epsilon:g}, "
                f"{ledger.spent_epsilon:.3g} is spent",
                where=name,
                remedy="Nothing was begun: plan fewer trials or rounds, or more noise.",
            )
    return found


def outstanding(plan: SearchPlan, ledger: Ledger, waiting: int, begun: Collection[int]) -> list[Release]:
    """What trials will still release, at most; what was charged to the ledger under their names is done."""
    charged: Counter[tuple[str, float, float]] = Counter()
    for _, purpose, r in ledger.purposes():
        charged[purpose.split(", ")[0], r.noise, r.sampling] += r.count
    found = []
    for r in plan.releases():
        count = r.count * waiting
        for number in begun:
            count += max(0, r.count - charged[plan.name(number), r.noise, r.sampling])
        if count:
            found.append(Release(r.noise, r.sampling, count))
    return found
