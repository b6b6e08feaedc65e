"""What a site must be able to do with a model, whatever the model is; and the counts that leave a site."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
"""A model's shared values as one vector, shape (parameters,)."""


@dataclass(frozen=True)
class Scores:
    """A site's validation in numbers that are only ever summed.

    Attributes:
        confusion: counts by (true, told) class, shape (classes, classes).
        loss: mean over the cases.
    """

    confusion: NDArray[np.int64]
    loss: float

    @property
    def cases(self) -> int:
        """Validation cases."""
        return int(self.confusion.sum())


class Learner(Protocol):
    """A model and a site's data."""

    def counts(self) -> NDArray[np.int64]:
        """Training images by class, shape (classes,)."""
        ...

    def train(self, values: Values, round_: int, totals: NDArray[np.int64]) -> Values:
        """Values after the round's local steps.

        Args:
            totals: the confederation's training images by class, for class weights.
        """
        ...

    def evaluate(self, values: Values) -> Scores:
        """How a model does on the site's validation cases."""
        ...


def fingerprint(values: Values) -> str:
    """SHA-256 of a model's values."""
    return hashlib.sha256(values.astype("<f4", copy=False).tobytes()).hexdigest()
