"""Training on three hospitals' rows, and opening the head."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindtune.errors import FederationError
from blindtune.federation.threshold.decryption import Opening
from blindtune.federation.threshold.transcript import Transcript
from blindtune.he.engines import evaluation_engine
from blindtune.he.openfhe.opening import Opened, fuse
from tests.federation.threshold.conftest import LAYOUT, NAMES, PROGRAM, Group
from tests.openfhe import needs_openfhe

pytestmark = needs_openfhe


@dataclass(frozen=True)
class Trained:
    """A study's encrypted result, and the head that the same steps give in clear."""

    result: list[bytes]
    dense: Any
    fresh: bytes


@pytest.fixture(scope="module")
def trained(keyed: Group, draw_study: Callable[..., Any]) -> Trained:
    """Each hospital's row block encrypted under the joint key, trained by a mere reader of the mailbox."""
    study = draw_study(LAYOUT, PROGRAM, (3 * LAYOUT.rows - 7, 7, 4), seed=5)
    public = keyed.parties["lmu"].public_key
    relin, galois = Transcript(keyed.terms, keyed.mailbox).evaluation_keys()
    p = keyed.terms.checked_parameters
    engine = evaluation_engine(p, keyed.terms.keys, relin, galois, accelerator="openfhe")
    trainer = study.trainer(engine, lambda v: engine.load(public.encrypt(v)))
    weights = trainer.train(PROGRAM)
    fresh = public.encrypt(np.ones(p.slots))
    return Trained([engine.dump(c) for block in weights for c in block], study.dense(), fresh)


def openings(group: Group, result: list[bytes]) -> dict[str, Opening]:
    return {name: Opening(group.party(name), result) for name in NAMES}


def test_the_head_is_that_of_the_pooled_rows(group: Group, trained: Trained) -> None:
    found = openings(group, trained.result)
    for opening in found.values():
        opening.consent()
    for opening in found.values():
        opening.advance()
    heads = [opening.head() for opening in found.values()]
    for head in heads:
        np.testing.assert_array_equal(head, heads[0])
    error = np.abs(heads[0][:7, :4] - trained.dense).max()
    assert error < 1e-2
    # Smudging is most of it, as far as it was predicted.
    assert error < 8 * group.terms.error + 1e-4


def test_the_mailbox_with_two_of_three_hospitals_cannot_open(group: Group, trained: Trained) -> None:
    p, (period,) = group.terms.checked_parameters, group.terms.periods
    opened = Opened.read(trained.result[0], p, group.terms.final_level, period)
    partials = [party.share.partial(opened, np.zeros(period)) for party in group.parties.values()]
    everyone = fuse(opened, partials, p)
    assert np.abs(everyone).max() < 10
    for absent in range(3):
        two = fuse(opened, [part for n, part in enumerate(partials) if n != absent], p)
        assert np.abs(two).max() > 10
        assert abs(np.corrcoef(two.real, everyone.real)[0, 1]) < 0.9


def test_nothing_in_the_mailbox_gives_the_head_away(group: Group, trained: Trained) -> None:
    found = openings(group, trained.result)
    for opening in found.values():
        opening.consent()
    for opening in found.values():
        opening.advance()
    for name in NAMES:
        (own,) = (group.place / name).glob("answer.*")
        for path in (group.place / "mailbox").rglob("*"):
            assert path.is_dir() or own.read_bytes()[:64] not in path.read_bytes()


def test_a_refusal_leaves_it_closed_and_is_told(group: Group, trained: Trained) -> None:
    found = openings(group, trained.result)
    found["charite"].consent()
    found["tum"].consent()
    assert found["tum"].advance().absent == ("lmu",)
    found["lmu"].refuse("our ethics board has not met")
    for opening in found.values():
        with pytest.raises(
            FederationError, match="lmu refused: our ethics board has not met; the result stays closed"
        ):
            opening.advance()
    assert not list(group.place.rglob("answer.*"))


def test_who_vanishes_after_consenting_leaves_it_closed(group: Group, trained: Trained) -> None:
    found = openings(group, trained.result)
    for opening in found.values():
        opening.consent()
    found["tum"].advance()
    waiting = found["charite"].advance()
    assert (waiting.stage, waiting.absent) == ("share", ("lmu",))
    with pytest.raises(FederationError, match="not everybody answered"):
        found["charite"].head()


def test_a_ciphertext_is_answered_once(group: Group, trained: Trained) -> None:
    found = openings(group, trained.result)
    for opening in found.values():
        opening.consent()
    for opening in found.values():
        opening.advance()
    head = found["lmu"].head()
    (answer,) = (group.place / "lmu").glob("answer.*")
    before = answer.read_bytes()
    again = openings(group, trained.result)["lmu"]
    np.testing.assert_array_equal(again.head(), head)
    assert answer.read_bytes() == before
    # The same second polynomial under another first one is the same question to the secret.
    blob = bytearray(trained.result[0])
    blob[16 + 8] ^= 1
    for opening in (other := openings(group, [bytes(blob)])).values():
        opening.consent()
    with pytest.raises(FederationError, match="opened before"):
        other["lmu"].advance()


def test_what_is_not_the_programs_result_is_not_opened(group: Group, trained: Trained) -> None:
    party = group.parties["tum"]
    for wrong in ([trained.fresh], [trained.result[0][:-1]]):
        with pytest.raises(FederationError):
            Opening(party, wrong)
    with pytest.raises(FederationError, match="2 ciphertexts instead of 1"):
        Opening(party, trained.result * 2)


def test_no_more_openings_than_agreed(group: Group, trained: Trained) -> None:
    results = [[trained.result[0]], [bytearray(trained.result[0])]]
    # Another second polynomial: a bit in the second half of the residues.
    results[1][0][-100] ^= 1
    for n, result in enumerate(results):
        found = openings(group, [bytes(result[0])])
        for opening in found.values():
            opening.consent()
        if n == 0:
            for opening in found.values():
                opening.advance()
        else:
            with pytest.raises(FederationError, match="more than the 1 results agreed on"):
                found["lmu"].advance()


def test_an_altered_answer(group: Group, trained: Trained) -> None:
    found = openings(group, trained.result)
    for opening in found.values():
        opening.consent()
    for opening in found.values():
        opening.advance()
    (path,) = (group.place / "mailbox").glob("share-*/share.lmu")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FederationError, match="a message of lmu was altered"):
        found["tum"].head()


def test_consents_are_recorded(group: Group, trained: Trained) -> None:
    for opening in openings(group, trained.result).values():
        opening.consent()
    assert openings(group, trained.result)["tum"].advance().stage == "share"
    digest = hashlib.sha256(trained.result[0]).hexdigest().encode()
    for name in NAMES:
        records: list[Path] = list((group.place / "tum").glob(f"heard.consent-*.consent.{name}"))
        assert len(records) == 1
    (said,) = (group.place / "tum").glob("said.consent-*")
    assert digest in said.read_bytes()
