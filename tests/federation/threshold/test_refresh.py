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
from blindtune.federation.threshold.refresh import Refresh
from blindtune.federation.threshold.terms import Terms
from blindtune.federation.threshold.transcript import Transcript
from blindtune.he.engines import evaluation_engine
from blindtune.kernels.blocks import Blocks
from blindtune.kernels.packing import pack_weights
from blindtune.kernels.training import Program, Trainer
from blindtune.params import ParametersLiteral
from blindtune.wire.manifest import parameters_model, program_model
from tests.federation.threshold.conftest import LAYOUT, NAMES, Group
from tests.openfhe import needs_openfhe

pytestmark = needs_openfhe
ONE = Program(1, 3, (0,), (1.0,), started=True)
"""A step from given weights: four levels, and three for the refresh."""


@pytest.fixture(scope="module")
def rounds(draw_group: Callable[[Path], Group], tmp_path_factory: pytest.TempPathFactory) -> Group:
    """A study of many steps whose keys are made."""
    group = draw_group(tmp_path_factory.mktemp("rounds"))
    changes = {
        "parameters": parameters_model(ParametersLiteral(1024, 7, 53, 56, 60, security=0).checked()),
        "program": program_model(ONE),
        "task": None,
    }
    group.terms = Terms.parse(group.terms.model_copy(update=changes).model_dump_json().encode())
    group.run()
    return group


def refreshed(group: Group, result: list[bytes]) -> list[bytes]:
    for name in NAMES:
        party = group.party(name)
        Refresh(party.transcript, result).answer(party)
    return Refresh(Transcript(group.terms, group.mailbox), result).fresh()


def test_ten_steps(rounds: Group, draw_study: Callable[..., Any]) -> None:
    layout = replace(LAYOUT, row_blocks=1)
    drawn = draw_study(layout, Program(10, 3, (0,) * 10, (1.0,) * 10), (LAYOUT.rows, 7, 4), seed=5)
    study = replace(drawn, sets=(np.array([0.9, -0.02]),))
    group = rounds
    public = group.parties["lmu"].public_key
    relin, galois = Transcript(group.terms, group.mailbox).evaluation_keys()
    p = group.terms.checked_parameters
    engine = evaluation_engine(p, group.terms.keys, relin, galois, accelerator="openfhe")
    data, residuals = study.encrypted(lambda v: engine.load(public.encrypt(v)))
    result = [public.encrypt(v) for v in pack_weights(np.zeros((7, 4)), LAYOUT)]
    for step in range(10):
        if step:
            result = refreshed(group, result)
        trainer = Trainer(Blocks(engine, layout, dict(data), residuals))
        weights = trainer.train(ONE, start=[[engine.load(blob) for blob in result]])
        result = [engine.dump(c) for block in weights for c in block]
    openings = [Opening(party, result) for party in group.parties.values()]
    for opening in openings:
        opening.consent()
    for opening in openings:
        opening.advance()
    expected = study.dense()
    assert 0.5 < np.abs(expected).max() < 4
    assert np.abs(openings[0].head()[:7, :4] - expected).max() < 8 * group.terms.error + 1e-3


def test_a_hospital_that_is_away_holds_it_up_and_says_the_same_later(rounds: Group, tmp_path: Path) -> None:
    group = rounds.copy(tmp_path / "study")
    result = [group.parties["lmu"].public_key.encrypt(np.full(512, 0.25))]
    refresh = Refresh(Transcript(group.terms, group.mailbox), result)
    for name in ("charite", "tum"):
        refresh.answer(group.parties[name])
    assert refresh.advance().absent == ("lmu",)
    with pytest.raises(FederationError, match="lmu has not answered"):
        refresh.fresh()
    refresh.answer(group.parties["lmu"])
    said = {name: next((group.place / name).glob("said.refresh-*")).read_bytes() for name in NAMES}
    fresh = refresh.fresh()
    assert refreshed(group, result) == fresh
    for name, message in said.items():
        assert next((group.place / name).glob("said.refresh-*")).read_bytes() == message
    assert len(fresh[0]) == len(result[0])


def test_an_altered_part_and_what_cannot_be_refreshed(rounds: Group, tmp_path: Path) -> None:
    group = rounds.copy(tmp_path / "study")
    result = [group.parties["lmu"].public_key.encrypt(np.full(512, 0.25))]
    transcript = Transcript(group.terms, group.mailbox)
    refresh = Refresh(transcript, result)
    for party in group.parties.values():
        refresh.answer(party)
    path = group.place / "mailbox" / refresh.stage / "refresh.tum"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FederationError, match="a message of tum was altered"):
        refresh.fresh()
    relin, galois = transcript.evaluation_keys()
    p = group.terms.checked_parameters
    engine = evaluation_engine(p, group.terms.keys, relin, galois, accelerator="openfhe")
    low = engine.dump(engine.at_level(engine.load(result[0]), 2))
    with pytest.raises(FederationError, match="3 levels left"):
        Refresh(transcript, [low])
    with pytest.raises(FederationError, match="2 ciphertexts instead of 1"):
        Refresh(transcript, result * 2)
