"""Messages, mailboxes, outboxes, envelopes and terms, without any encryption engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from blindtune.errors import BlindtuneError, FederationError
from blindtune.federation.identity import Identity, Roster
from blindtune.federation.secagg import masks
from blindtune.federation.threshold.envelope import sealed, unsealed
from blindtune.federation.threshold.mailbox import DirectoryMailbox
from blindtune.federation.threshold.message import opened, signed, stated
from blindtune.federation.threshold.outbox import Outbox
from blindtune.federation.threshold.terms import Terms, approve
from blindtune.wire.message import Statement, overhead
from tests.federation.threshold.conftest import Group

ALICE, BOB = Identity.generate(), Identity.generate()
ROSTER = Roster({"alice": ALICE.public, "bob": BOB.public})


def message(identity: Identity = ALICE, body: bytes = b"body", **changes: str) -> bytes:
    told = {
        "terms": "0" * 64,
        "code": "1",
        "stage": "join",
        "item": "join",
        "sender": "alice",
        "before": "0" * 64,
        "body": hashlib.sha256(body).hexdigest(),
    }
    return signed(identity, Statement(**{**told, **changes}), body)


class TestMessages:
    def test_what_was_signed_is_read(self) -> None:
        statement, body = opened(message(), ROSTER, "join", "join", "alice")
        assert (statement.sender, body) == ("alice", b"body")
        again, end = stated(message()[: overhead()], ROSTER, "join", "join", "alice")
        assert (again, message()[end:]) == (statement, b"body")

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"BTM1",
            message()[:-1],
            message() + b"x",
            b"BTM1\xff\xff\xff\xff" + message()[8:],
            message(BOB),
            message(stage="first"),
            message(item="public"),
            message(sender="bob"),
            message(body=b"body")[:60] + b"!" + message()[61:],
        ],
    )
    def test_anything_else_is_refused(self, data: bytes) -> None:
        with pytest.raises(FederationError, match="a message of alice was altered, or is not from alice"):
            opened(data, ROSTER, "join", "join", "alice")


class TestMailbox:
    def test_first_come_and_never_replaced(self, tmp_path: Path) -> None:
        box = DirectoryMailbox(tmp_path / "box")
        assert box.fetch("join", "join", "alice", 10) is None
        box.post("join", "join", "alice", b"one message")
        box.post("join", "join", "alice", b"one message")
        with pytest.raises(FederationError, match="another message of alice"):
            box.post("join", "join", "alice", b"another")
        assert box.fetch("join", "join", "alice", 100) == b"one message"
        assert box.fetch("join", "join", "alice", 3) == b"one"
        assert [p.name for p in (tmp_path / "box" / "join").iterdir()] == ["join.alice"]

    @pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-a", "a.b", "a" * 81])
    def test_names_that_leave_the_directory(self, name: str, tmp_path: Path) -> None:
        for names in ((name, "i", "s"), ("t", name, "s"), ("t", "i", name)):
            with pytest.raises(FederationError, match="a name"):
                DirectoryMailbox(tmp_path).post(*names, b"")


class TestOutbox:
    def test_made_once_and_kept(self, tmp_path: Path) -> None:
        assert Outbox(tmp_path / "own").once("a.b", lambda: b"first") == b"first"
        assert Outbox(tmp_path / "own").once("a.b", lambda: b"second") == b"first"
        assert (tmp_path / "own" / "a.b").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
        assert Outbox(tmp_path / "own").count("a.") == 1

    def test_nothing_is_kept_of_what_failed(self, tmp_path: Path) -> None:
        def fails() -> bytes:
            raise RuntimeError

        box = Outbox(tmp_path)
        with pytest.raises(RuntimeError):
            box.once("a", fails)
        assert box.once("a", lambda: b"made") == b"made"

    def test_what_was_heard_does_not_change(self, tmp_path: Path) -> None:
        box = Outbox(tmp_path)
        box.pin("a", b"one", "it")
        box.pin("a", b"one", "it")
        with pytest.raises(FederationError, match="it differs from what was heard before"):
            box.pin("a", b"two", "it")


class TestEnvelopes:
    def test_recipients_read_it_and_no_one_else(self) -> None:
        private = {name: masks.private_key() for name in ("alice", "bob", "carol")}
        public = {name: masks.public_key(key) for name, key in private.items()}
        order, context = ["bob", "carol"], b"c" * 32
        data = sealed(b"content" * 99, "alice", private["alice"], {n: public[n] for n in order}, context)
        assert b"content" not in data
        for name in order:
            found = unsealed(data, "alice", public["alice"], name, private[name], order, context)
            assert found == b"content" * 99
        for text, key, other in (
            (data[:-1], private["bob"], context),
            (data, private["bob"], b"d" * 32),
            (data, private["carol"], context),
            (b"", private["bob"], context),
        ):
            with pytest.raises(FederationError, match="what alice sealed does not open"):
                unsealed(text, "alice", public["alice"], "bob", key, order, other)


class TestTerms:
    @pytest.fixture
    def terms(self, draw_group: Callable[[Path], Group], tmp_path: Path) -> Terms:
        return draw_group(tmp_path).terms

    def test_round_trip_and_digest(self, terms: Terms) -> None:
        again = Terms.parse(terms.model_dump_json().encode())
        assert (again, again.digest, again.fingerprint) == (terms, terms.digest, terms.fingerprint)
        assert terms.model_copy(update={"results": 2}).digest != terms.digest

    @pytest.mark.parametrize(
        "change",
        [
            {"results": 0},
            {"members": {"one": "0" * 64}},
            {"length": 0.5},
            {"format": "other"},
            {"more": 1},
            {"members": {"one": "0" * 64, "two": "0" * 64}},
        ],
    )
    def test_what_cannot_be_is_refused(self, change: dict[str, object], terms: Terms) -> None:

        with pytest.raises(BlindtuneError):
            Terms.parse(json.dumps({**json.loads(terms.model_dump_json()), **change}).encode())

    def test_too_few_levels(self, terms: Terms) -> None:
        program = terms.program.model_copy(update={"degree": 7})
        with pytest.raises(FederationError, match="a program that the parameters do not hold"):
            Terms.parse(terms.model_copy(update={"program": program}).model_dump_json().encode())

    def test_noise_that_would_hide_nothing(self, terms: Terms) -> None:
        low = terms.model_copy(update={"length": 2.0**10}).model_dump_json().encode()
        with pytest.raises(FederationError, match="too small to be true"):
            Terms.parse(low)

    def test_insecure_parameters_need_a_word(self, terms: Terms) -> None:
        approve(terms, terms, insecure=True)
        with pytest.raises(FederationError, match="without any security"):
            approve(terms, terms)
