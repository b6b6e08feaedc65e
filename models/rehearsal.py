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
from blindtune.models.grid import named, told
from blindtune.models.heads import Encoded, Head, Start
from blindtune.models.whitening import Spectrum, Whitening

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rehearsal:
    """What the same steps in clear gave.

    Attributes:
        weights: (columns, K) on whitened features.
        largest: the largest |logit| that each step's polynomial met.
        where: the output that each was of.
    """

    weights: Floats
    largest: tuple[float, ...]
    where: tuple[int, ...] = ()

    def inside(self, head: Head) -> bool:
        """Whether every logit stayed on the interval; degree 1 has none to leave, but may diverge."""
        largest = max(self.largest)
        return bool(np.isfinite(largest)) if head.degree == 1 else largest <= head.interval


def rehearse(features: Floats, encoded: Encoded, head: Head) -> Rehearsal:
    """Run a head's steps on whitened features (n, columns) with what is encrypted beside them."""
    w = before = np.zeros((features.shape[1], encoded.targets.shape[1]))
    largest, where = [], []
    program = head.program
    momentum = program.momentum or (0.0,) * program.steps
    for step, rate in enumerate(head.learning_rates):
        z = features @ w
        furthest = np.abs(z).max(axis=0, initial=0.0)
        where.append(int(furthest.argmax()))
        largest.append(float(furthest.max()))
        square = z * z
        value = np.zeros_like(z)
        for c in encoded.coefficients[::-1]:
            value = value * square + c
        gradient = features.T @ (encoded.targets - value * z) / len(features)
        before, w = w, program.retain[step] * w + momentum[step] * (w - before) + rate * gradient
        if not np.isfinite(w).all() or np.abs(w).max() > 1e6:
            wild = int(np.abs(np.nan_to_num(w, nan=np.inf)).max(axis=0).argmax())
            return Rehearsal(np.nan_to_num(w), (*largest, float("inf")), (*where, wild))
    return Rehearsal(w, tuple(largest), tuple(where))


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
            f"the rehearsal{_setting(rehearsal, head, step)} diverges in step {step}",
            remedy="Lower the learning rate, raise epsilon, or use fewer directions.",
        )
    step = int(np.argmax(largest > head.interval)) + 1
    raise PlanError(
        f"the rehearsal{_setting(rehearsal, head, step)} leaves the polynomial's interval in step {step}: "
        f"the largest |logit| is {rehearsal.largest[step - 1]:.1f}, the polynomial is fitted up to "
        f"{head.interval:g}",
        remedy="Lower the learning rate, raise epsilon or the interval, or use fewer directions.",
    )


def _setting(rehearsal: Rehearsal, head: Head, step: int) -> str:
    """Which of several settings did it."""
    if len(head.settings) == 1:
        return ""
    chosen = head.settings[rehearsal.where[step - 1] * len(head.settings) // rehearsal.weights.shape[1]]
    return f" with {named(told(chosen))}"


@dataclass(frozen=True)
class Choice:
    """A configuration that :func:`tune` chose, rehearsed on the training rows.

    Attributes:
        encoded: what is encrypted of the training rows, besides their features.
        loss: held-out loss of :meth:`~blindtune.models.heads.Head.loss`.
        start: the head in clear that training starts from, if it does not from zero.
    """

    whitening: Whitening
    head: Head
    rehearsal: Rehearsal
    encoded: Encoded
    loss: float
    start: Start | None = None


def tune(
    features: Floats,
    labels: NDArray[Any],
    train: NDArray[np.intp],
    held: NDArray[np.intp],
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
        held: the validation rows, which a start in clear is judged by.
        folds: pairs of rows to fit on and rows to judge on.
        directions, epsilons, rates: what to try; the order breaks ties.
        on_done: called with folds done and in all.

    Raises:
        PlanError: no configuration keeps its logits on the interval.
    """
    grid = list(product(directions, epsilons, rates))
    losses = dict.fromkeys(grid, 0.0)
    for done, (fit, out) in enumerate(folds):
        spectrum = Spectrum.of_rows(features[fit])
        start = head.begin(features[fit], labels[fit], features[out], labels[out], outputs)
        encoded = head.encode(labels[fit], outputs, _offset(start, features[fit]))
        offset = _offset(start, features[out])
        for k, epsilon in product(directions, epsilons):
            whitening = spectrum.whitening(k, epsilon, owner)
            inside, outside = whitening.apply(features[fit]), whitening.apply(features[out])
            for rate in rates:
                candidate = head.adapted(inside, encoded, rate)
                found = rehearse(inside, encoded, candidate)
                stayed = found.inside(candidate)
                loss = head.loss(outside @ found.weights, labels[out], offset) if stayed else np.inf
                losses[k, epsilon, rate] += loss * len(out)
        on_done(done + 1, len(folds))
    spectrum = Spectrum.of_rows(features[train])
    start = head.begin(features[train], labels[train], features[held], labels[held], outputs)
    encoded = head.encode(labels[train], outputs, _offset(start, features[train]))
    # A choice must also stay on the interval on the rows that are encrypted; else the next best.
    for k, epsilon, rate in sorted(grid, key=losses.__getitem__):
        whitening = spectrum.whitening(k, epsilon, owner)
        inside = whitening.apply(features[train])
        candidate = head.adapted(inside, encoded, rate)
        found = rehearse(inside, encoded, candidate)
        loss = losses[k, epsilon, rate] / sum(len(out) for _, out in folds)
        if found.inside(candidate) and np.isfinite(loss):
            chosen = candidate.scaled_for(max(found.largest))
            return Choice(whitening, chosen, found, encoded, float(loss), start)
    refuse_outside(found, candidate)
    raise PlanError(
        "every configuration leaves the polynomial's interval on some fold",
        remedy="Lower the learning rate, raise epsilon, or use fewer directions.",
    )


def _offset(start: Start | None, features: Floats) -> Floats | None:
    return None if start is None else start.logits(features)
