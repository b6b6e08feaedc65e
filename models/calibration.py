"""Calibration of logits on the validation split, folded into the linear head.

Binary: scale and threshold. Several classes: none, a scale and bias a class (vector scaling), or a
K×K matrix with a penalty (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4);
which one is chosen by cross-validated log loss on the validation split, for on few images a matrix
overfits. Heads train balanced, which ranks better; calibration then restores the prevalence of the
validation split, so that probabilities mean what they say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import InputError

Floats = NDArray[np.float64]
Mode = Literal["none", "scale", "vector", "matrix"]
FOLDS = 5
PRIOR = 1.0
"""Precision of a Gaussian prior around no calibration: without it scales grow without end on few rows."""


@dataclass(frozen=True)
class Calibration:
    """``logits ← logits @ matrix + bias``.

    Attributes:
        mode: how it was fitted.
        matrix: (K, K).
        bias: (K,).
    """

    mode: Mode
    matrix: Floats
    bias: Floats

    def apply(self, logits: Floats) -> Floats:
        """Calibrated logits (n, K)."""
        return logits @ self.matrix + self.bias

    def fold(self, weight: Floats, bias: Floats) -> tuple[Floats, Floats]:
        """A linear layer (K, d), (K,) with the calibration built in."""
        return self.matrix.T @ weight, bias @ self.matrix + self.bias


def identity(outputs: int) -> Calibration:
    """No calibration."""
    return Calibration("none", np.eye(outputs), np.zeros(outputs))


def calibrate(logits: Floats, labels: NDArray[Any], kind: str) -> Calibration:
    """Fit a calibration on validation logits (n, K) and labels.

    Args:
        kind: the head's kind; regression is left alone.

    Raises:
        InputError: shapes that do not fit.
    """
    n, outputs = logits.shape
    if len(labels) != n or not np.isfinite(logits).all():
        raise InputError(f"{n} rows of logits, {len(labels)} labels, or logits that are not finite")
    if kind == "regression" or n < 2 * FOLDS:
        return identity(outputs)
    if kind == "binary":
        return _per_output(logits, labels.reshape(-1, 1))
    if kind == "multilabel":
        return _per_output(logits, labels)
    if len(np.unique(labels)) < outputs:
        return identity(outputs)
    modes: tuple[Mode, ...] = ("none", "vector", "matrix")
    losses = {m: _cross_validated(m, logits, labels) for m in modes}
    best = min(modes, key=lambda m: losses[m])
    return _fit(best, logits, labels)


def _per_output(logits: Floats, labels: NDArray[Any]) -> Calibration:
    """Platt scaling of each logit: a scale and a threshold."""
    from scipy.optimize import minimize

    scale, bias = np.ones(logits.shape[1]), np.zeros(logits.shape[1])
    for k in range(logits.shape[1]):
        sign = np.where(labels[:, k] > 0, 1.0, -1.0)
        x = np.column_stack([logits[:, k], np.ones(len(sign))])

        def objective(theta: Floats, x: Floats = x, sign: Floats = sign) -> tuple[float, Floats]:
            margin = sign * (x @ theta)
            wrong = -sign * 0.5 * (1 - np.tanh(margin / 2))
            away = theta - (1.0, 0.0)
            loss = np.logaddexp(0.0, -margin).sum() + PRIOR / 2 * (away**2).sum()
            return float(loss), x.T @ wrong + PRIOR * away

        found = minimize(objective, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B").x
        if len(np.unique(sign)) == 2 and found[0] > 0:
            scale[k], bias[k] = found
    return Calibration("scale", np.diag(scale), bias)


def _fit(mode: Mode, logits: Floats, labels: NDArray[Any]) -> Calibration:
    from scipy.optimize import minimize

    outputs = logits.shape[1]
    if mode == "none":
        return identity(outputs)
    truth, neutral = np.eye(outputs)[labels], np.eye(outputs)

    def unpack(theta: Floats) -> tuple[Floats, Floats]:
        free = theta[:-outputs]
        return (np.diag(free) if mode == "vector" else free.reshape(outputs, outputs)), theta[-outputs:]

    def objective(theta: Floats) -> tuple[float, Floats]:
        matrix, bias = unpack(theta)
        p, log_p = _softmax(logits @ matrix + bias)
        away = matrix - neutral
        loss = -log_p[truth > 0].sum() + PRIOR / 2 * ((away**2).sum() + (bias**2).sum())
        d_matrix = logits.T @ (p - truth) + PRIOR * away
        d = np.diag(d_matrix) if mode == "vector" else d_matrix.ravel()
        return float(loss), np.concatenate([d, (p - truth).sum(axis=0) + PRIOR * bias])

    start = np.ones(outputs) if mode == "vector" else neutral.ravel()
    found = minimize(objective, np.concatenate([start, np.zeros(outputs)]), jac=True, method="L-BFGS-B")
    return Calibration(mode, *unpack(found.x))


def _cross_validated(mode: Mode, logits: Floats, labels: NDArray[Any]) -> float:
    # Folds stratified by class: the n-th row of each class goes to fold n mod FOLDS.
    fold = np.zeros(len(labels), int)
    for k in np.unique(labels):
        rows = np.flatnonzero(labels == k)
        fold[rows] = np.arange(len(rows)) % FOLDS
    total = 0.0
    for f in range(FOLDS):
        inside, outside = fold != f, fold == f
        if len(np.unique(labels[inside])) < logits.shape[1]:
            return float("inf")
        fitted = _fit(mode, logits[inside], labels[inside])
        _, log_p = _softmax(fitted.apply(logits[outside]))
        total -= float(log_p[np.arange(outside.sum()), labels[outside]].sum())
    return total


def _softmax(logits: Floats) -> tuple[Floats, Floats]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.exp(log_p), log_p
