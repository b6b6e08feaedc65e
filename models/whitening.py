"""Whitening: after it, plain gradient descent on a linear head is a fixed-Hessian Newton method.

``x ← (x - μ) U_k (S_k + ε·mean S)^(-1/2)`` with the ``k`` leading directions of the training
covariance, then a 1 for the bias. With ``XᵀX ≈ n·I`` three to five steps reach the converged head
(design document, section 1). The transform is folded into the head after decryption.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Whitening:
    """A fitted whitening.

    Attributes:
        mean: μ (d,).
        transform: (d, k).
        epsilon: shrinkage, relative to the mean variance.
        owner: the member or study that fitted it.
    """

    mean: Floats
    transform: Floats
    epsilon: float
    owner: str

    @classmethod
    def fit(cls, features: NDArray[np.floating], directions: int, epsilon: float, owner: str) -> Whitening:
        """Fit on training features (n, d).

        Raises:
            InputError: not finite, fewer than two rows, or more directions than features.
        """
        x = np.asarray(features, np.float64)
        if x.ndim != 2 or len(x) < 2 or not np.isfinite(x).all():
            raise InputError(f"features of shape {x.shape}, or not finite", remedy="Check the embeddings.")
        return cls.from_moments(len(x), x.sum(axis=0), x.T @ x, directions, epsilon, owner)

    @classmethod
    def from_moments(
        cls,
        rows: int,
        total: Floats,
        second: Floats,
        directions: int,
        epsilon: float,
        owner: str,
        floor: float = 0.0,
    ) -> Whitening:
        """From ``n``, ``Σx`` (d,) and ``Σxxᵀ`` (d, d), which several members can add up.

        Args:
            floor: see :meth:`Spectrum.whitening`.

        Raises:
            InputError: more directions than features, or constant features.
        """
        return Spectrum.of(rows, total, second).whitening(directions, epsilon, owner, floor)

    @property
    def columns(self) -> int:
        """Columns of :meth:`apply`'s result: the directions and the bias."""
        return int(self.transform.shape[1]) + 1

    def apply(self, features: NDArray[np.floating]) -> Floats:
        """Whitened features with a last column of ones: (n, d) to (n, k + 1)."""
        x = (np.asarray(features, np.float64) - self.mean) @ self.transform
        return np.hstack([x, np.ones((len(x), 1))])

    def fold(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weights on whitened features (k + 1, K) to a linear layer on raw ones: (K, d) and (K,)."""
        raw = self.transform @ weights[:-1]
        return raw.T, weights[-1] - self.mean @ raw


@dataclass(frozen=True)
class Spectrum:
    """The eigendecomposition of a training covariance, from which many whitenings can be made.

    Attributes:
        mean: (d,).
        values: variances, largest first (d,).
        vectors: their directions, as columns (d, d).
    """

    mean: Floats
    values: Floats
    vectors: Floats

    @classmethod
    def of(cls, rows: int, total: Floats, second: Floats) -> Spectrum:
        """From ``n``, ``Σx`` and ``Σxxᵀ``."""
        mean = total / rows
        values, vectors = np.linalg.eigh(second / rows - np.outer(mean, mean))
        return cls(mean, np.maximum(values[::-1], 0.0), vectors[:, ::-1])

    @classmethod
    def of_rows(cls, features: Floats) -> Spectrum:
        """From training features (n, d)."""
        return cls.of(len(features), features.sum(axis=0), features.T @ features)

    def whitening(self, directions: int, epsilon: float, owner: str, floor: float = 0.0) -> Whitening:
        """A whitening on the leading directions.

        Args:
            floor: least variance that a direction is taken to have: of moments under noise, what the noise
                may hide.

        Raises:
            InputError: more directions than features, or than the features span.
        """
        if not 1 <= directions <= len(self.mean):
            raise InputError(f"{directions} directions of {len(self.mean)} features")
        values = np.maximum(self.values[:directions], floor)
        shrunk = values + epsilon * values.mean()
        if shrunk.min() <= 0:
            raise InputError(
                f"the features span fewer than {directions} directions",
                remedy="Use fewer directions or a positive epsilon.",
            )
        return Whitening(self.mean, self.vectors[:, :directions] / np.sqrt(shrunk), epsilon, owner)
