"""More steps than the levels allow: weights that go round the hospitals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindtune.errors import FederationError
from blindtune.federation.threshold.decryption import Opening
from blindtune.federation.threshold.party import Waiting
from blindtune.federation.threshold.refresh import Refresh
from blindtune.federation.threshold.rehearsal import Rehearsal
from blindtune.federation.threshold.rows import manifest_of, write_keys
from blindtune.federation.threshold.terms import Terms
from blindtune.federation.threshold.transcript import Transcript
from blindtune.he.engine import Ciphertext
from blindtune.he.engines import evaluation_engine
from blindtune.kernels.training import Program
from blindtune.params import ParametersLiteral
from blindtune.wire.bundle import write_bundle
from blindtune.wire.manifest import layout_model, parameters_model, program_model
from blindtune.wire.study import dumped, open_study
from tests.federation.threshold.conftest import LAYOUT, NAMES, Group
from tests.openfhe import needs_openfhe

pytestmark = needs_openfhe
LEVELS = 11
"""Two steps take eight, five from zero, and a refresh needs three."""

REFRESHES = (2, 4, 6, 8)
PROGRAM = Program(10, 3, (0,) * 10, (1.0,) * 10, (0.0,) * 8 + (0.25,) * 2, False, REFRESHES)
"""Ten steps, two at a time; the last two look back."""


@pytest.fixture(scope="module")
def rounds(draw_group: Callable[[Path], Group], tmp_path_factory: pytest.TempPathFactory) -> Group:
    """A study of many steps whose keys are made."""
    group = draw_group(tmp_path_factory.mktemp("rounds"))
    changes = {
        "parameters": parameters_model(ParametersLiteral(1024, LEVELS, 53, 56, 60, security=0).checked()),
        "program": program_model(PROGRAM),
        "task": None,
    }
    group.terms = Terms.parse(group.terms.model_copy(update=changes).model_dump_json().encode())
    group.run()
    return group


def weights(group: Group, level: int, value: float = 0.25) -> list[bytes]:
    """Weights at a level."""
    p, transcript = group.terms.checked_parameters, Transcript(group.terms, group.mailbox)
    relin, galois = transcript.evaluation_keys()
    engine = evaluation_engine(p, group.terms.keys, relin, galois, accelerator="openfhe")
    fresh = engine.load(group.parties["lmu"].public_key.encrypt(np.full(p.slots, value)))
    return [engine.dump(engine.at_level(fresh, level))]


def bundles(group: Group, study: Any) -> list[Path]:
    """The joint keys, and each hospital's row block."""
    place, public = group.place / "server", group.parties["lmu"].public_key
    write_keys(Transcript(group.terms, group.mailbox), place / "keys")
    data, residuals = study.encrypted(public.encrypt)
    for n, name in enumerate(NAMES):
        parts = [("data-0-0", [data[n, 0, g, b] for g in range(4) for b in range(2)])]
        parts.append(("residual-0-0-0", residuals[0, 0, n]))
        layout = layout_model(replace(LAYOUT, row_blocks=1))
        write_bundle(place / name, manifest_of(group.terms, "data", name, layout), parts)
    return [place / name for name in ("keys", *NAMES)]


def answer(group: Group, number: int, stale: list[bytes], names: tuple[str, ...] = NAMES) -> None:
    """Hospitals, each as a process that is started anew, answer a refresh."""
    for name in names:
        party = group.party(name)
        Refresh(party.transcript, number, stale).answer(party)


class _Away(Exception):
    """A hospital does not answer."""


def test_ten_steps(rounds: Group, draw_study: Callable[..., Any], tmp_path: Path) -> None:
    """One hospital is away at one refresh; the training is stopped there, and begins anew when it is back."""
    group = rounds.copy(tmp_path / "study")
    drawn = draw_study(LAYOUT, PROGRAM, (3 * LAYOUT.rows, 7, 4), seed=5)
    study = replace(drawn, sets=(np.array([0.9, -0.02]),))
    found = bundles(group, study)
    trained = open_study(found[0], found[1:], insecure=True)
    engine, away = trained.trainer.engine, True

    def refresh(number: int, weights: list[Ciphertext]) -> list[Ciphertext]:
        stale = [engine.dump(c) for c in weights]
        one = Refresh(Transcript(group.terms, group.mailbox), number, stale)
        if away and number == 1:
            answer(group, number, stale, ("charite", "tum"))
            assert one.advance() == Waiting("refresh-1", ("lmu",))
            raise _Away
        # What was answered before is asked again, residue by residue: anything else would be refused.
        answer(group, number, stale)
        return [engine.load(data) for data in one.fresh()]

    with pytest.raises(_Away):
        trained.trainer.train(PROGRAM, refresh=refresh)
    opening = Opening(group.party("tum"), weights(group, group.terms.final_level))
    with pytest.raises(FederationError, match="a message before"):
        opening.consent()
    away = False
    blocks = dumped(trained.trainer, trained.trainer.train(PROGRAM, refresh=refresh))
    result = [data for block in blocks for data in block]
    openings = [Opening(group.party(name), result) for name in NAMES]
    for opening in openings:
        opening.consent()
    for opening in openings:
        opening.advance()
    expected = study.dense()
    assert 0.5 < np.abs(expected).max() < 4
    assert np.abs(openings[0].head()[:7, :4] - expected).max() < 8 * group.terms.error + 1e-3


