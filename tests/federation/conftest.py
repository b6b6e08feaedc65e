"""Sites with features of their own, and a coordinator that reaches them in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindtune.federation.agreement import Agreement, HeadModel, Local, Privacy
from blindtune.federation.channel import LocalChannel
from blindtune.federation.coordinator import Coordinator
from blindtune.federation.heads import Cases, HeadLearner
from blindtune.federation.identity import Identity, Roster
from blindtune.federation.learner import fingerprint
from blindtune.federation.secagg.journal import Journal
from blindtune.federation.secagg.member import Member
from blindtune.federation.secagg.session import Policy
from blindtune.federation.site import Site
from blindtune.privacy.ledger import Ledger

CLASSES, FEATURES = 3, 5
ROWS = (40, 25, 60, 30, 20)


def draw(n: int, seed: int) -> Cases:
    """Three overlapping classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    centres = np.random.default_rng(7).normal(size=(CLASSES, FEATURES))
    features = centres[labels] + rng.normal(size=(n, FEATURES))
    return Cases(features.astype(np.float32), labels)


class Study:
    """A federated study in a directory."""

    def __init__(self, directory: Path, sites: int = 4, policy: Policy | None = None, **plan: Any) -> None:
        self.directory, self.policy = directory, policy or Policy()
        self.budget = plan.pop("budget", (100.0, 1e-4))
        self.local = Local(**plan.pop("local", {}))
        self.names = [f"site-{i}" for i in range(sites)]
        self.model = HeadModel(features=FEATURES, **plan.pop("model", {}))
        if "privacy" in plan:
            patients = {n: ROWS[i] for i, n in enumerate(self.names)}
            plan["privacy"] = Privacy(patients=patients, **plan["privacy"])
        self.start = np.zeros(CLASSES * ((self.model.directions or FEATURES) + 1), np.float32)
        told = {"rounds": 3, "classes": ["a", "b", "c"], **plan}
        self.agreement = Agreement(
            study="study",
            model=self.model,
            parameters=len(self.start),
            start=fingerprint(self.start),
            local=self.local,
            **told,
        )
        self.identities = {n: Identity.generate() for n in self.names}
        self.roster = Roster({n: i.public for n, i in self.identities.items()})
        self.training = {n: draw(ROWS[i], i) for i, n in enumerate(self.names)}
        self.validation = {n: draw(20, 100 + i) for i, n in enumerate(self.names)}
        self.journals: list[Journal] = []
        self.ledgers: dict[str, Ledger] = {}
        self.channel = LocalChannel({n: self.site(n).handle for n in self.names})

    def learner(self, name: str) -> HeadLearner:
        """A site's learner."""
        cases = self.training[name], self.validation[name]
        return HeadLearner(self.model, *cases, CLASSES, self.local, seed=1)

    def site(self, name: str, **changed: Any) -> Site:
        """A site as its process makes it when it starts."""
        place = self.directory / name
        place.mkdir(parents=True, exist_ok=True)
        self.journals.append(Journal(place / "journal.sqlite"))
        member = Member(name, self.identities[name], self.roster, self.journals[-1], self.policy)
        if self.agreement.privacy and name not in self.ledgers:
            self.ledgers[name] = Ledger.create(place / "ledger", *self.budget)
        told = {"agreement": self.agreement, "learner": self.learner(name), **changed}
        told.setdefault("ledger", self.ledgers.get(name))
        return Site(member, directory=place / "site", **told)

    def coordinator(self, name: str = "coordinator") -> Coordinator:
        """A coordinator as its process makes it when it starts."""
        return Coordinator(
            self.agreement, self.roster, self.channel, self.directory / name, self.start, self.policy
        )


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Callable[..., Study]]:
    """Makes studies."""
    made: list[Study] = []

    def make(sites: int = 4, policy: Policy | None = None, **plan: Any) -> Study:
        made.append(Study(tmp_path / str(len(made)), sites, policy, **plan))
        return made[-1]

    yield make
    for found in made:
        for file in (*found.journals, *found.ledgers.values()):
            file.close()
