"""What every mailbox does: a directory, and a server's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blindtune.client.remote import Remote
from blindtune.errors import FederationError, RemoteError
from blindtune.federation.threshold.mailbox import DirectoryMailbox, Mailbox
from blindtune.server.api.app import create_app
from blindtune.server.service import Service
from blindtune.wire.message import OFFER
from tests.members import Members
from tests.server.serving import serving

Open = Callable[[str], Mailbox]
STUDY, OTHER = "5a" * 16, "b5" * 16


@pytest.fixture(params=["directory", "server"])
def open_mailbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the mailbox of a study."""
    if request.param == "directory":
        yield lambda study: DirectoryMailbox(tmp_path / study)
        return
    with closing(Service.open(tmp_path)) as service, serving(create_app(service)) as url:
        _, token = service.tenants.issue(service.tenants.make("consortium"), ["read", "submit"])
        with Remote(url, token) as remote:
            for study in (STUDY, OTHER):
                remote.mailbox(study).post(*OFFER, MEMBERS.offer)
            yield remote.mailbox


MEMBERS = Members("tum", "lmu")
GALOIS, JOIN = ("first", "galois-5", "tum"), ("join", "join", "tum")
MESSAGE, JOINED = (MEMBERS.message(*place, bytes(range(256)) * 100) for place in (GALOIS, JOIN))


def test_a_message_is_there_once_it_was_posted(open_mailbox: Open) -> None:
    mailbox = open_mailbox(STUDY)
    assert mailbox.fetch("first", "galois-5", "tum", 100) is None
    mailbox.post("first", "galois-5", "tum", MESSAGE)
    mailbox.post("first", "galois-5", "tum", MESSAGE)
    for most in (len(MESSAGE), len(MESSAGE) + 1, 1 << 30):
        assert mailbox.fetch("first", "galois-5", "tum", most) == MESSAGE
    assert mailbox.fetch("first", "galois-5", "tum", 100) == MESSAGE[:100]
    assert mailbox.fetch("first", "galois-5", "lmu", 100) is None
    assert open_mailbox(OTHER).fetch("first", "galois-5", "tum", 100) is None


def test_another_in_its_place_is_refused(open_mailbox: Open) -> None:
    mailbox = open_mailbox(STUDY)
    mailbox.post(*JOIN, JOINED)
    for other in (JOINED[:-1], JOINED[:-1] + b"x", JOINED + b"x"):
        with pytest.raises(FederationError, match="another message of tum"):
            mailbox.post(*JOIN, other)
    assert mailbox.fetch(*JOIN, 1 << 20) == JOINED


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-a", "a" * 81, "a\n"])
def test_names_that_no_message_can_have(open_mailbox: Open, name: str) -> None:
    mailbox = open_mailbox(STUDY)
    for names in ((name, "join", "tum"), ("join", name, "tum"), ("join", "join", name)):
        with pytest.raises(FederationError, match="no message can have"):
            mailbox.post(*names, MESSAGE)
        with pytest.raises(FederationError, match="no message can have"):
            mailbox.fetch(*names, 100)


def test_a_study_of_a_server_has_an_identifier(tmp_path: Path) -> None:
    with Remote("http://127.0.0.1:9", "token") as remote, pytest.raises(RemoteError, match="32 hexadecimal"):
        remote.mailbox("../x")
