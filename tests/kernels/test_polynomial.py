"""The encrypted odd polynomial against numpy, its depth and its key switches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import EngineError
from blindtune.he.clear import ClearEngine
from blindtune.he.engine import KeySet
from blindtune.he.secret import SecretKey
from blindtune.kernels.polynomial import DEPTH, SWITCHES, odd_polynomial
from blindtune.params import Parameters


@given(
    degree=st.sampled_from(sorted(DEPTH)),
    start=st.integers(3, 17),
    above=st.integers(0, 14),
    seed=st.integers(0, 99),
)
def test_value_and_level(exact: Parameters, degree: int, start: int, above: int, seed: int) -> None:
    e, rng = ClearEngine(exact, KeySet(())), np.random.default_rng(seed)
    u = rng.uniform(-1.2, 1.2, 512)
    c = rng.normal(size=((degree + 1) // 2, 512))
    high = min(start + above, exact.levels)
    coefficients = [e.at_level(e.encrypt(k), high) for k in c]
    v = rng.uniform(-1.2, 1.2, 512)
    value, other = odd_polynomial(
        e, [e.at_level(e.encrypt(x), start) for x in (u, v)], [coefficients, coefficients[::-1]]
    )
    assert (value.level, value.product, value.size) == (start - DEPTH[degree], False, 2)
    expected = sum(k * u ** (2 * i + 1) for i, k in enumerate(c))
    np.testing.assert_allclose(e.decrypt(value), expected, atol=1e-5)
    expected = sum(k * v ** (2 * i + 1) for i, k in enumerate(c[::-1]))
    np.testing.assert_allclose(e.decrypt(other), expected, atol=1e-5)


@pytest.mark.parametrize(("degree", "switches"), [(1, 1), (3, 3), (5, 5), (7, 6)])
def test_key_switches(exact: Parameters, degree: int, switches: int) -> None:
    e: Any = ClearEngine(exact, KeySet(()))
    one = e.encrypt(np.ones(512))
    odd_polynomial(e, [one], [[one] * ((degree + 1) // 2)])
    assert sum(n for (name, _), n in e.ledger.counts.items() if name == "relinearise") == switches
    assert SWITCHES[degree] == switches


@pytest.mark.parametrize("degree", sorted(DEPTH))
def test_encrypted(tiny_key: SecretKey, degree: int) -> None:
    engine, rng = tiny_key.engine(KeySet(())), np.random.default_rng(degree)
    u = rng.uniform(-1, 1, 512)
    c = rng.normal(size=((degree + 1) // 2, 512))
    load = engine.load
    [value] = odd_polynomial(engine, [load(tiny_key.encrypt(u))], [[load(tiny_key.encrypt(k)) for k in c]])
    expected = sum(k * u ** (2 * i + 1) for i, k in enumerate(c))
    # The drift of the scales is the same in every run; what differs from the clear engine is noise.
    np.testing.assert_allclose(tiny_key.decrypt(value), expected, atol=2e-3)
    e = ClearEngine(tiny_key.parameters, KeySet(()))
    drifted = e.decrypt(odd_polynomial(e, [e.encrypt(u)], [[e.encrypt(k) for k in c]])[0])
    np.testing.assert_allclose(tiny_key.decrypt(value), drifted, atol=2e-5)


@pytest.mark.parametrize("count", [0, 5])
def test_other_degrees_are_refused(exact: Parameters, count: int) -> None:
    e = ClearEngine(exact, KeySet(()))
    one = e.encrypt(np.ones(512))
    with pytest.raises(EngineError, match=r"degree 1, 3, 5 or 7"):
        odd_polynomial(e, [one], [[one] * count])


@pytest.mark.parametrize("degree", sorted(DEPTH))
def test_too_few_levels_are_refused(exact: Parameters, degree: int) -> None:
    e = ClearEngine(exact, KeySet(()))
    one = e.encrypt(np.ones(512))
    low = e.at_level(one, DEPTH[degree] - 1)
    with pytest.raises(EngineError, match="no level left"):
        odd_polynomial(e, [low], [[one] * ((degree + 1) // 2)])
