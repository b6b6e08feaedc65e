"""Epsilon: never below the exact value, within a percent of it, and composed as dp-accounting composes."""

from __future__ import annotations

import math

import dp_accounting as dp
import pytest
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from blindtune.errors import PrivacyError
from blindtune.privacy.account import Release, epsilon, merged, noise_for


def exact(noise: float, delta: float) -> float:
    """Epsilon of one Gaussian release, exactly (Balle and Wang 2018, theorem 8)."""

    def gap(eps: float) -> float:
        a, b = 0.5 / noise - eps * noise, -0.5 / noise - eps * noise
        return float(norm.cdf(a) - math.exp(eps) * norm.cdf(b) - delta)

    return float(brentq(gap, 0, 200)) if gap(0) > 0 else 0.0


@given(st.floats(0.4, 30), st.sampled_from([1e-3, 1e-5, 1e-7]))
@settings(max_examples=25, deadline=None)
def test_one_release_against_the_exact_formula(noise, delta):
    found, true = epsilon([Release(noise)], delta), exact(noise, delta)
    assert true <= found * (1 + 1e-9)
    assert found <= 1.01 * true + 1e-6


@pytest.mark.parametrize(("noise", "count"), [(5.0, 4), (20.0, 100), (3.0, 9)])
def test_releases_without_sampling_are_one_with_less_noise(noise, count):
    assert epsilon([Release(noise, 1.0, count)], 1e-5) == pytest.approx(
        exact(noise / count**0.5, 1e-5), rel=0.01
    )


@pytest.mark.parametrize(
    ("noise", "sampling", "count"),
    [(1.0, 0.01, 1000), (0.7, 0.05, 100), (2.0, 0.2, 50), (8.0, 0.5, 30), (1.0, 1.0, 3)],
)
def test_sampled_steps_as_dp_accounting_counts_them(noise, sampling, count):
    accountant = PLDAccountant()
    event = dp.PoissonSampledDpEvent(sampling, dp.GaussianDpEvent(noise))
    accountant.compose(dp.SelfComposedDpEvent(event, count))
    theirs = accountant.get_epsilon(1e-5)
    ours = epsilon([Release(noise, sampling, count)], 1e-5)
    assert ours == pytest.approx(theirs, rel=0.01)
    assert ours >= theirs * (1 - 1e-9)
    # Renyi accounting is an upper bound by another way.
    renyi = dp.rdp.RdpAccountant()
    renyi.compose(dp.SelfComposedDpEvent(event, count))
    assert ours <= renyi.get_epsilon(1e-5)


def test_a_studys_kinds_of_releases_together_as_dp_accounting_counts_them():
    accountant = PLDAccountant()
    # Steps on sampled patients, moments once, validation counts in every round.
    accountant.compose(dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(0.2, dp.GaussianDpEvent(1.1)), 30))
    accountant.compose(dp.GaussianDpEvent(6.0))
    accountant.compose(dp.SelfComposedDpEvent(dp.GaussianDpEvent(20.0), 30))
    theirs = accountant.get_epsilon(1e-4)
    ours = epsilon([Release(20.0, 1.0, 30), Release(1.1, 0.2, 30), Release(6.0)], 1e-4)
    assert theirs * (1 - 1e-9) <= ours <= 1.01 * theirs


def test_nothing_costs_nothing_and_more_costs_more():
    assert epsilon([], 1e-5) == 0
    one, two = Release(2.0, 0.1, 10), Release(1.0)
    assert 0 < epsilon([one], 1e-5) < epsilon([two], 1e-5) < epsilon([one, two], 1e-5)


def test_releases_of_a_kind_are_merged():
    parts = [Release(1.0, 0.1, 2), Release(2.0), Release(1.0, 0.1, 3)]
    assert merged(parts) == [Release(1.0, 0.1, 5), Release(2.0)]


@pytest.mark.parametrize("target", [0.5, 3.0, 8.0])
def test_noise_for_a_target_stays_within_it_and_is_no_more_than_needed(target):
    noise = noise_for(target, 1e-5, sampling=0.05, count=100)
    assert epsilon([Release(noise, 0.05, 100)], 1e-5) <= target
    assert epsilon([Release(noise * 0.995, 0.05, 100)], 1e-5) > target * 0.99


def test_noise_beside_what_was_spent():
    spent = [Release(2.0)]
    noise = noise_for(3.0, 1e-5, count=5, spent=spent)
    assert noise > noise_for(3.0, 1e-5, count=5)
    assert epsilon([*spent, Release(noise, 1.0, 5)], 1e-5) <= 3.0
    with pytest.raises(PrivacyError, match="is spent"):
        noise_for(1.0, 1e-5, spent=spent)


@pytest.mark.parametrize(
    "wrong", [(0.0,), (-1.0,), (math.nan,), (math.inf,), (1.0, 0.0), (1.0, 1.1), (1.0, 0.5, 0)]
)
def test_releases_that_cannot_be(wrong):
    with pytest.raises(PrivacyError, match="Noise is positive"):
        Release(*wrong)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, math.nan])
def test_deltas_that_cannot_be(delta):
    with pytest.raises(PrivacyError, match="delta"):
        epsilon([Release(1.0)], delta)


@pytest.mark.parametrize("release", [Release(1e-3), Release(0.1, 1.0, 100_000), Release(1e-4, 0.1, 5)])
def test_next_to_no_noise_is_no_privacy_and_takes_no_memory(release):
    assert epsilon([release], 1e-5) == math.inf