@pytest.fixture(scope="module")
def first(rounds: Group) -> list[bytes]:
    """Weights as the first refresh takes them."""
    return weights(rounds, LEVELS - 5)


def test_a_hospital_says_the_same_again(rounds: Group, first: list[bytes], tmp_path: Path) -> None:
    group = rounds.copy(tmp_path / "study")

    def refreshed() -> list[bytes]:
        for name in NAMES:
            party = group.party(name)
            Refresh(party.transcript, 0, first).answer(party)
        return Refresh(Transcript(group.terms, group.mailbox), 0, first).fresh()

    fresh = refreshed()
    said = {name: (group.place / name / "said.refresh-0.refresh").read_bytes() for name in NAMES}
    assert refreshed() == fresh
    for name, message in said.items():
        assert (group.place / name / "said.refresh-0.refresh").read_bytes() == message
    assert len(fresh[0]) > len(first[0])


def test_a_hospital_refreshes_each_agreed_weights_once_and_in_order(
    rounds: Group, first: list[bytes], tmp_path: Path
) -> None:
    group = rounds.copy(tmp_path / "study")
    party, later = group.parties["tum"], weights(group, LEVELS - 8)
    with pytest.raises(FederationError, match="a message before"):
        Refresh(party.transcript, 1, later).answer(party)
    Refresh(party.transcript, 0, first).answer(party)
    with pytest.raises(FederationError, match="the weights of refresh 1 differs from what was heard"):
        Refresh(party.transcript, 0, weights(group, LEVELS - 5)).answer(party)
    with pytest.raises(FederationError, match="refresh 5 of 4 that were agreed on"):
        Refresh(party.transcript, 4, first)
    assert not list((group.place / "tum").glob("said.refresh-1*"))


def test_what_the_program_does_not_refresh_is_refused(rounds: Group, first: list[bytes]) -> None:
    transcript = Transcript(rounds.terms, rounds.mailbox)
    for number, wrong in ((0, weights(rounds, LEVELS)), (0, weights(rounds, LEVELS - 8)), (1, first)):
        with pytest.raises(FederationError, match="not a ciphertext as the agreed program has refreshed"):
            Refresh(transcript, number, wrong)
    with pytest.raises(FederationError, match="2 ciphertexts instead of 1"):
        Refresh(transcript, 0, first * 2)
    with pytest.raises(FederationError, match="1 ciphertexts instead of 2"):
        Refresh(transcript, len(REFRESHES) - 1, first)


def test_an_altered_part_and_other_weights(rounds: Group, first: list[bytes], tmp_path: Path) -> None:
    group = rounds.copy(tmp_path / "study")
    refresh = Refresh(Transcript(group.terms, group.mailbox), 0, first)
    refresh.answer(group.parties["charite"])
    refresh.answer(group.parties["lmu"])
    other = weights(group, LEVELS - 5)
    Refresh(group.parties["tum"].transcript, 0, other).answer(group.parties["tum"])
    with pytest.raises(FederationError, match="tum refreshed other weights"):
        refresh.fresh()
    path = group.place / "mailbox" / refresh.stage / "refresh.lmu"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FederationError, match="a message of lmu was altered"):
        refresh.fresh()


def test_a_study_that_was_ended_is_not_refreshed(rounds: Group, first: list[bytes], tmp_path: Path) -> None:
    group = rounds.copy(tmp_path / "study")
    group.parties["charite"].end("the server was moved")
    for party in group.parties.values():
        with pytest.raises(FederationError, match="charite ended the study: the server was moved"):
            Refresh(party.transcript, 0, first).answer(party)
    assert not list(group.place.rglob("*refresh-0*"))


def test_terms_without_levels_for_a_refresh(rounds: Group) -> None:
    low = ParametersLiteral(1024, LEVELS - 1, 53, 56, 60, security=0).checked()
    terms = rounds.terms.model_copy(update={"parameters": parameters_model(low)})
    with pytest.raises(FederationError, match="fewer than the 3 levels that a refresh needs"):
        Terms.parse(terms.model_dump_json().encode())


def test_the_rehearsal_refreshes_too(draw_study: Callable[..., Any]) -> None:
    p = ParametersLiteral(1024, LEVELS, 53, 56, 60, security=0).checked()
    layout = replace(LAYOUT, row_blocks=1)
    program = Program(3, 3, (0,) * 3, (1.0,) * 3, (0.0, 0.25, 0.25), False, (2,))
    study = draw_study(layout, program, (LAYOUT.rows, 7, 4), seed=0)

    def train(engine: Any, encrypt: Any) -> Any:
        return study.trainer(engine, encrypt).train(program)

    assert 0 < Rehearsal(p, layout, 3).length(train) < 2.0**18
