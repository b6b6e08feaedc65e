"""The cost model: counts are those of real runs, and prices grow with the work."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.he.engine import Ledger
from blindtune.he.secret import SecretKey
from blindtune.kernels import cost
from blindtune.kernels.layout import Layout
from blindtune.kernels.machine import SHIPPED
from blindtune.kernels.training import Program
from blindtune.params import Parameters, ParametersLiteral

PROGRAM = Program(2, 7, (0, 1), (1.0, 0.9))


@given(st.data())
def test_counts_are_those_of_a_run(
    layouts: Any,
    clear_engine: Any,
    draw_study: Any,
    exact: Parameters,
    data: st.DataObject,
) -> None:
    layout = data.draw(layouts())
    degree = data.draw(st.sampled_from([1, 3, 5, 7]))
    retain = data.draw(st.sampled_from([(1.0,) * 3, (1.0, 0.9, 0.0)]))
    momentum = data.draw(st.sampled_from([(), (0.0, 0.25, 0.4)]))
    program = Program(3, degree, (0, 1, 0), retain, momentum, data.draw(st.booleans()))
    heads = layout.lanes * layout.weight_blocks
    study = draw_study(layout, program, (layout.rows * layout.row_blocks, layout.columns, heads), 0)
    e = clear_engine(layout)
    study.trainer(e, e.encrypt).train(program, start=study.start(e.encrypt))
    assert cost.count(layout, program, exact) == e.ledger


def test_counts_are_those_of_an_encrypted_run(tiny_key: SecretKey, draw_study: Any) -> None:
    layout = Layout(512, 2, (8, 4), 4, 1, 1)
    study = draw_study(layout, PROGRAM, (200, 20, 2), 0)
    engine = tiny_key.engine(layout.keys())
    trainer = study.trainer(engine, lambda v: engine.load(tiny_key.encrypt(v)))
    engine.ledger = Ledger()
    trainer.train(PROGRAM)
    assert cost.count(layout, PROGRAM, tiny_key.parameters) == engine.ledger


def test_uploads_are_those_of_a_study(draw_study: Any) -> None:
    layout = Layout(512, 4, (8, 4), 4, 2, 2)
    study = draw_study(layout, PROGRAM, (200, 20, 8), 0)
    data, residuals = study.encrypted(lambda v: v)
    assert len(data) == layout.data_ciphertexts
    assert sum(map(len, residuals.values())) == cost.residual_ciphertexts(layout, PROGRAM)


def test_memory_of_a_ciphertext_and_of_keys(tiny: Parameters) -> None:
    # Two polynomials of a first residue of 8 bytes and eleven of 4; keys have the special prime's besides.
    assert cost.ciphertext_bytes(tiny) == 2 * (8 + 11 * 4) * 1024
    layout = Layout(512, 1, (8,), 4, 1, 1)
    keys = len(layout.keys().rotations) + 2
    assert cost.key_memory(layout, tiny) == keys * 12 * 2 * (8 + 11 * 4 + 8) * 1024


def test_a_prediction_adds_up() -> None:
    p = ParametersLiteral(16384, 11).checked()
    layout, program = Layout(8192, 2, (64,), 8, 1, 1), Program(3, 7, (0, 0, 0), (1.0,) * 3)
    found = cost.predict(layout, program, p)
    assert sum(found.operations.totals.values()) == sum(found.operations.counts.values())
    # Forward and backward over 64 diagonals in steps two and three, backward alone in step one;
    # nine products for the polynomial of degree seven.
    assert found.operations.totals["multiply"] == 5 * 64 + 2 * 9
    double = cost.predict(Layout(8192, 2, (64,), 8, 2, 1), program, p)
    assert double.upload_bytes == pytest.approx(2 * found.upload_bytes, abs=2)
    assert double.key_bytes == found.key_bytes
    assert double.memory_bytes > found.memory_bytes


def test_memory_holds_everything_once() -> None:
    p = ParametersLiteral(16384, 11).checked()
    layout, program = Layout(8192, 2, (64, 32), 8, 3, 1), Program(3, 7, (0, 0, 0), (1.0,) * 3)
    fresh = cost.ciphertext_bytes(p)
    data = layout.data_ciphertexts * fresh
    loaded = data + cost.residual_ciphertexts(layout, program) * fresh + cost.key_memory(layout, p)
    assert loaded < cost.memory_bytes(layout, program, p) < 2 * loaded


def test_the_quick_estimate_ranks_baby_steps_as_the_counts_do() -> None:
    p = ParametersLiteral(16384, 11).checked()
    program = Program(3, 7, (0, 0, 0), (1.0,) * 3)
    for heads, blocks in ((1, 1), (5, 13)):
        candidates = [Layout(8192, 1, (128,), 1 << b, blocks, heads) for b in range(6)]
        exact = [SHIPPED.total(cost.count(x, program, p), p.ring_degree) for x in candidates]
        quick = [cost.estimate(x, program, p, SHIPPED) for x in candidates]
        assert exact[quick.index(min(quick))] <= 1.05 * min(exact)
        for a, b in zip(exact, quick, strict=True):
            assert 0.8 < b / a < 1.25
