"""Releases with Gaussian noise, and what they cost: privacy loss distributions from dp-accounting.

The unit is the patient: neighbouring data sets differ by all that one patient contributes (add or remove
one). Callers bound that contribution, by clipping what a patient adds to a release, before noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from blindtune.errors import MissingPackageError, PrivacyError

COARSE, GRID, FINE, SMALL = 1e-3, 1e-4, 1e-6, 0.05
"""Steps of the discretised privacy loss: in a search, for an answer, and for one below the small epsilon."""

HOPELESS = 2000.0
"""Mean privacy loss beyond which nothing is protected, nor worth the memory of counting it."""


@dataclass(frozen=True, order=True)
class Release:
    """Noisy sums of clipped contributions, one or several of a kind.

    Args:
        noise: standard deviation of the noise over the largest contribution of a patient (noise multiplier).
        sampling: probability with which each patient takes part, independently (Poisson sampling).
        count: how many such releases.

    Raises:
        PrivacyError: values that cannot be.
    """

    noise: float
    sampling: float = 1.0
    count: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise) and self.noise > 0 and 0 < self.sampling <= 1 and self.count >= 1):
            raise PrivacyError(
                f"noise {self.noise}, sampling {self.sampling}, count {self.count}",
                where="privacy",
                remedy="Noise is positive, sampling in (0, 1], the count at least 1.",
            )


def merged(releases: Iterable[Release]) -> list[Release]:
    """The same releases, those of a kind as one: they compose in any order."""
    counts: dict[tuple[float, float], int] = {}
    for r in releases:
        counts[r.noise, r.sampling] = counts.get((r.noise, r.sampling), 0) + r.count
    return [Release(noise, sampling, n) for (noise, sampling), n in sorted(counts.items())]


def epsilon(releases: Iterable[Release], delta: float) -> float:
    """An upper bound of the epsilon of all releases together, at ``delta``.

    Privacy loss distributions, rounded pessimistically (Doroshenko et al. 2022): never below the true value.

    Raises:
        PrivacyError: a delta out of (0, 1).
        MissingPackageError: dp-accounting is not installed.
    """
    _check_delta(delta)
    found = merged(releases)
    if not found:
        return 0.0
    coarse = _epsilon(found, delta, GRID)
    return coarse if coarse > SMALL else min(coarse, _epsilon(found, delta, FINE))


def noise_for(
    target: float,
    delta: float,
    *,
    sampling: float = 1.0,
    count: int = 1,
    spent: Sequence[Release] = (),
) -> float:
    """The least noise multiplier with which ``count`` further releases stay within ``target``.

    The answer is on the safe side: its epsilon, with what was spent, is at most ``target``.

    Raises:
        PrivacyError: the budget is spent already.
        MissingPackageError: dp-accounting is not installed.
    """
    if not (math.isfinite(target) and target > 0):
        raise PrivacyError(f"epsilon {target}", where="privacy", remedy="Give a positive epsilon.")

    _check_delta(delta)
    # Coarse steps still round towards more epsilon: the answer errs to more noise, by half a percent at most.
    grid = min(COARSE, target / 100)

    def total(noise: float) -> float:
        return _epsilon(merged([*spent, Release(noise, sampling, count)]), delta, grid)

    if spent and epsilon(spent, delta) >= target:
        raise PrivacyError(
            f"the budget of epsilon {target:g} is spent",
            where="privacy",
            remedy="No further release is possible.",
        )
    low, high = 0.0, 1.0
    while total(high) > target:
        low, high = high, 2 * high
        if high > 1e6:
            raise PrivacyError(
                f"what is left of epsilon {target:g} is too little for {count} releases",
                where="privacy",
                remedy="Release less often.",
            )
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if middle > 0 and total(middle) > target else (low, middle)
    return high


def _event(releases: Sequence[Release]) -> Any:
    dp = _package()
    events = []
    for r in releases:
        event = dp.GaussianDpEvent(r.noise)
        if r.sampling < 1:
            event = dp.PoissonSampledDpEvent(r.sampling, event)
        events.append(dp.SelfComposedDpEvent(event, r.count))
    return dp.ComposedDpEvent(events)


def _epsilon(releases: Sequence[Release], delta: float, grid: float) -> float:
    event = _event(releases)
    if any(0.5 / r.noise**2 * (r.count if r.sampling == 1 else 1) > HOPELESS for r in releases):
        return math.inf
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(value_discretization_interval=grid)
    accountant.compose(event)
    return float(accountant.get_epsilon(delta))


def _package() -> ModuleType:
    try:
        import dp_accounting as package
    except ImportError:
        raise MissingPackageError(
            "privacy accounting needs dp-accounting", remedy="Run pip install 'blindtune[privacy]'."
        ) from None
    found: ModuleType = package
    return found


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise PrivacyError(
            f"delta {delta}", where="privacy", remedy="Give a delta below 1 over the patients."
        )
