"""Terms on their way: signed by a member, for one study, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from blindtune.errors import FederationError, ParametersError
from blindtune.federation.identity import Identity
from blindtune.federation.threshold import offer
from blindtune.federation.threshold.mailbox import DirectoryMailbox
from tests.federation.threshold.conftest import Group

Draw = Callable[[Path], Group]


@pytest.fixture
def group(draw_group: Draw, tmp_path: Path) -> Group:
    """A study that is not offered yet."""
    return draw_group(tmp_path)


def message(group: Group) -> Path:
    return group.place / "mailbox" / "terms" / "terms.offer"


def test_what_a_member_offers_is_found_by_the_others(group: Group) -> None:
    assert offer.fetch(group.mailbox, group.terms.study) is None
    offer.post(group.mailbox, group.terms, "lmu", group.identities["lmu"])
    found = offer.fetch(group.mailbox, group.terms.study)
    assert found == offer.Offer(group.terms, "lmu")
    other = group.terms.model_copy(update={"results": 2})
    with pytest.raises(FederationError, match="another message"):
        offer.post(group.mailbox, other, "tum", group.identities["tum"])


def test_only_members_offer_and_only_their_own_study(group: Group, tmp_path: Path) -> None:
    for name, identity in (("ukb", Identity.generate()), ("lmu", group.identities["tum"])):
        with pytest.raises(FederationError, match="not the member's"):
            offer.post(group.mailbox, group.terms, name, identity)
    offer.post(group.mailbox, group.terms, "lmu", group.identities["lmu"])
    elsewhere = DirectoryMailbox(tmp_path / "elsewhere")
    elsewhere.post("terms", "terms", "offer", message(group).read_bytes())
    with pytest.raises(FederationError, match="the terms of another study"):
        offer.fetch(elsewhere, "b5" * 16)


@pytest.mark.parametrize("at", [0, 5, 12, 60, -2])
def test_an_altered_offer_is_none(group: Group, at: int) -> None:
    offer.post(group.mailbox, group.terms, "lmu", group.identities["lmu"])
    data = bytearray(message(group).read_bytes())
    data[at] ^= 1
    message(group).write_bytes(bytes(data))
    with pytest.raises((FederationError, ParametersError)):
        offer.fetch(group.mailbox, group.terms.study)


def test_terms_that_the_signature_does_not_cover(group: Group) -> None:
    """Members taken from the altered terms themselves do not vouch for them."""
    offer.post(group.mailbox, group.terms, "lmu", group.identities["lmu"])
    data = message(group).read_bytes()
    message(group).write_bytes(data.replace(b'"results":1', b'"results":9'))
    with pytest.raises(FederationError, match="altered"):
        offer.fetch(group.mailbox, group.terms.study)
