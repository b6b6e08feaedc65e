"""Coefficients of slots as the library encodes them, and noise of the size that the derivation asks for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import EngineError
from blindtune.he.codec import context, sealapi
from blindtune.he.fast.tables import reversed_bits, roots
from blindtune.he.flooding import STATISTICAL_BITS, coefficients, deviation, slots


@given(st.integers(0, 8), st.integers(0, 2**32 - 1))
def test_slots_come_back_from_their_coefficients(log_slots, seed):
    rng, scale = np.random.default_rng(seed), 2.0**40
    values = rng.normal(size=1 << log_slots) + 1j * rng.normal(size=1 << log_slots)
    found = coefficients(values, scale)
    assert found.shape == (2 << log_slots,)
    # Rounding moves each of the 2w coefficients by half a step at most.
    assert np.abs(slots(found, scale) - values).max() <= (2 << log_slots) * 0.51 / scale


def first_residues(key, values):
    """The library's own encoding of slots, transformed, modulo the first prime."""
    plain = sealapi().Plaintext()
    sealapi().CKKSEncoder(context(key.parameters)).encode(values.tolist(), key.parameters.scale, plain)
    return [plain.data(i) for i in range(key.parameters.ring_degree)]


def test_coefficients_are_those_of_the_library(tiny_key):
    rng, p = np.random.default_rng(1), tiny_key.parameters
    values = rng.normal(size=p.slots) + 1j * rng.normal(size=p.slots)
    found = [int(c) for c in coefficients(values, p.scale)]
    residues = first_residues(tiny_key, values)
    n, q = p.ring_degree, p.primes[0]
    order = reversed_bits(n)
    root = int(roots(q, n)[0][order[1]])
    for place in (0, 1, 77, n - 1):
        power = pow(root, 2 * int(order[place]) + 1, q)
        value = 0
        for c in reversed(found):
            value = (value * power + c) % q
        assert value == residues[place]


def test_a_period_is_the_part_in_the_subring():
    rng, scale = np.random.default_rng(2), 2.0**30
    period = rng.normal(size=8) + 1j * rng.normal(size=8)
    whole = coefficients(np.tile(period, 16), scale)
    np.testing.assert_array_equal(whole[::16], coefficients(period, scale))
    assert not np.delete(whole, np.s_[::16]).any()


def test_noise_is_as_large_as_the_theorem_asks():
    assert STATISTICAL_BITS >= 40
    for length, releases in ((1.0, 1), (300.0, 7)):
        divergence = releases * length**2 / (2 * deviation(length, releases) ** 2)
        assert divergence == pytest.approx(2.0**-STATISTICAL_BITS / 24)
        assert math.sqrt(divergence / 2) < 2.0 ** -(STATISTICAL_BITS / 2 + 2.7)


@pytest.mark.parametrize("values", [np.ones(3, complex), np.array([np.nan + 0j]), np.array([1e12 + 0j])])
def test_slots_that_cannot_be(values):
    with pytest.raises(EngineError):
        coefficients(values, 2.0**40)
