"""Noisy sums: what a contribution can add, exactly, and the noise on top."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from blindtune.errors import PrivacyError
from blindtune.privacy.mechanism import FINEST, Mechanism, sampled


@given(st.integers(1, 400), st.floats(1e-3, 1e3), st.floats(0.05, 50), st.integers(1, 34), st.integers(0, 99))
def test_no_contribution_is_longer_than_the_clip(length, clip, noise, parties, seed):
    mechanism = Mechanism(length, clip, noise, parties)
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(5, length)) * clip * 10.0 ** rng.uniform(-4, 4, (5, 1))
    whole = mechanism.whole(rows)
    # In whole numbers, so that nothing of this is rounded.
    limit = math.floor((clip / mechanism.step) ** 2)
    assert all(sum(int(v) ** 2 for v in row) <= limit for row in whole)
    assert mechanism.scale >= FINEST * (1 - 1e-9)
    assert mechanism.scale * mechanism.step * math.sqrt(parties) == pytest.approx(noise * clip)


def test_short_contributions_come_through_and_long_ones_keep_their_direction():
    mechanism = Mechanism(100, 1.0, 1.0)
    rng = np.random.default_rng(0)
    short = rng.normal(size=(1, 100))
    short *= 0.5 / np.linalg.norm(short)
    np.testing.assert_allclose(mechanism.whole(short) * mechanism.step, short, atol=mechanism.step / 2)
    long = mechanism.whole(short * 1e6) * mechanism.step
    np.testing.assert_allclose(long / 0.99, short * 2, atol=mechanism.step)


def test_noise_is_as_wide_as_the_account_says():
    for parties in (1, 3):
        mechanism = Mechanism(4_000, 2.0, 1.5, parties)
        total = sum(mechanism.noisy(np.zeros(4_000, np.int64)) for _ in range(parties)) * mechanism.step
        assert total.std() == pytest.approx(3.0, rel=6 / math.sqrt(8_000))
    assert mechanism.release(0.1).noise == 1.5


def discrete_delta(scale: float, shift: int, epsilon: float) -> float:
    """Delta of a whole-numbered shift under discrete Gaussian noise, by summing its probabilities."""
    x = np.arange(-int(40 * scale), int(40 * scale) + 1)
    p = np.exp(-(x**2) / (2 * scale**2))
    p /= p.sum()
    # log p(x) / p(x - shift)
    loss = (shift**2 - 2 * x * shift) / (2 * scale**2)
    return float((p * np.maximum(0.0, 1 - np.exp(epsilon - loss))).sum())


@pytest.mark.parametrize("noise", [0.7, 1.0, 4.0])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_discrete_noise_on_the_finest_grid_costs_what_continuous_noise_does(noise, epsilon):
    shift = round(FINEST / noise)
    effective = FINEST / shift
    a, b = 0.5 / effective - epsilon * effective, -0.5 / effective - epsilon * effective
    continuous = norm.cdf(a) - math.exp(epsilon) * norm.cdf(b)
    assert discrete_delta(FINEST, shift, epsilon) <= continuous * 1.001 + 1e-12


@pytest.mark.parametrize(
    "numbers", [(0, 1.0, 1.0, 1), (5, 0.0, 1.0, 1), (5, 1.0, 0.0, 1), (5, 1.0, math.nan, 1), (5, 1.0, 1.0, 0)]
)
def test_mechanisms_that_cannot_be(numbers):
    with pytest.raises(PrivacyError):
        Mechanism(*numbers)


@pytest.mark.parametrize(
    "rows", [np.zeros(3), np.zeros((2, 4)), np.full((1, 3), np.nan), np.full((1, 3), np.inf)]
)
def test_contributions_that_cannot_be(rows):
    with pytest.raises(PrivacyError):
        Mechanism(3, 1.0, 1.0).whole(rows)


class TestSampling:
    def test_one_row_of_each_patient(self):
        patients = np.array([5, 1, 5, 2, 2, 2, 9])
        for _ in range(50):
            rows = sampled(patients, 1.0)
            assert sorted(patients[rows]) == [1, 2, 5, 9]

    def test_every_row_of_a_patient_is_drawn_alike(self):
        patients = np.array([3, 3, 3, 8])
        drawn = np.concatenate([sampled(patients, 1.0) for _ in range(3_000)])
        counts = np.bincount(drawn, minlength=4)
        assert counts[3] == 3_000
        # Six standard deviations of a binomial.
        assert np.abs(counts[:3] - 1_000).max() < 6 * math.sqrt(3_000 * 2 / 9)

    def test_patients_take_part_independently(self):
        sizes = np.array([len(sampled(np.arange(400), 0.1)) for _ in range(500)])
        assert abs(sizes.mean() - 40) < 6 * math.sqrt(36 / 500)
        # Poisson sampling, not batches of one size.
        assert sizes.var() == pytest.approx(36, rel=0.5)

    def test_nobody(self):
        assert len(sampled(np.empty(0, np.int64), 0.5)) == 0
