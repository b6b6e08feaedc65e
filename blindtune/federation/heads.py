"""Softmax regression on frozen features: the smallest learner, and the head-only path of federation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import FederationError
from blindtune.federation.agreement import Local
from blindtune.federation.learner import Scores, Values, class_weights, local_batches

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Cases:
    """Features and labels of a site.

    Args:
        features: shape (n, d).
        labels: class numbers, shape (n,).

    Raises:
        FederationError: shapes that do not fit, or features that are not numbers.
    """

    features: Floats
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.labels.shape != self.features.shape[:1]:
            raise FederationError(
                f"features of shape {self.features.shape} with labels of shape {self.labels.shape}",
                where="site",
                remedy="Give a row of features for each label.",
            )
        if not np.isfinite(self.features).all():
            raise FederationError("features that are not numbers", where="site", remedy="Look at the scans.")


class HeadLearner:
    """A linear softmax head: weights (classes, d) and biases (classes,), one after the other.

    Args:
        training, validation: this site's cases, of the same patients in neither both.
        classes: how many.
        local: what is done between two syncs.
        seed: of the order of batches; from the system's entropy if None.
    """

    def __init__(
        self, training: Cases, validation: Cases, classes: int, local: Local, seed: int | None = None
    ) -> None:
        for cases in (training, validation):
            if cases.features.shape[1] != training.features.shape[1]:
                raise FederationError("training and validation features of different lengths", where="site")
            if len(cases.labels) and not 0 <= cases.labels.min() <= cases.labels.max() < classes:
                raise FederationError(
                    "a label that is no class of the plan", where="site", remedy="Compare the class names."
                )
        self._training, self._validation, self._classes, self._local = training, validation, classes, local
        self._random = np.random.default_rng(seed)

    @property
    def parameters(self) -> int:
        """Length of the values."""
        return self._classes * (int(self._training.features.shape[1]) + 1)

    def counts(self) -> NDArray[np.int64]:
        """Training cases by class."""
        return np.bincount(self._training.labels, minlength=self._classes).astype(np.int64)

    def train(self, values: Values, totals: NDArray[np.int64]) -> Values:
        """Local steps of minibatch gradient descent on the cross-entropy."""
        local, n = self._local, len(self._training.labels)
        found, velocity = values.astype(np.float64), np.zeros(len(values))
        weights = class_weights(totals) if local.class_weights else np.ones(self._classes)
        for batch in local_batches(n, local, self._random.permutation):
            slope = self._slope(found, batch, weights) + local.decay * found
            slope += local.proximal * (found - values)
            velocity = local.momentum * velocity + slope
            found = found - local.rate * velocity
        return found.astype(np.float32)

    def evaluate(self, values: Values) -> Scores:
        """Confusion and mean cross-entropy on the validation cases."""
        k, cases = self._classes, self._validation
        confusion = np.zeros((k, k), np.int64)
        if not len(cases.labels):
            return Scores(confusion, 0.0)
        told = self._probabilities(values.astype(np.float64), cases.features)
        np.add.at(confusion, (cases.labels, told.argmax(axis=1)), 1)
        right = told[np.arange(len(cases.labels)), cases.labels]
        return Scores(confusion, float(-np.log(np.maximum(right, 1e-12)).mean()))

    def _probabilities(self, values: NDArray[np.float64], features: Floats) -> NDArray[np.float64]:
        k = self._classes
        weights, biases = values[:-k].reshape(k, -1), values[-k:]
        logits = features @ weights.T + biases
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
        return found

    def _slope(
        self, values: NDArray[np.float64], rows: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        x, y = self._training.features[rows].astype(np.float64), self._training.labels[rows]
        apart = self._probabilities(values, self._training.features[rows])
        apart[np.arange(len(rows)), y] -= 1
        apart *= weights[y, None] / len(rows)
        return np.concatenate([(apart.T @ x).ravel(), apart.sum(axis=0)])
