"""Discrete Gaussian noise: its probabilities, its spread, and how little a sum differs from one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from blindtune.errors import PrivacyError
from blindtune.privacy.noise import discrete_gaussian, slack


def test_probabilities_are_those_of_the_discrete_gaussian():
    drawn = discrete_gaussian(1.5, 20_000)
    values = np.arange(-5, 6)
    weights = np.exp(-(np.arange(-60, 61) ** 2) / (2 * 1.5**2))
    expected = np.exp(-(values**2) / (2 * 1.5**2)) / weights.sum() * len(drawn)
    counts = np.array([(drawn == v).sum() for v in values])
    rest = len(drawn) - counts.sum(), len(drawn) - expected.sum()
    # A test that wrongly fails once in a million runs.
    assert chisquare([*counts, rest[0]], [*expected, rest[1]]).pvalue > 1e-6


@pytest.mark.parametrize("scale", [0.5, 30.0, 1e6, 1e13])
def test_spread(scale):
    drawn = discrete_gaussian(scale, 5_000)
    assert drawn.dtype == np.int64
    if scale >= 1:
        # Relative standard error of a standard deviation of n draws: 1 / sqrt(2 n).
        assert drawn.std() == pytest.approx(scale, rel=6 / np.sqrt(2 * len(drawn)))
    assert abs(drawn.mean()) < 6 * max(scale, 1) / np.sqrt(len(drawn))


def test_two_draws_differ():
    assert (discrete_gaussian(1000.0, 50) != discrete_gaussian(1000.0, 50)).any()


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 1e16])
def test_scales_that_cannot_be(scale):
    with pytest.raises(PrivacyError, match="steps"):
        discrete_gaussian(scale, 1)


def test_a_sum_of_wide_noise_is_a_discrete_gaussian_for_all_purposes():
    assert slack(10.0, 50) < 1e-300
    assert slack(0.5, 2) == pytest.approx(10 * np.exp(-2 * np.pi**2 * 0.25 / 2))
    assert slack(1.0, 1) == 0
