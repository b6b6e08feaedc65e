"""Two models, or a model and an expert, on the same scans: McNemar's test, a test by patient, Cohen's κ.

McNemar's test takes every scan as independent. Scans of one patient are alike, so with several scans
a patient its p is too small; the test by patient is the one to go by. It asks how often the
difference in right decisions would be as large if, patient by patient, a coin decided which of the
two models gave which answers (Fisher's randomisation test for pairs, 1935). Nothing is drawn: the
distribution is computed. With one scan a patient it is McNemar's exact test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ._bootstrap import Booleans, Floats, Integers, replicates
from ._estimators import kappa_figure
from .figures import Figure

Method = Literal["exact binomial", "chi-square with continuity correction"]
#: Fewer discordant scans than this, and the chi-square distribution is not near enough (Fleiss 1981, 8.1).
EXACT_BELOW = 25


@dataclass(frozen=True)
class McNemar:
    """Whether one of two models is right more often.

    Attributes:
        first_only: scans that only the first model gets right.
        second_only: scans that only the second gets right.
        p: two-sided, every scan on its own (McNemar, 1947).
        method: how ``p`` was found.
        patients: those of whose scans the models get unequal numbers right; only they count below.
        p_by_patient: two-sided and exact, patients exchanged whole.
    """

    first_only: int
    second_only: int
    p: float
    method: Method
    patients: int
    p_by_patient: float


def mcnemar(first_right: Booleans, second_right: Booleans, unit: Integers) -> McNemar:
    """Test whether two models are right equally often.

    Args:
        first_right: (n,) whether the first model is right.
        second_right: (n,).
        unit: (n,) the patient of each scan, 0 … units − 1.
    """
    from scipy.stats import binomtest, chi2

    first_only = int((first_right & ~second_right).sum())
    second_only = int((second_right & ~first_right).sum())
    discordant, gap = first_only + second_only, abs(first_only - second_only)
    method: Method = "exact binomial"
    if discordant == 0:
        p = 1.0
    elif discordant < EXACT_BELOW:
        p = float(binomtest(first_only, discordant).pvalue)
    else:
        method = "chi-square with continuity correction"
        # The correction (Edwards, 1948) brings a gap nearer to 0, never past it.
        p = float(chi2.sf(max(gap - 1, 0) ** 2 / discordant, df=1))
    gains = np.bincount(unit, first_right.astype(np.float64) - second_right).astype(np.int64)
    return McNemar(
        first_only, second_only, p, method, int(np.count_nonzero(gains)), _chance_of_sum(gains[gains != 0])
    )


def kappa(first: Integers, second: Integers, unit: Integers, *, resamples: int, seed: int) -> Figure:
    """Cohen's κ (1960) of two readings (n,) of the same scans, its interval by patient."""
    estimate = kappa_figure(first, second, unit)
    units = int(unit.max()) + 1
    point = float(estimate(np.ones((1, units)))["kappa"][0])
    samples = replicates(estimate, units, len(first), resamples, seed)
    return Figure.of(point, samples.get("kappa"), "both give every scan one and the same class")


def _chance_of_sum(gains: Integers) -> float:
    """P(|Σ ±gains| ≥ |Σ gains|) under signs by fair coins: whole numbers (m,) other than 0."""
    from scipy.stats import binom

    chance: Floats = np.ones(1)
    for size, count in zip(*np.unique(np.abs(gains), return_counts=True), strict=True):
        # Sums of ``count`` signs are −count, −count + 2, … count, each ``size`` large.
        spread = np.zeros(2 * size * count + 1)
        spread[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chance = np.convolve(chance, spread)
    reach = len(chance) // 2
    as_far = np.abs(np.arange(-reach, reach + 1)) >= abs(int(gains.sum()))
    return min(1.0, float(chance[as_far].sum()))
