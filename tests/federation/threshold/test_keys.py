"""Key generation: what comes of it, who holds what, and what ends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.joint.attack import files_with, pieces_of
from blindtune.errors import FederationError
from blindtune.federation.threshold.mailbox import DirectoryMailbox
from blindtune.federation.threshold.party import Party
from blindtune.federation.threshold.transcript import ABORT, FIRST, JOIN, SECOND, STAGES, Transcript
from blindtune.he.openfhe import joint
from blindtune.he.openfhe.codec import TAG, codec
from blindtune.wire.message import overhead
from tests.federation.threshold.conftest import NAMES, Group
from tests.openfhe import needs_openfhe

pytestmark = needs_openfhe
Draw = Callable[..., Group]


def files(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()]


def test_all_hear_the_same_and_hold_the_same_public_key(group: Group) -> None:
    parties = group.parties.values()
    assert len({party.transcript.fingerprint for party in parties}) == 1
    assert len({party.transcript.joint(joint.PUBLIC) for party in parties}) == 1
    reader = Transcript(group.terms, group.mailbox)
    assert reader.fingerprint == group.parties["lmu"].transcript.fingerprint
    _, galois = reader.evaluation_keys()
    assert len(galois) == len(group.terms.keys.rotations) + 1, "the rotations of the plan, and conjugation"


def test_shares_lie_with_their_owners_alone(group: Group) -> None:
    pieces = {name: pieces_of(party.share) for name, party in group.parties.items()}
    assert files_with(group.place, pieces) == {name: [f"{name}/secret-share"] for name in NAMES}
    for name in NAMES:
        path = group.place / name / "secret-share"
        assert path.read_bytes().startswith(b"blindtune-secret-key")
        assert path.stat().st_mode & 0o077 == 0


def test_no_share_follows_from_a_members_messages(group: Group) -> None:
    """The sum that gives the share away in OpenFHE's published order of calls gives nothing here."""
    p, party = group.terms.checked_parameters, group.parties["tum"]
    used, digest = codec(p), group.terms.digest
    prime = np.array(p.primes[:1], np.uint64)

    def size(first: np.ndarray, second: np.ndarray) -> float:
        """Largest value of ``b + a'`` in a limb that the digit's share is not in: noise, or anything."""
        total = joint.add(first[1, 0, 0], second[1, 1, 0], prime)
        return float(
            np.abs(used.decode(used.context.MultipartyDecryptFusion([used.raw(total[None, None], 0)]))).max()
        )

    own = joint.checked(party.share.item(joint.RELINEARISATION), joint.RELINEARISATION, digest, p)
    key = used.evaluation_key(own)
    key.SetKeyTag(TAG)
    literal = used.key_residues(used.context.MultiMultEvalKey(party.share._raw, key, TAG))
    assert size(own, literal) < 1e-9
    bodies = [
        party.transcript.read(s, i, "tum") or b""
        for s, i in ((FIRST, joint.RELINEARISATION), (SECOND, joint.RELINEARISED))
    ]
    sent = [
        joint.checked(b, i, digest, p)
        for b, i in zip(bodies, (joint.RELINEARISATION, joint.RELINEARISED), strict=True)
    ]
    assert size(*sent) > 1e-2


def test_a_hospital_that_was_stopped_says_the_same_again(draw_group: Draw, tmp_path: Path) -> None:
    group = draw_group(tmp_path)
    seen: dict[Path, bytes] = {}
    for _ in range(5):
        for name in NAMES:
            group.party(name).advance()
            for path in files(group.place):
                assert seen.setdefault(path, path.read_bytes()) == path.read_bytes()
    assert not group.party("lmu").advance().absent


class Counting(DirectoryMailbox):
    """Counts the bytes that are read of each item."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.read: Counter[str] = Counter()

    def fetch(self, stage: str, item: str, sender: str, most: int) -> bytes | None:
        found = super().fetch(stage, item, sender, most)
        self.read[item] += len(found or b"")
        return found


def test_a_hospital_reads_what_it_uses_once_and_of_the_rest_who_is_there(
    draw_group: Draw, tmp_path: Path
) -> None:
    group = draw_group(tmp_path)
    counting = Counting(tmp_path / "mailbox")
    group.start()
    terms, own = group.terms, group.place / "tum"
    group.parties["tum"] = Party(terms, terms, "tum", group.identities["tum"], counting, own, insecure=True)
    for _ in range(4):
        for party in group.parties.values():
            party.advance()
            party.advance()
    used = {joint.PUBLIC, joint.ZERO, joint.RELINEARISATION}
    glanced = len(NAMES) * overhead()
    assert {joint.RELINEARISED, *joint.first_items(terms.keys, 1024)} <= counting.read.keys()
    for item, read in counting.read.items():
        whole = sum(p.stat().st_size for p in (tmp_path / "mailbox").glob(f"*/{item}.*"))
        assert read <= glanced + (whole if item in used else 0)
        assert item not in used or read >= whole
    before = counting.read.copy()
    assert not group.parties["tum"].advance().absent
    assert counting.read == before


class Failing(DirectoryMailbox):
    """A mailbox that a member's messages stop to reach at some stage."""

    until = JOIN

    def post(self, stage: str, item: str, sender: str, message: bytes) -> None:
        if STAGES.index(stage) < STAGES.index(self.until):
            super().post(stage, item, sender, message)


