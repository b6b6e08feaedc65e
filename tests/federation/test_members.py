"""Cards, rosters and homes: what hospitals hand each other, and what they refuse."""

from __future__ import annotations

import json
import stat

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from blindtune.errors import FederationError, InputError, KeyFileError
from blindtune.federation import members
from blindtune.federation.hospital import opened
from blindtune.federation.identity import MAX_FILE_BYTES, Identity
from blindtune.federation.members import Card, Members


def card(place, name, **given):
    (place / name).mkdir(parents=True, exist_ok=True)
    return members.make(place / name, name, **given)


def test_keys_are_made_once_and_kept_for_their_owner_alone(tmp_path):
    made = card(tmp_path, "north", passphrase="a passphrase")
    for name in (members.IDENTITY, members.NODE):
        assert stat.S_IMODE((tmp_path / "north" / name).stat().st_mode) == 0o600
    assert members.read(Card, tmp_path / "north" / members.CARD) == made
    own = Identity.read(tmp_path / "north" / members.IDENTITY, "a passphrase")
    assert own.public.hex() == made.identity
    key = members.read_node_key(tmp_path / "north" / members.NODE)
    assert members.public_pem(key) == Members(members=[made]).doors["north"]
    with pytest.raises(KeyFileError, match="no identity can be written"):
        card(tmp_path, "north")
    with pytest.raises(InputError, match="not plain"):
        card(tmp_path, "North")


def test_node_keys_that_cannot_be_used(tmp_path):
    card(tmp_path, "north")
    path = tmp_path / "north" / members.NODE
    with pytest.raises(KeyFileError, match="no node key"):
        members.read_node_key(tmp_path / "none")
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="others can read"):
        members.read_node_key(path)
    with pytest.raises(KeyFileError, match="not a node key"):
        members.read_node_key(tmp_path / "north" / members.IDENTITY)
    (tmp_path / "damaged").write_text("-----BEGIN PRIVATE KEY-----")
    with pytest.raises(KeyFileError, match="damaged"):
        members.read_node_key(tmp_path / "damaged")


def test_a_roster_is_made_of_cards(tmp_path):
    cards = [card(tmp_path, name) for name in ("south", "north")]
    path = tmp_path / "roster.json"
    members.write(path, Members(members=cards))
    found = members.read(Members, path)
    assert found.roster.names == ("north", "south")
    assert found.roster.fingerprint == Members(members=cards[::-1]).roster.fingerprint
    assert found.doors.keys() == {"north", "south"}


class TestRostersThatCannotBe:
    @pytest.fixture
    def cards(self, tmp_path):
        return [card(tmp_path, name) for name in ("north", "south")]

    def test_a_name_twice(self, cards):
        with pytest.raises(FederationError, match="a name stands twice"):
            _ = Members(members=[cards[0], cards[1].model_copy(update={"name": "north"})]).roster

    def test_an_identity_twice(self, cards):
        with pytest.raises(FederationError, match="stands twice"):
            _ = Members(
                members=[cards[0], cards[1].model_copy(update={"identity": cards[0].identity})]
            ).roster

    def test_a_node_key_twice(self, cards):
        # The same key in another spelling.
        same = cards[1].model_copy(update={"node": "\n" + cards[0].node})
        with pytest.raises(FederationError, match="a node key stands twice"):
            _ = Members(members=[cards[0], same]).doors

    def test_a_node_key_of_another_kind(self, cards):
        for curve in (ec.SECP256R1(), ec.BrainpoolP384R1()):
            key = ec.generate_private_key(curve).public_key()
            pem = key.public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            other = cards[1].model_copy(update={"node": pem.decode()})
            with pytest.raises(FederationError, match="a node key that is none"):
                _ = Members(members=[cards[0], other]).doors
        with pytest.raises(FederationError, match="a node key that is none"):
            _ = Members(members=[cards[0], cards[1].model_copy(update={"node": "nonsense"})]).doors

    @pytest.mark.parametrize(
        "changed",
        [
            {"name": "No"},
            {"identity": "00"},
            {"identity": 3},
            {"node": "x" * 1001},
            {"secret": "no such field"},
            {"format": "blindtune member 2"},
        ],
    )
    def test_cards_that_are_none(self, tmp_path, cards, changed):
        path = tmp_path / "card.json"
        path.write_text(json.dumps({**cards[0].model_dump(), **changed}))
        with pytest.raises(InputError, match="not a hospital's card"):
            members.read(Card, path)

    def test_files_that_are_none(self, tmp_path):
        path = tmp_path / "roster.json"
        with pytest.raises(InputError, match="cannot be read"):
            members.read(Members, path)
        for text in ("", "[]", "{}", "[" * 50_000, " " * (MAX_FILE_BYTES + 1)):
            path.write_text(text)
            with pytest.raises(InputError, match="not a roster"):
                members.read(Members, path)


class TestHomes:
    @pytest.fixture
    def home(self, study, tmp_path):
        """A home at work in a study with this hospital."""
        made = study(rounds=1)
        cards = [card(tmp_path, name) for name in made.names]
        roster = Members(members=cards).roster
        learner = made.learner("site-0")

        def enter(place="site-0", roster=roster, **given):
            return opened(tmp_path / place, made.agreement, roster, learner, **given)

        return enter, made, tmp_path

    def test_one_process_is_at_work_in_a_home(self, home):
        enter, _, _ = home
        with enter() as found:
            assert found.name == "site-0"
            with pytest.raises(InputError, match="another process"), enter():
                pass
        with enter():
            pass

    def test_hospitals_that_are_not_on_the_roster(self, home):
        enter, made, place = home
        others = Members(members=[card(place, name) for name in ("a", "b", "c")]).roster
        with pytest.raises(FederationError, match="not on the roster"), enter(roster=others):
            pass
        # The study's own roster has other keys under the same names.
        with pytest.raises(FederationError, match="another key for this hospital"), enter(roster=made.roster):
            pass

    def test_homes_that_are_none(self, home):
        enter, _, place = home
        with pytest.raises(InputError, match="cannot be read"), enter(place="nowhere"):
            pass
        card(place, "locked", passphrase="right")
        with pytest.raises(KeyFileError, match="damaged or locked"), enter(place="locked"):
            pass


def test_values_of_a_plan_are_read_as_they_were_drafted(tmp_path):
    from blindtune.federation.plans import complete, read_plan, read_start

    draft = {"study": "s", "classes": ["a", "b"], "model": {"kind": "head", "features": 5}, "rounds": 2}
    (tmp_path / "draft.json").write_text(json.dumps(draft))
    plan = complete(tmp_path / "draft.json", tmp_path)
    assert read_plan(tmp_path / "plan.json") == plan
    np.testing.assert_array_equal(read_start(tmp_path / "start.safetensors", plan), np.zeros(12))
    for wrong in ([], {}, {**draft, "start": "0" * 64}, {**draft, "rounds": 0}, {**draft, "further": 1}):
        (tmp_path / "draft.json").write_text(json.dumps(wrong))
        with pytest.raises((InputError, FederationError)):
            complete(tmp_path / "draft.json", tmp_path)
    with pytest.raises(InputError, match="no start"):
        read_start(tmp_path / "plan.json", plan)
    with pytest.raises(FederationError, match="not the plan's"):
        read_start(tmp_path / "start.safetensors", plan.model_copy(update={"parameters": 13}))
