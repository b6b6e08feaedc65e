"""Members of a study, each with a journal of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blindtune.federation.identity import Identity, Roster
from blindtune.federation.secagg.journal import Journal
from blindtune.federation.secagg.member import Member
from blindtune.federation.secagg.session import Policy, Session

MODEL = hashlib.sha256(b"a model").hexdigest()


class Group:
    """Hospitals under one roster."""

    def __init__(self, count: int, directory: Path, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        names = [f"site-{i:02d}" for i in range(1, count + 1)]
        self.identities = {name: Identity.generate() for name in names}
        self.roster = Roster({name: i.public for name, i in self.identities.items()})
        self.paths = {name: directory / f"{name}.sqlite" for name in names}
        self.journals = {name: Journal(path) for name, path in self.paths.items()}
        self.members = {i + 1: self.member(name) for i, name in enumerate(names)}

    def member(self, name: str) -> Member:
        """A member as its process makes it when it starts."""
        return Member(name, self.identities[name], self.roster, self.journals[name], self.policy)

    def restart(self, number: int) -> Member:
        """A member whose process was killed and started again."""
        name = self.roster.names[number - 1]
        self.journals[name].close()
        self.journals[name] = Journal(self.paths[name])
        return self.member(name)

    def session(self, length: int = 5, **changed: Any) -> Session:
        """A session of the whole group."""
        told: dict[str, Any] = {
            "study": "study",
            "round": 0,
            "attempt": 0,
            "model": MODEL,
            "purpose": "update",
            "length": length,
            "clip": 1.0,
            "threshold": self.policy.threshold(len(self.roster)),
            "roster": self.roster,
        }
        return Session(**{**told, **changed})


@pytest.fixture
def group(tmp_path: Path) -> Callable[..., Group]:
    """Makes a group of so many hospitals."""
    made: list[Group] = []

    def make(count: int, policy: Policy | None = None) -> Group:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        made.append(Group(count, directory, policy))
        return made[-1]

    yield make  # type: ignore[misc]
    for found in made:
        for journal in found.journals.values():
            journal.close()
