"""Percentile bootstrap over patients: resampling weights, and intervals from replicates.

A replicate draws as many patients as the test set has, with replacement; every scan of a patient
comes along as often as the patient was drawn. Scans of one patient are alike, so drawing scans
instead would give intervals that are too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Values = dict[str, Floats]
#: Maps weights over patients (R, units) to figures (R,), NaN where undefined.
Estimator = Callable[[Floats], Values]

LEVEL = 0.95
#: More undefined replicates than this, and there is no interval: too few patients carry the figure.
_UNDEFINED_SHARE = 0.10
#: Numbers held at once by one chunk of (replicates, rows) weights: about 32 MiB.
_CHUNK = 4_000_000


def resampling_weights(units: int, resamples: int, seed: int, rows: int) -> Iterator[Floats]:
    """Yield chunks of weights, each (replicates, units): how often each patient was drawn.

    The stream depends on the arguments alone, so that two heads evaluated on the same patients see
    the same replicates and can be compared pair by pair.
    """
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK // max(rows, 1))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = generator.integers(0, units, size=(count, units))
        drawn += units * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units).astype(np.float64)


def replicates(estimate: Estimator, units: int, rows: int, resamples: int, seed: int) -> Values:
    """Each figure on every replicate (R,); empty without replicates, or where one patient is all there is."""
    if units < 2:
        return {}
    chunks = [estimate(weights) for weights in resampling_weights(units, resamples, seed, rows)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]} if chunks else {}


def percentile_interval(replicates: Floats) -> tuple[float, float] | None:
    """The central 95 % of the defined replicates (R,), or None where too many are undefined (NaN)."""
    defined = replicates[~np.isnan(replicates)]
    if defined.size == 0 or defined.size < (1 - _UNDEFINED_SHARE) * replicates.size:
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def exact_limit(units: int) -> float:
    """How low a share may truly be when all of ``units`` independent patients came out right.

    Clopper and Pearson (1934). Resampling a set without errors can only ever find no errors, so its
    interval would have no width.
    """
    return float(((1 - LEVEL) / 2) ** (1 / units))
