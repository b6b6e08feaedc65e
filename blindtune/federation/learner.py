"""What a site must be able to do with a model, whatever the model is; and the counts that leave a site."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from blindtune.federation.agreement import Local

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

    def train(self, values: Values, totals: NDArray[np.int64]) -> Values:
        """Values after the round's local steps.

        Args:
            totals: the confederation's training images by class, for class weights.
        """
        ...

    def evaluate(self, values: Values) -> Scores:
        """How a model does on the site's validation cases."""
        ...


def local_batches(
    rows: int, local: Local, shuffled: Callable[[int], NDArray[np.int64]]
) -> list[NDArray[np.int64]]:
    """The rows of every step between two syncs: passes in an order of their own, the last cut short.

    Args:
        shuffled: gives the numbers below its argument in a random order.
    """
    if not rows:
        return []
    wanted = local.every if local.unit == "batches" else local.every * -(-rows // local.batch)
    found: list[NDArray[np.int64]] = []
    while len(found) < wanted:
        order = shuffled(rows)
        found += [order[start : start + local.batch] for start in range(0, rows, local.batch)]
    return found[:wanted]


def class_weights(totals: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights that give every class the same share of the loss, 1 on average over the images."""
    present = np.maximum(totals, 1)
    return np.asarray(totals.sum() / (np.count_nonzero(totals) * present), np.float64)


def fingerprint(values: Values) -> str:
    """SHA-256 of a model's values."""
    return hashlib.sha256(values.astype("<f4", copy=False).tobytes()).hexdigest()
