"""Discrete Gaussian noise (Canonne, Kamath and Steinke 2020), exact, from the operating system's CSPRNG.

Noise on a grid has no floating-point bits that could betray the value beneath it (Mironov 2012). OpenDP
samples without any floating-point step.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import MissingPackageError, PrivacyError


def discrete_gaussian(scale: float, count: int) -> NDArray[np.int64]:
    """Independent draws from the discrete Gaussian.

    Args:
        scale: its parameter sigma, in steps of the grid.
        count: how many.

    Returns:
        shape (count,).

    Raises:
        PrivacyError: a scale that cannot be.
        MissingPackageError: OpenDP is not installed.
    """
    if not (math.isfinite(scale) and 0 < scale < 2**50):
        raise PrivacyError(f"noise of {scale} steps", where="privacy", remedy="Choose another grid.")
    try:
        import opendp.prelude as dp
    except ImportError:
        raise MissingPackageError(
            "exact noise needs OpenDP", remedy="Run pip install 'blindtune[privacy]'."
        ) from None
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T=float)
    draw = dp.m.make_gaussian(*space, scale=float(scale))
    return np.array(draw([0] * count), np.int64)


def slack(scale: float, parties: int) -> float:
    """How far a sum of the parties' noise may be from one discrete Gaussian, in max-divergence a coordinate.

    Kairouz, Liu and Steinke 2021, theorem 9: with noise of ``scale`` steps from each of ``parties``,
    ``10 * sum over k < parties of exp(-2 pi^2 scale^2 k / (k + 1))``.
    """
    exponents = [-2 * math.pi**2 * scale**2 * k / (k + 1) for k in range(1, parties)]
    return 10 * sum(math.exp(e) for e in exponents)
