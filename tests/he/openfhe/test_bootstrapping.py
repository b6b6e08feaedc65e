"""Bootstrapping at parameters without any security."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from blindtune.errors import EngineError, ParametersError
from blindtune.he.openfhe.bootstrapping import Bootstrapping
from blindtune.he.openfhe.bootstrapping_engine import BootstrappingEngine
from blindtune.he.openfhe.bootstrapping_owner import BootstrappingKey
from blindtune.he.openfhe.secret import OpenFheSecretKey
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program
from blindtune.params import ParametersLiteral
from tests.openfhe import needs_openfhe

LITERAL = Bootstrapping(1024, 4, 32, security=0)
LAYOUT = Layout(512, 8, (4,), 2, 1, 1)


@pytest.fixture(scope="module")
def key() -> BootstrappingKey:
    return BootstrappingKey.generate(LITERAL)


@pytest.fixture(scope="module")
def engine(key: BootstrappingKey) -> BootstrappingEngine:
    return key.engine(LAYOUT.keys())


@needs_openfhe
def test_weights_come_back_with_all_levels(key: BootstrappingKey, engine: BootstrappingEngine) -> None:
    rng = np.random.default_rng(0)
    values = np.tile(rng.uniform(-0.5, 0.5, 32) + 1j * rng.uniform(-0.5, 0.5, 32), 16)
    fresh = engine.load(key.encrypt(values))
    assert fresh.level == LITERAL.levels
    low = engine.at_level(fresh, 1)
    # A study under another kind of key, in the same process, empties OpenFHE's table of keys.
    OpenFheSecretKey.generate(ParametersLiteral(1024, 2, 53, 56, 60, security=0).checked()).galois_key(5)
    OpenFheSecretKey.generate(ParametersLiteral(1024, 2, 53, 56, 60, security=0).checked()).engine(
        LAYOUT.keys()
    )
    (again,) = engine.refresh([low])
    assert again.level == LITERAL.levels
    np.testing.assert_allclose(key.decrypt(engine.load(engine.dump(again))), values, atol=5e-3)
    with pytest.raises(EngineError, match="no level left for a bootstrap"):
        engine.refresh([engine.at_level(fresh, 0)])


@needs_openfhe
def test_three_steps_on_the_levels_of_one(
    key: BootstrappingKey, engine: BootstrappingEngine, draw_study: Callable[..., Any]
) -> None:
    program = Program(3, 1, (0,) * 3, (0.9,) * 3, refreshes=(1, 2))
    drawn = draw_study(LAYOUT, program, (60, 7, 5), seed=3)
    study = replace(drawn, y=drawn.y / 6)
    weights = study.trainer(engine, lambda values: engine.load(key.encrypt(values))).train(program)
    expected = study.dense()
    assert 0.1 < np.abs(expected).max() < 1
    assert np.abs(study.head(weights, key.decrypt) - expected).max() < 1e-2


def test_the_2024_table_counts_special_primes() -> None:
    real = Bootstrapping(65536, 6, 512)
    assert real.check() is real
    assert 1740 < real.modulus_bits <= 1747
    for wrong in (replace(real, levels=7), replace(real, digits=4), replace(real, ring_degree=32768)):
        with pytest.raises(ParametersError, match="the 2024 table allows"):
            wrong.check()
