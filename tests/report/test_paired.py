"""McNemar's test, the test by patient and Cohen's κ against hand-worked numbers, scipy and scikit-learn."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from blindtune.report import mcnemar
from blindtune.report.paired import EXACT_BELOW, kappa

seeds = st.integers(0, 2**32 - 1)


def table(first_only, second_only, both=3, neither=2):
    """Scans of which so many are right for each model, each its own patient."""
    cells = [(True, False)] * first_only + [(False, True)] * second_only
    cells += [(True, True)] * both + [(False, False)] * neither
    first, second = np.array(cells).T
    return first, second, np.arange(len(cells))


def test_tables_worked_by_hand():
    # Agresti, Categorical Data Analysis, 10.1.1: 86 approve only at first, 150 only later.
    large = mcnemar(*table(86, 150, both=794, neither=570))
    assert (large.first_only, large.second_only) == (86, 150)
    assert large.method == "chi-square with continuity correction"
    assert large.p == pytest.approx(stats.chi2.sf(63**2 / 236, 1), rel=1e-12)
    # 2 (1 + 10 + 45 + 120 + 210) / 2^10.
    small = mcnemar(*table(4, 6))
    assert small.method == "exact binomial"
    assert small.p == pytest.approx(772 / 1024)


def test_kappa_worked_by_hand():
    # 50 cases: both say yes to 20 and no to 15; observed 0.7, by chance 0.5.
    one = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    other = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert kappa(one, other, np.arange(50), resamples=0, seed=0).value == pytest.approx(0.4)


@pytest.mark.parametrize("gap", [0, 1])
def test_correction_never_passes_no_difference(gap):
    assert mcnemar(*table(20, 20 + gap)).p == 1.0


def test_no_discordant_scan():
    found = mcnemar(*table(0, 0))
    assert (found.p, found.p_by_patient, found.patients) == (1.0, 1.0, 0)


@given(st.integers(0, 40), st.integers(0, 40))
def test_one_scan_a_patient_is_the_exact_test(first_only, second_only):
    found = mcnemar(*table(first_only, second_only))
    exact = stats.binomtest(first_only, first_only + second_only).pvalue if first_only + second_only else 1
    assert found.p_by_patient == pytest.approx(exact, rel=1e-9)
    assert found.patients == first_only + second_only
    assert (found.method == "exact binomial") == (first_only + second_only < EXACT_BELOW)
    other = mcnemar(*table(second_only, first_only))
    assert (other.p, other.p_by_patient) == (found.p, pytest.approx(found.p_by_patient, rel=1e-12))


@given(seeds, st.integers(1, 40), st.integers(1, 9))
def test_by_patient_is_the_share_of_all_exchanges(seed, n, patients):
    random = np.random.default_rng(seed)
    unit = random.integers(0, patients, n)
    unit = np.unique(unit, return_inverse=True)[1]
    first, second = random.random(n) < 0.7, random.random(n) < 0.5
    found = mcnemar(first, second, unit)
    gains = [int(first[unit == u].sum()) - int(second[unit == u].sum()) for u in range(unit.max() + 1)]
    sums = [
        abs(sum(s * g for s, g in zip(signs, gains, strict=True)))
        for signs in product((1, -1), repeat=len(gains))
    ]
    assert found.p_by_patient == pytest.approx(np.mean(np.array(sums) >= abs(sum(gains))))
    assert found.patients == np.count_nonzero(gains)


def test_by_patient_agrees_with_scipy_permutations():
    random = np.random.default_rng(3)
    unit = np.repeat(np.arange(12), 3)
    first, second = random.random(36) < 0.8, random.random(36) < 0.55
    right = [np.bincount(unit, r.astype(float)) for r in (first, second)]
    exact = stats.permutation_test(
        right,
        lambda a, b, axis: (a - b).sum(axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert mcnemar(first, second, unit).p_by_patient == pytest.approx(exact.pvalue)


def test_copies_of_a_scan_are_no_evidence():
    first, second, unit = table(8, 2)
    once = mcnemar(first, second, unit)
    tenfold = mcnemar(*(np.repeat(one, 10) for one in (first, second, unit)))
    assert tenfold.p < 1e-4 < once.p
    assert tenfold.p_by_patient == pytest.approx(once.p_by_patient)


@given(seeds, st.integers(2, 40), st.integers(2, 5))
def test_kappa_matches_scikit_learn_on_every_resample(seed, n, classes):
    random = np.random.default_rng(seed)
    one = random.integers(0, classes, n)
    other = np.where(random.random(n) < 0.5, one, random.integers(0, classes, n))
    unit = np.unique(random.integers(0, n, n), return_inverse=True)[1]
    found = kappa(one, other, unit, resamples=30, seed=seed)
    if len({*one, *other}) == 1:
        assert found.value is None
        assert "one and the same class" in found.reason
        return
    assert found.value == pytest.approx(cohen_kappa_score(one, other))
    units = unit.max() + 1
    if units == 1 or found.low is None:
        return
    scores = []
    for drawn in np.random.default_rng(seed).integers(0, units, (30, units)):
        rows = np.concatenate([np.flatnonzero(unit == u) for u in drawn])
        if len({*one[rows], *other[rows]}) > 1:
            scores.append(cohen_kappa_score(one[rows], other[rows]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])))


def test_kappa_of_two_alike_has_no_width():
    found = kappa(np.array([0, 1, 2]), np.array([0, 1, 2]), np.arange(3), resamples=50, seed=0)
    assert (found.value, found.low) == (1.0, None)