@pytest.mark.parametrize("stage", STAGES)
def test_a_hospital_that_stays_away_is_named(stage: str, draw_group: Draw, tmp_path: Path) -> None:
    group = draw_group(tmp_path)
    group.start()
    failing = Failing(tmp_path / "mailbox")
    failing.until = stage
    group.parties["lmu"]._mailbox = failing
    for _ in range(4):
        waiting = {name: party.advance() for name, party in group.parties.items()}
    here = [group.parties[n] for n in ("charite", "tum")]
    assert [(party.advance().stage, party.advance().absent) for party in here] == [(stage, ("lmu",))] * 2
    assert "lmu" in waiting["tum"].absent
    with pytest.raises(FederationError, match="not there yet"):
        _ = here[0].public_key


def altered(path: Path, at: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("at", [0, 12, 400, -20])
def test_an_altered_message_ends_the_study(at: int, draw_group: Draw, tmp_path: Path) -> None:
    group = draw_group(tmp_path)
    group.start()
    for party in group.parties.values():
        party.advance()
    group.parties["lmu"].advance()
    altered(group.place / "mailbox" / FIRST / "zero.lmu", at)
    with pytest.raises(FederationError, match="a message of lmu was altered"):
        group.parties["charite"].advance()
    with pytest.raises(FederationError, match="charite ended the study: a message of lmu was altered"):
        group.parties["tum"].advance()


def test_a_message_in_anothers_place_or_from_another_study(draw_group: Draw, tmp_path: Path) -> None:
    group, other = draw_group(tmp_path / "a"), draw_group(tmp_path / "b")
    other.identities = group.identities
    other.terms = group.terms.model_copy(update={"study": "b5" * 16})
    for one in (group, other):
        one.start()
        one.parties["lmu"].advance()
    source = other.place / "mailbox" / JOIN / "join.lmu"
    place = group.place / "mailbox" / JOIN
    (place / "join.lmu").unlink()
    (place / "join.lmu").write_bytes(source.read_bytes())
    with pytest.raises(FederationError, match="lmu approved other terms"):
        group.parties["tum"].advance()
    third = draw_group(tmp_path / "c")
    third.start()
    third.parties["lmu"].advance()
    (third.place / "mailbox" / JOIN / "join.charite").write_bytes(
        (third.place / "mailbox" / JOIN / "join.lmu").read_bytes()
    )
    with pytest.raises(FederationError, match="a message of charite was altered, or is not from charite"):
        third.parties["tum"].advance()


def test_another_message_after_the_first_was_heard(draw_group: Draw, tmp_path: Path) -> None:
    group = draw_group(tmp_path)
    group.start()
    for name in ("lmu", "tum"):
        group.parties[name].advance()
    # Whoever holds lmu's identity, and the mailbox, makes lmu join a second time.
    (group.place / "mailbox" / JOIN / "join.lmu").unlink()
    (group.place / "lmu").rename(group.place / "away")
    group.party("lmu").advance()
    with pytest.raises(FederationError, match="a message of lmu differs from what was heard before"):
        group.party("tum").advance()


def test_a_public_share_that_was_not_committed_to(draw_group: Draw, tmp_path: Path) -> None:
    group = draw_group(tmp_path)
    group.start()
    for party in group.parties.values():
        party.advance()
    # The last to speak chooses its share after the others' were seen.
    own = group.place / "lmu"
    (own / "secret-share").unlink()
    assert group.party("charite").advance().absent == ("lmu",)
    found_out = "lmu sent another public share than it had committed to"
    with pytest.raises(FederationError, match=found_out):
        group.party("lmu").advance()
    # It would not have told of itself.
    (group.place / "mailbox" / ABORT / "abort.lmu").unlink()
    with pytest.raises(FederationError, match=found_out):
        group.party("charite").advance()


def test_what_was_not_approved(draw_group: Draw, tmp_path: Path) -> None:
    group = draw_group(tmp_path)
    members = {**group.terms.members, "lmu": "00" * 32}
    program = group.terms.program.model_copy(update={"retain": [1.0, 0.5]})
    for change, said in (
        ({"members": members}, "membership"),
        ({"program": program}, "plan"),
        ({"code": "0.0.9"}, "version of blindtune"),
    ):
        with pytest.raises(FederationError, match=f"the study's {said} is not the one that was approved"):
            group.party("tum", offered=group.terms.model_copy(update=change))
    with pytest.raises(FederationError, match="version of blindtune"):
        group.party("tum", code="0.0.9")
    group.identities["tum"] = group.identities["lmu"]
    with pytest.raises(FederationError, match="identity is not the member's"):
        group.party("tum")


def test_a_member_with_another_plan_is_found_out(draw_group: Draw, tmp_path: Path) -> None:
    group = draw_group(tmp_path)
    program = group.terms.program.model_copy(update={"retain": [1.0, 0.5]})
    group.party("lmu", program=program).advance()
    with pytest.raises(FederationError, match="lmu approved other terms"):
        group.party("tum").advance()
    with pytest.raises(FederationError, match="tum ended the study: lmu approved other terms"):
        group.party("charite").advance()
