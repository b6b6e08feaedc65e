"""Who may leave a message: its sender, as the study's terms name it; everybody has the tenant's token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blindtune.errors import BundleError
from blindtune.server.messages import Letter
from blindtune.server.service import Service
from blindtune.wire.message import MAX_TERMS, OFFER, STALE, parsed
from tests.members import Members, told

STUDY = "5a" * 16
PLACE = ("first", "public", "lmu")


class Mailbox:
    """A tenant's mailbox of one study."""

    def __init__(self, service: Service, tenant: str, place: Path) -> None:
        self.service, self.tenant, self._place = service, tenant, place

    def post(self, place: tuple[str, str, str], message: bytes) -> None:
        """As the route does, and the content after it."""
        _, text, signature, _ = parsed(message)
        letter = Letter(self.tenant, STUDY, *place)
        self.service.senders.check(letter, text.decode(), signature, len(message))
        self.service.messages.post(letter, str(told(message)["sha256"]), len(message))
        file = self._place / "content"
        file.write_bytes(message)
        self.service.contents.keep(self.tenant, file)

    def there(self, place: tuple[str, str, str]) -> bool:
        return self.service.messages.find(Letter(self.tenant, STUDY, *place)) is not None


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    service = Service.open(tmp_path / "server")
    yield Mailbox(service, service.tenants.make("consortium"), tmp_path)
    service.close()


@pytest.fixture
def members() -> Members:
    return Members("lmu", "tum", "server")


@pytest.fixture
def opened(mailbox: Mailbox, members: Members) -> Mailbox:
    """A mailbox with its terms."""
    mailbox.post(OFFER, members.offer)
    return mailbox


def test_nothing_is_taken_before_the_terms(mailbox: Mailbox, members: Members) -> None:
    message = members.message(*PLACE, b"a share")
    with pytest.raises(BundleError, match="no terms of this study lie here"):
        mailbox.post(PLACE, message)
    mailbox.post(OFFER, members.offer)
    mailbox.post(PLACE, message)
    assert mailbox.there(PLACE)


def test_nobody_takes_a_members_place(opened: Mailbox, members: Members) -> None:
    strangers, other = Members("lmu", "ukb"), Members("lmu", "tum", study="b5" * 16)
    other.identities = members.identities
    refused = {
        "another member's": members.message(*PLACE, b"", by="tum"),
        "a member's under its own name": members.message("first", "public", "tum", b""),
        "a stranger's": strangers.message(*PLACE, b""),
        "from another study": other.message(*PLACE, b""),
        "of another stage": members.message("join", "public", "lmu", b""),
        "of another item": members.message("first", "zero", "lmu", b""),
    }
    for message in refused.values():
        with pytest.raises(BundleError, match="not signed by the member in whose name it comes"):
            opened.post(PLACE, message)
    own = members.message(*PLACE, b"a share")
    _, text, signature, _ = parsed(own)
    letter = Letter(opened.tenant, STUDY, *PLACE)
    with pytest.raises(BundleError, match="not signed"):
        opened.service.senders.check(letter, text.decode(), signature[::-1], len(own))
    with pytest.raises(BundleError, match="not the statement"):
        opened.service.senders.check(letter, text.decode()[:-1], signature, len(own))
    with pytest.raises(BundleError, match="not signed"):
        opened.post((*PLACE[:2], "ukb"), strangers.message(*PLACE[:2], "ukb", b""))
    assert not opened.there(PLACE)
    opened.post(PLACE, own)


def test_nobody_leaves_weights_in_the_servers_name(opened: Mailbox, members: Members) -> None:
    """A hospital may be called like the server's place."""
    place = ("refresh-0", *STALE)
    with pytest.raises(BundleError, match="the server's own"):
        opened.post(place, members.message(*place, b"weights"))


def test_terms_that_no_member_signed_open_nothing(mailbox: Mailbox, members: Members) -> None:
    with pytest.raises(BundleError, match="larger than terms can be"):
        mailbox.post(OFFER, members.message(*OFFER[:2], "lmu", bytes(MAX_TERMS + 5000)))
    offer = members.offer
    mailbox.post(OFFER, offer[:-2] + b'"' + offer[-1:])
    with pytest.raises(BundleError, match="no terms that a member signed"):
        mailbox.post(PLACE, members.message(*PLACE, b""))


def test_the_first_of_many_senders_that_is_wholly_here(opened: Mailbox, members: Members) -> None:
    messages = opened.service.messages
    place = (opened.tenant, STUDY, "refresh-0", "fresh")
    assert messages.said(*place) is None
    messages.post(Letter(*place, "lmu"), "0" * 64, 100)
    assert messages.said(*place) is None
    message = members.message("refresh-0", "fresh", "tum", b"weights")
    opened.post(("refresh-0", "fresh", "tum"), message)
    assert messages.said(*place) == told(message)["sha256"]
