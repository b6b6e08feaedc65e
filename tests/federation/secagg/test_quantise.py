"""Quantised sums: exact modulo 2^32, within the proved bound, and never over the edge."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from blindtune.errors import FederationError
from blindtune.federation.secagg.quantise import Quantiser


@given(
    st.integers(1, 60).flatmap(
        lambda n: st.tuples(
            st.floats(1e-6, 1e6),
            arrays(np.float64, (n, 7), elements=st.floats(-2e6, 2e6, allow_nan=False)),
        )
    )
)
@settings(max_examples=200, deadline=None)
def test_a_sum_is_within_the_bound(drawn):
    clip, values = drawn
    quantiser = Quantiser(clip, len(values))
    total = np.zeros(7, np.uint32)
    for row in values:
        total += quantiser.encode(row)
    expected = [math.fsum(np.clip(column, -clip, clip)) for column in values.T]
    assert np.abs(quantiser.decode(total) - expected).max() <= quantiser.error(len(values))


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5, 31, 32, 33, 50, 65536])
@pytest.mark.parametrize("sign", [-1, 1])
def test_all_at_the_edge_do_not_overflow(members, sign):
    quantiser = Quantiser(1.0, members)
    assert members * quantiser.top < 2**31
    one = int(quantiser.encode(np.array([sign * 1e30]))[0])
    total = np.array([members * one % 2**32], np.uint32)
    assert quantiser.decode(total)[0] == pytest.approx(sign * members, rel=1e-12)


def test_known_answer():
    quantiser = Quantiser(2.0, 4)
    assert quantiser.top == 2**29 - 1
    words = quantiser.encode(np.array([2.0, -2.0, 0.0, 1e-12]))
    assert words.tolist() == [2**29 - 1, 2**32 - 2**29 + 1, 0, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused(bad):
    with pytest.raises(FederationError, match="not a number"):
        Quantiser(1.0, 3).encode(np.array([0.0, bad]))


def test_a_matrix_is_refused():
    with pytest.raises(FederationError, match="shape"):
        Quantiser(1.0, 3).encode(np.zeros((2, 2)))


@pytest.mark.parametrize(("clip", "members"), [(0.0, 3), (-1.0, 3), (np.nan, 3), (np.inf, 3), (1.0, 0)])
def test_a_grid_that_cannot_be_is_refused(clip, members):
    with pytest.raises(FederationError, match="positive clip"):
        Quantiser(clip, members)
