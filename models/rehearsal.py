"""The same steps in clear: the rehearsal that precedes every encryption, and what every result is held to.

It runs where the data are. It catches what encryption cannot: logits that leave the polynomial's
interval, where training would diverge without anyone seeing it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import PlanError
from blindtune.models.heads import Head
from blindtune.models.whitening import Spectrum, Whitening

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rehearsal:
    """What the same steps in clear gave.

    Attributes:
        weights: (columns, K) on whitened features.
        largest: the largest |logit| that each step's polynomial met.
    """

    weights: Floats
    largest: tuple[float, ...]

    def inside(self, head: Head) -> bool:
        """Whether every logit stayed on the interval; degree 1 has none to leave, but may diverge."""
        largest = max(self.largest)
        return bool(np.isfinite(largest)) if head.degree == 1 else largest <= head.interval


def rehearse(features: Floats, targets: Floats, weights: Floats, head: Head) -> Rehearsal:
    """Run a head's steps on whitened features (n, columns) with targets and sample weights (n, K)."""
    w = np.zeros((features.shape[1], targets.shape[1]))
    largest = []
    program, coefficients = head.program, head.coefficients
    for step, rate in enumerate(head.learning_rates):
        z = features @ w
        largest.append(float(np.abs(z).max(initial=0.0)))
        square = z * z
        value = np.zeros_like(z)
        for c in coefficients[::-1]:
            value = value * square + c
        residual = weights * (targets - value * z)
        w = program.retain[step] * w + rate / len(features) * (features.T @ residual)
        if not np.isfinite(w).all() or np.abs(w).max() > 1e6:
            return Rehearsal(np.nan_to_num(w), (*largest, float("inf")))
    return Rehearsal(w, tuple(largest))


def refuse_outside(rehearsal: Rehearsal, head: Head) -> None:
    """Refuse a head whose logits leave its interval.

    Raises:
        PlanError: with the step, the value and what to change.
    """
    if rehearsal.inside(head):
        return
    largest = np.asarray(rehearsal.largest)
    if head.degree == 1:
        step = int(np.argmax(np.isinf(largest))) + 1
        raise PlanError(
            f"the rehearsal diverges in step {step}",
            remedy="Lower the learning rate, raise epsilon, or use fewer directions.",
        )
    step = int(np.argmax(largest > head.interval)) + 1
    raise PlanError(
        f"the rehearsal leaves the polynomial's interval in step {step}: the largest |logit| is "
        f"{rehearsal.largest[step - 1]:.1f}, the polynomial is fitted up to {head.interval:g}",
        remedy="Lower the learning rate, raise epsilon or the interval, or use fewer directions.",
    )


@dataclass(frozen=True)
class Choice:
    """A configuration that :func:`tune` chose, rehearsed on the training rows.

    Attributes:
        loss: held-out loss: log loss (or squared error for regression), balanced as the head is.
    """

    whitening: Whitening
    head: Head
    rehearsal: Rehearsal
    loss: float


def tune(
    features: Floats,
    labels: NDArray[Any],
    train: NDArray[np.intp],
    folds: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
    head: Head,
    outputs: int,
    owner: str,
    *,
    directions: Sequence[int],
    epsilons: Sequence[float],
    rates: Sequence[float],
    on_done: Callable[[int, int], None] = lambda _done, _total: None,
) -> Choice:
    """Choose directions, epsilon and learning rate in clear, by held-out loss.

    Args:
        features, labels: all rows: raw (n, d) and (n,) or (n, K).
        train: the rows that will be encrypted; the choice is rehearsed on them.
        folds: pairs of rows to fit on and rows to judge on.
        directions, epsilons, rates: what to try; the order breaks ties.
        on_done: called with folds done and in all.

    Raises:
        PlanError: no configuration keeps its logits on the interval.
    """
    grid = list(product(directions, epsilons, rates))
    losses = dict.fromkeys(grid, 0.0)
    for done, (fit, held) in enumerate(folds):
        spectrum = Spectrum.of_rows(features[fit])
        targets, weights = head.encode(labels[fit], outputs)
        judged = head.encode(labels[held], outputs)
        for k, epsilon in product(directions, epsilons):
            whitening = spectrum.whitening(k, epsilon, owner)
            inside, outside = whitening.apply(features[fit]), whitening.apply(features[held])
            for rate in rates:
                candidate = head.with_rate(rate)
                weights_found = rehearse(inside, targets, weights, candidate)
                stayed = weights_found.inside(candidate)
                loss = _loss(outside @ weights_found.weights, *judged, candidate) if stayed else np.inf
                losses[k, epsilon, rate] += loss * len(held)
        on_done(done + 1, len(folds))
    spectrum = Spectrum.of_rows(features[train])
    targets, weights = head.encode(labels[train], outputs)
    # A choice must also stay on the interval on the rows that are encrypted; else the next best.
    for k, epsilon, rate in sorted(grid, key=losses.__getitem__):
        whitening, candidate = spectrum.whitening(k, epsilon, owner), head.with_rate(rate)
        found = rehearse(whitening.apply(features[train]), targets, weights, candidate)
        loss = losses[k, epsilon, rate] / sum(len(held) for _, held in folds)
        if found.inside(candidate) and np.isfinite(loss):
            return Choice(whitening, candidate, found, float(loss))
    refuse_outside(found, candidate)
    raise PlanError(
        "every configuration leaves the polynomial's interval on some fold",
        remedy="Lower the learning rate, raise epsilon, or use fewer directions.",
    )


def _loss(logits: Floats, targets: Floats, weights: Floats, head: Head) -> float:
    """Validation loss at the best common scale of the logits, which calibration would find."""
    if head.kind == "regression":
        return float(np.mean(weights * (logits - targets) ** 2))
    sign = np.where(targets > 0, 1.0, -1.0)
    if head.kind == "multiclass":
        return min(_softmax_loss(t * logits, sign > 0) for t in (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0))
    return min(
        float(np.mean(weights * np.logaddexp(0.0, -sign * t * logits))) for t in (0.5, 0.7, 1.0, 1.4, 2.0)
    )


def _softmax_loss(logits: Floats, truth: NDArray[np.bool_]) -> float:
    top = logits.max(axis=1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    per_row = log_sum - logits[truth]
    # Balanced by class, as the heads are.
    return float(np.mean([per_row[truth[:, k]].mean() for k in range(truth.shape[1]) if truth[:, k].any()]))
