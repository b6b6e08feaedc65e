"""Studies of three hospitals with tiny parameters, each hospital in a directory of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from blindtune.federation.agreement import HeadModel
from blindtune.federation.identity import Identity
from blindtune.federation.threshold.mailbox import DirectoryMailbox
from blindtune.federation.threshold.party import Party
from blindtune.federation.threshold.terms import Task, Terms
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program
from blindtune.params import ParametersLiteral
from blindtune.wire.manifest import layout_model, parameters_model, program_model

NAMES = ("charite", "lmu", "tum")
LAYOUT = Layout(512, 32, (8,), 2, 3, 1)
PROGRAM = Program(2, 3, (0, 0), (1.0, 1.0))
TASK = Task(
    model=HeadModel(
        features=6, directions=5, degree=3, interval=8.0, rows=64, loss="one-vs-rest", blind=True
    ),
    classes=["normal", "bacterial", "viral"],
    rates=[3.0, 3.0],
)


@dataclass
class Group:
    """The hospitals of a study and its mailbox.

    Attributes:
        place: holds a directory for each, and ``mailbox``.
    """

    place: Path
    terms: Terms
    identities: dict[str, Identity]
    parties: dict[str, Party] = field(default_factory=dict)

    @property
    def mailbox(self) -> DirectoryMailbox:
        return DirectoryMailbox(self.place / "mailbox")

    def party(self, name: str, offered: Terms | None = None, **changes: Any) -> Party:
        """A hospital, as it is started anew; with other terms of its own if ``changes`` has them."""
        mine = self.terms.model_copy(update=changes)
        return Party(
            offered or mine,
            mine,
            name,
            self.identities[name],
            self.mailbox,
            self.place / name,
            insecure=True,
        )

    def start(self) -> None:
        """All hospitals, as processes that were started anew."""
        self.parties = {name: self.party(name) for name in NAMES}

    def run(self) -> None:
        """Key generation to its end."""
        self.start()
        for _ in range(4):
            for party in self.parties.values():
                party.advance()
        assert all(not party.advance().absent for party in self.parties.values())

    def copy(self, place: Path) -> Group:
        """The same study in other directories."""
        shutil.copytree(self.place, place)
        other = Group(place, self.terms, self.identities)
        other.start()
        return other


@pytest.fixture(scope="session")
def draw_group() -> Callable[..., Group]:
    """A new study in a directory."""

    def made(place: Path, task: Task = TASK) -> Group:
        identities = {name: Identity.generate() for name in NAMES}
        terms = Terms(
            study="5a" * 16,
            members={name: identity.public.hex() for name, identity in identities.items()},
            parameters=parameters_model(ParametersLiteral(1024, 5, 53, 56, 60, security=0).checked()),
            layout=layout_model(LAYOUT),
            program=program_model(PROGRAM),
            task=task,
            length=2.0**18,
        )
        return Group(place, Terms.parse(terms.model_dump_json().encode()), identities)

    return made


@pytest.fixture(scope="session")
def keyed(draw_group: Callable[..., Group], tmp_path_factory: pytest.TempPathFactory) -> Group:
    """A study whose keys are made; copy it before anything is said in it."""
    group = draw_group(tmp_path_factory.mktemp("keyed"))
    group.run()
    return group


@pytest.fixture
def group(keyed: Group, tmp_path: Path) -> Group:
    """A study whose keys are made."""
    return keyed.copy(tmp_path / "study")
