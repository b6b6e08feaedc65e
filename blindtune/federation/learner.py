"""What a site must be able to do with a model, whatever the model is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from blindtune.federation.agreement import Local

Values = NDArray[np.float32]
"""A model's shared values as one vector, shape (parameters,)."""

Totals = Mapping[str, NDArray[np.float64]]
"""The confederation's sums, by name: ``images`` by class, ``pixels`` or ``moments``, and ``rows`` in them."""

BINS = 64
"""Bins of a class's probabilities, from which an AUC is told."""

CHANCE = 1e-12
"""Least probability of the true class in a loss."""


class Labelled(Protocol):
    """A site's cases: class numbers and patient numbers, both of shape (n,)."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of each case."""
        ...

    @property
    def patients(self) -> NDArray[np.int64]:
        """Patient of each case."""
        ...


class Learner(Protocol):
    """A model and a site's data."""

    @property
    def training(self) -> Labelled:
        """What is learned from."""
        ...

    @property
    def validation(self) -> Labelled:
        """What rounds are judged by; patients of neither both."""
        ...

    def summands(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
        """What single training cases add to the sum that the model needs of the confederation's data.

        Yields:
            shape (m, length), some cases at a time; the plan says which sum and how long.
        """
        ...

    def begin(self, totals: Totals) -> None:
        """Take the confederation's sums; before everything below."""
        ...

    def train(self, values: Values) -> Values:
        """Values after the round's local steps."""
        ...

    def slopes(self, values: Values, rows: NDArray[np.int64]) -> Iterator[NDArray[np.floating]]:
        """Gradients of the loss of single training cases, some at a time, shape (m, parameters)."""
        ...

    def predict(self, values: Values) -> NDArray[np.float64]:
        """Probabilities of the validation cases, shape (n, classes)."""
        ...


@dataclass(frozen=True)
class Scores:
    """A site's validation in numbers that are only ever summed.

    Attributes:
        confusion: counts by (true, told) class, shape (classes, classes).
        histogram: counts by class, whether it is the true one, and bin of the probability told for it, shape
            (classes, 2, :data:`BINS`).
        loss: mean over the cases.
    """

    confusion: NDArray[np.int64]
    histogram: NDArray[np.int64]
    loss: float

    @property
    def cases(self) -> int:
        """Validation cases."""
        return int(self.confusion.sum())


def scores(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Scores:
    """What a model told of cases, against their labels."""
    k = probabilities.shape[1]
    confusion, histogram = np.zeros((k, k), np.int64), np.zeros((k, 2, BINS), np.int64)
    if not len(labels):
        return Scores(confusion, histogram, 0.0)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    bins = np.clip((probabilities * BINS).astype(np.int64), 0, BINS - 1)
    truth = (labels[:, None] == np.arange(k)).astype(np.int64)
    np.add.at(histogram, (np.arange(k), truth, bins), 1)
    right = probabilities[np.arange(len(labels)), labels]
    return Scores(confusion, histogram, float(-np.log(np.maximum(right, CHANCE)).mean()))


def macro_auc(histogram: NDArray[np.floating]) -> float | None:
    """Mean one-vs-rest AUC of the classes from binned probabilities; cases of a bin count half.

    Args:
        histogram: shape (classes, 2, bins).

    Returns:
        None if no class has cases and others beside them.
    """
    found = []
    for rest, own in histogram:
        pairs = rest.sum() * own.sum()
        if pairs:
            below = np.concatenate([[0.0], np.cumsum(rest)[:-1]])
            found.append(float((own * (below + rest / 2)).sum() / pairs))
    return float(np.mean(found)) if found else None


def counts(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Cases by class."""
    return np.bincount(labels, minlength=classes).astype(np.int64)


def site_sum(learner: Learner, length: int) -> NDArray[np.float64]:
    """What all training cases of a site add to the sum that the model needs, shape (length,)."""
    total = np.zeros(length)
    for piece in learner.summands(np.arange(len(learner.training.labels))):
        total += piece.sum(axis=0)
    return total


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


def class_weights(totals: NDArray[np.floating]) -> NDArray[np.float64]:
    """Weights that give every class the same share of the loss, 1 on average over the images."""
    present = np.maximum(totals, 1)
    return np.asarray(totals.sum() / (np.count_nonzero(totals) * present), np.float64)


def fingerprint(values: Values) -> str:
    """SHA-256 of a model's values."""
    return hashlib.sha256(values.astype("<f4", copy=False).tobytes()).hexdigest()
