"""Prices of a machine: fitted to what they cost, never negative, and measured on a real engine."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.client import calibrate as module
from blindtune.client.calibrate import calibrate, fit, processor
from blindtune.kernels.machine import OPERATIONS, SWITCHES, Machine, Price

RING = 16384
SIZES = [(limbs, count, calls) for limbs, (count, calls) in product((2, 6, 12), ((1, 1), (4, 1), (32, 8)))]
PART = st.one_of(st.just(0.0), st.floats(0.05, 20))


@given(limb=st.floats(0.05, 20), digit=PART, call=st.one_of(st.just(0.0), st.floats(1e3, 1e6)), each=PART)
def test_known_prices_are_found(limb: float, digit: float, call: float, each: float) -> None:
    for switch in (True, False):
        wanted = Price(limb, digit if switch else 0.0, call, each)
        samples = [(n, *rest, wanted.seconds(n, RING, *rest)) for n, *rest in SIZES]
        found = fit(samples, RING, switch=switch)
        for n, count, calls, seconds in samples:
            assert found.seconds(n, RING, count, calls) == pytest.approx(seconds, rel=1e-6)
        assert found.limb == pytest.approx(wanted.limb, rel=1e-3)
        assert found.digit == pytest.approx(wanted.digit, rel=1e-3, abs=1e-3)
        assert found.call == pytest.approx(wanted.call, rel=1e-3, abs=10)
        assert found.call_limb == pytest.approx(wanted.call_limb, rel=1e-3, abs=1e-3)


@given(st.lists(st.floats(1e-7, 1.0), min_size=len(SIZES), max_size=len(SIZES)), st.booleans())
def test_no_part_of_a_price_is_negative(seconds: list[float], switch: bool) -> None:
    samples = [(*size, s) for size, s in zip(SIZES, seconds, strict=True)]
    found = fit(samples, RING, switch=switch)
    parts = (found.limb, found.digit, found.call, found.call_limb)
    assert all(np.isfinite(part) and part >= 0 for part in parts)
    assert sum(parts) > 0
    assert switch or found.digit == 0


def test_cheap_levels_count_as_much_as_dear_ones() -> None:
    # A cost that no price explains: least squares on seconds would give the cheap one up.
    samples = [(2, 1.0, 1.0, 1e-5), (20, 1.0, 1.0, 1e-2)]
    found = fit(samples, RING, switch=False)
    assert found.seconds(2, RING, 1, 1) < 5e-5


@pytest.fixture(scope="module")
def machine() -> tuple[Machine, list[tuple[int, int]]]:
    """Measured on the smallest ring that is secure, in half a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RINGS", {8192: 4})
        seen: list[tuple[int, int]] = []
        return calibrate(1, 0.5, lambda *done: seen.append(done)), seen


def test_every_operation_gets_a_price(machine: tuple[Machine, list[tuple[int, int]]]) -> None:
    found, seen = machine
    assert seen == [(1, 1)]
    assert found.cores == 1
    assert found.name.startswith(processor())
    # Switching levels costs nothing that can be measured.
    assert set(found.prices[8192]) == set(OPERATIONS) - {"switch"}
    for operation in found.prices[8192]:
        assert 0 < found.seconds(operation, 4, 8192, 1, 1) < 1
        assert found.seconds(operation, 4, 8192, 4, 1) <= 4.001 * found.seconds(operation, 4, 8192, 1, 1)
    for operation in SWITCHES:
        assert found.seconds(operation, 4, 8192, 1, 1) > found.seconds("add", 4, 8192, 1, 1)


def test_it_can_be_kept(machine: tuple[Machine, list[tuple[int, int]]]) -> None:
    assert Machine.from_json(machine[0].to_json()) == machine[0]


def test_real_rings_are_secure_and_high_enough() -> None:
    from blindtune.params import ParametersLiteral

    for ring_degree, levels in module.RINGS.items():
        assert ParametersLiteral(ring_degree, levels).checked().security == 128
        assert levels >= 6
