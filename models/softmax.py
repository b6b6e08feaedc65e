"""The softmax head: an inexact Newton step from a linear-discriminant start, coupled between classes.

One-vs-rest logistic heads miss the coupling between classes, and polynomials of a softmax are deep. This
head linearises instead. Its start is the linear discriminant of the classes' moments, in clear; ``p`` are
its softmax probabilities, row by row, known at the hospital. Encrypted training solves for the change Δ
of the weights on whitened features::

    Δ ← Δ + momentum · (Δ - Δ_before) + lr/n · Xᵀ (Y - p - 1.5 · p(1 - p) ⊙ XΔ)

which is gradient descent on the softmax loss with its Hessian at the start, bounded by its diagonal
(Böhning 1992, "Multinomial logistic regression algorithm", bounds it by a constant instead). Residual and
curvature are encrypted row by row, the circuit is the one of degree 1: three levels a step, and no interval
that logits could leave. After decryption the head is ``start + τ · Δ``, τ chosen on validation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import InputError, PlanError
from blindtune.models.heads import Encoded, Floats, Head, Start, identity

SHRINKAGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
TEMPERATURES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)
LENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Values of τ to choose from; at zero the head stays what it was in clear."""

DIAGONAL = 1.5
"""The Hessian's blocks between classes are left out: so much of its diagonal makes up for them."""

RELATIVE_RATE, MOMENTUM = 2.0, 0.5
"""Learning rate over the largest curvature: stable below 2 · (1 + momentum), with a third to spare."""

SETTLED = 1e-12
"""A largest residual below this is rounding."""

MARGIN = 1.25
"""The scaling's interval over the largest logit of the rehearsal: encoded numbers stay below one."""


@dataclass(frozen=True)
class SoftmaxHead(Head):
    """See the module; make one with :func:`softmax`."""

    def begin(
        self, features: Floats, labels: NDArray[Any], held: Floats, held_labels: NDArray[Any], outputs: int
    ) -> Start:
        """The linear discriminant whose shrinkage and temperature do best on held-out rows."""
        one = _indicators(labels, outputs)
        moments = one.sum(axis=0), one.T @ features, features.T @ features
        best, least = None, np.inf
        for shrinkage in SHRINKAGES:
            try:
                weight, bias = discriminant(*moments, shrinkage)
            except np.linalg.LinAlgError:
                continue
            logits = held @ weight + bias
            for temperature in TEMPERATURES:
                loss = log_loss(temperature * logits, held_labels)
                if loss < least:
                    best, least = Start(temperature * weight, temperature * bias), loss
        if best is None:
            raise InputError("features that no discriminant can be made of", remedy="Check the embeddings.")
        return best

    def encode(self, labels: NDArray[Any], outputs: int, offset: Floats | None = None) -> Encoded:
        """Residual ``Y - p`` and curvature at the logits ``offset`` of the start (n, K), up to one factor."""
        targets, _ = self.weigh(labels, outputs)
        p = probabilities(offset if offset is not None else np.zeros_like(targets))
        # A start that fits well leaves small numbers: scaled up, and the rate down by as much, they keep
        # their precision.
        largest = float(np.abs(targets - p).max())
        if largest < SETTLED:
            raise PlanError(
                "the linear discriminant in clear settles every training row: there is nothing to train",
                remedy="Use --head one-vs-rest.",
            )
        bent = DIAGONAL * p * (1 - p) + self.shrinkage
        return Encoded((targets - p) / largest, (bent / largest)[None])

    def adapted(self, features: Floats, encoded: Encoded, rate: float) -> Head:
        """The learning rate relative to the largest curvature on these rows."""
        return self.with_rate(rate / curvature(features, encoded.coefficients[0]))

    def scaled_for(self, largest: float) -> Head:
        """The head with its numbers scaled by the logits that a rehearsal met."""
        return replace(self, interval=max(1.0, MARGIN * largest))

    def loss(self, logits: Floats, labels: NDArray[Any], offset: Floats | None = None) -> float:
        """Held-out log loss, at the best length of the step."""
        start = 0.0 if offset is None else offset
        return min(log_loss(start + length * logits, labels) for length in LENGTHS)


def softmax(**options: Any) -> SoftmaxHead:
    """The softmax head for labels 0 … K-1: four steps, ten levels."""
    steps = options.pop("steps", 4)
    defaults: dict[str, Any] = {
        "degree": 1,
        "learning_rates": (RELATIVE_RATE,) * steps,
        "balanced": False,
        "momentum": MOMENTUM,
    }
    return SoftmaxHead("softmax", "multiclass", identity, _indicators, **{**defaults, **options})


def discriminant(counts: Floats, sums: Floats, second: Floats, shrinkage: float) -> tuple[Floats, Floats]:
    """Linear discriminant of Gaussian classes with one shrunk covariance.

    Args:
        counts, sums, second: ``n_k`` (K,), ``Σ_k x`` (K, d), ``Σ xxᵀ`` (d, d); members can add them up.
        shrinkage: relative to the mean variance.

    Returns:
        Weight (d, K) and bias (K,).
    """
    means, n = sums / counts[:, None], counts.sum()
    within = (second - means.T @ sums) / n
    within += shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    weight = np.linalg.solve(within, means.T)
    return weight, np.log(counts / n) - 0.5 * (means.T * weight).sum(axis=0)


def curvature(features: Floats, coefficients: Floats, rounds: int = 12) -> float:
    """Largest eigenvalue of ``Xᵀ diag(h_k) X / n`` over the classes, by power iteration.

    Args:
        features: (n, columns).
        coefficients: h (n, K).
    """
    v = np.random.default_rng(0).normal(size=(features.shape[1], coefficients.shape[1]))
    v /= np.linalg.norm(v, axis=0)
    top = np.ones(v.shape[1])
    for _ in range(rounds):
        v = features.T @ (coefficients * (features @ v)) / len(features)
        top = np.maximum(np.linalg.norm(v, axis=0), 1e-12)
        v /= top
    return float(top.max())


def step_length(start: Floats, change: Floats, labels: NDArray[Any]) -> float:
    """τ of least log loss for logits ``start + τ · change`` (n, K); one where several do as well."""
    losses = {length: log_loss(start + length * change, labels) for length in LENGTHS}
    return min(LENGTHS, key=lambda x: (losses[x], abs(x - 1)))


def log_loss(logits: Floats, labels: NDArray[Any]) -> float:
    """Mean softmax log loss of logits (n, K)."""
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float(np.mean(total - logits[np.arange(len(labels)), labels]))


def probabilities(logits: Floats) -> Floats:
    """Softmax over the last axis."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def _indicators(labels: NDArray[Any], outputs: int) -> Floats:
    if labels.ndim != 1 or not np.isin(labels, np.arange(outputs)).all():
        raise InputError(f"labels outside 0 … {outputs - 1}")
    found = np.eye(outputs)[labels.astype(int)]
    if not found.any(axis=0).all():
        raise InputError("a class without training rows", remedy="Add rows or leave the class out.")
    return np.asarray(found)
