"""Noisy sums: contributions clipped and rounded one by one, added as integers, noise of the same grid on top.

Nothing of a sum is a floating-point number before its noise is in it: rounding errors of additions cannot
carry one patient's data past the account (Mironov 2012; Haney et al. 2022). The sum's sensitivity is that
of integers, exactly.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import PrivacyError
from blindtune.privacy.account import Release
from blindtune.privacy.noise import discrete_gaussian

ROUNDING = 0.01
"""Share of the clip that rounding to the grid may add to a contribution's length."""

FINEST = 64.0
"""Steps of a party's noise at least: there the discrete Gaussian costs what the continuous one does, and
sums of several are one, to far below a float's last digit (:func:`blindtune.privacy.noise.slack`)."""


@dataclass(frozen=True)
class Mechanism:
    """A sum of vectors, one of each patient, with Gaussian noise.

    Args:
        length: of a vector.
        clip: Euclidean length that a contribution is cut to.
        noise: standard deviation of the sum's noise over the clip (noise multiplier).
        parties: that share the noise: each adds its part, and so many surely do.

    Raises:
        PrivacyError: values that cannot be.
    """

    length: int
    clip: float
    noise: float
    parties: int = 1

    def __post_init__(self) -> None:
        positive = math.isfinite(self.clip) and self.clip > 0 and math.isfinite(self.noise) and self.noise > 0
        if not positive or self.length < 1 or self.parties < 1:
            raise PrivacyError(
                f"{self.length} values, clip {self.clip}, noise {self.noise}, {self.parties} parties",
                where="privacy",
                remedy="Give positive numbers.",
            )

    @property
    def step(self) -> float:
        """Width of the grid."""
        rounding = 2 * ROUNDING * self.clip / math.sqrt(self.length)
        return min(rounding, self.noise * self.clip / (FINEST * math.sqrt(self.parties)))

    @property
    def scale(self) -> float:
        """Standard deviation of one party's noise, in steps."""
        return self.noise * self.clip / (self.step * math.sqrt(self.parties))

    def release(self, sampling: float = 1.0, count: int = 1) -> Release:
        """What such sums cost.

        Args:
            sampling: probability with which each patient took part.
            count: how many.
        """
        return Release(self.noise, sampling, count)

    def whole(self, contributions: NDArray[np.floating]) -> NDArray[np.int64]:
        """Contributions, clipped, in steps of the grid; each at most ``clip / step`` long.

        Args:
            contributions: shape (m, length), a row for each patient.

        Raises:
            PrivacyError: another shape, or a value that is not a number: nothing is released.
        """
        if contributions.ndim != 2 or contributions.shape[1] != self.length:
            raise PrivacyError(f"contributions of shape {contributions.shape}", where="privacy")
        rows = contributions.astype(np.float64)
        lengths = np.linalg.norm(rows, axis=1)
        if not np.isfinite(lengths).all():
            raise PrivacyError(
                "a contribution that is not a number",
                where="privacy",
                remedy="Lower the learning rate; nothing was released.",
            )
        # A billionth less: no rounding of these floats can carry a contribution past the clip.
        inner = (self.clip - self.step * math.sqrt(self.length) / 2) * (1 - 1e-9)
        rows *= (np.minimum(1.0, inner / np.maximum(lengths, 1e-300)) / self.step)[:, None]
        return np.rint(rows).astype(np.int64)

    def noisy(self, total: NDArray[np.int64]) -> NDArray[np.int64]:
        """A sum of :meth:`whole` contributions with this party's noise; charge the ledger before.

        Args:
            total: shape (length,).
        """
        return total + discrete_gaussian(self.scale, self.length)


def sampled(patients: NDArray[np.int64], rate: float) -> NDArray[np.int64]:
    """One row of each patient who takes part: true Poisson sampling from the system's CSPRNG.

    Args:
        patients: patient of each row, shape (n,).
        rate: probability with which each patient takes part, independently.

    Returns:
        rows; one of every chosen patient, all of that patient's rows equally likely.
    """
    if not len(patients):
        return np.empty(0, np.int64)
    draws = _uniform(len(patients))
    # A patient's row with the least draw is each of them with the same chance.
    order = np.lexsort((draws, patients))
    first = np.flatnonzero(np.diff(patients[order], prepend=patients[order[0]] - 1))
    rows = order[first]
    return np.sort(rows[_uniform(len(rows)) < rate]).astype(np.int64)


def _uniform(count: int) -> NDArray[np.float64]:
    return np.frombuffer(os.urandom(8 * count), np.uint64) / 2.0**64
