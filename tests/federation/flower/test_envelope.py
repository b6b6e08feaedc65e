"""Requests and answers as records: what is read is what was written, by whom it says, and no larger."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, RecordDict

from blindtune.errors import FederationError
from blindtune.federation.channel import Answer, Request
from blindtune.federation.flower import envelope
from blindtune.federation.flower.envelope import Asked
from blindtune.federation.identity import Identity, Roster

NAMES = ("north", "south")


@pytest.fixture(scope="module")
def identities():
    return {name: Identity.generate() for name in NAMES}


@pytest.fixture(scope="module")
def roster(identities):
    return Roster({name: i.public for name, i in identities.items()})


@pytest.mark.parametrize("size", [0, 1, envelope.PIECE, envelope.PIECE + 1, 3 * envelope.PIECE])
def test_requests_are_read_as_they_were_written(size):
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    asked = Asked("plan", envelope.nonce(), Request("update", b'{"round": 1}', body))
    records = envelope.request_records(asked, envelope.pieces(body))
    assert envelope.read_request(records, size) == asked
    if size:
        with pytest.raises(FederationError, match="a message of"):
            envelope.read_request(records, size - 1)


@pytest.mark.parametrize("answer", [Answer(b"data" * 999), Answer(), Answer(refusal="no: äöü")])
def test_answers_are_read_as_they_were_signed(identities, roster, answer):
    drawn = envelope.nonce()
    records = envelope.answer_records("north", identities["north"], drawn, answer)
    assert envelope.read_answer(records, 1 << 20, roster, "north", drawn) == answer


def test_a_long_refusal_is_cut(identities, roster):
    drawn = envelope.nonce()
    records = envelope.answer_records("north", identities["north"], drawn, Answer(refusal="no" * 9999))
    found = envelope.read_answer(records, 1 << 20, roster, "north", drawn)
    assert len(found.refusal) == envelope.REFUSAL


class TestAnswersOfOthers:
    @pytest.fixture
    def signed(self, identities):
        drawn = envelope.nonce()
        return drawn, envelope.answer_records("north", identities["north"], drawn, Answer(b"data"))

    def refused(self, records, roster, drawn, name="north"):
        with pytest.raises(FederationError, match="has not signed"):
            envelope.read_answer(records, 1 << 20, roster, name, drawn)

    def test_a_replay(self, signed, roster):
        self.refused(signed[1], roster, envelope.nonce())

    def test_in_the_name_of_another(self, signed, roster):
        drawn, records = signed
        self.refused(records, roster, drawn, "south")
        records["answer"]["name"] = "south"
        self.refused(records, roster, drawn, "south")

    @pytest.mark.parametrize(("field", "value"), [("refusal", "no"), ("signature", b"x" * 64)])
    def test_altered(self, signed, roster, field, value):
        signed[1]["answer"][field] = value
        self.refused(signed[1], roster, signed[0])

    def test_with_other_data(self, signed, roster):
        signed[1]["data-0"]["data"] = b"date"
        self.refused(signed[1], roster, signed[0])


def test_what_stands_in_many_places_counts_in_each(identities, roster):
    piece = ConfigRecord({"data": b"x" * 1000})
    head = ConfigRecord({"name": "north", "refusal": "", "signature": b"", "pieces": 5000})
    records = RecordDict({"answer": head, **{f"data-{i}": piece for i in range(5000)}})
    with pytest.raises(FederationError, match="a message of 5,000,000 bytes"):
        envelope.read_answer(records, 1 << 20, roster, "north", envelope.nonce())


@pytest.mark.parametrize(
    "changed",
    [
        {"nonce": b"short"},
        {"nonce": "text"},
        {"kind": 3},
        {"kind": ["update"]},
        {"head": "text"},
        {"head": b"x" * (envelope.SMALL + 1)},
        {"pieces": 2},
        {"pieces": -1},
        {"pieces": True},
        {"pieces": 1.0},
        {"plan": b"plan"},
    ],
)
def test_requests_that_are_none(changed):
    asked = Asked("plan", envelope.nonce(), Request("update", b"{}", b"body"))
    records = envelope.request_records(asked, envelope.pieces(b"body"))
    records["request"].update(changed)
    with pytest.raises(FederationError, match="cannot be read"):
        envelope.read_request(records, 100)


@pytest.mark.parametrize("name", ["request", "data-0"])
def test_requests_without_a_record(name):
    asked = Asked("plan", envelope.nonce(), Request("update", b"{}", b"body"))
    records = envelope.request_records(asked, envelope.pieces(b"body"))
    del records[name]
    with pytest.raises(FederationError, match="cannot be read"):
        envelope.read_request(records, 100)
