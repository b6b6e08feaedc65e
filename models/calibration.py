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
    from sklearn.linear_model import LogisticRegression

    scale, bias = np.ones(logits.shape[1]), np.zeros(logits.shape[1])
    for k in range(logits.shape[1]):
        if len(np.unique(labels[:, k])) == 2:
            fitted = LogisticRegression(C=100.0)
            fitted.fit(logits[:, k : k + 1], labels[:, k])
            if fitted.coef_[0, 0] > 0:
                scale[k], bias[k] = fitted.coef_[0, 0], fitted.intercept_[0]
    return Calibration("scale", np.diag(scale), bias)


def _fit(mode: Mode, logits: Floats, labels: NDArray[Any]) -> Calibration:
    from scipy.optimize import minimize

    n, outputs = logits.shape
    if mode == "none":
        return identity(outputs)
    truth = np.eye(outputs)[labels]
    spread = logits.std() or 1.0
    x = logits / spread
    diagonal = mode == "vector"

    def unpack(theta: Floats) -> tuple[Floats, Floats]:
        matrix = np.diag(theta[:outputs]) if diagonal else theta[:-outputs].reshape(outputs, outputs)
        return matrix, theta[-outputs:]

    def objective(theta: Floats) -> tuple[float, Floats]:
        matrix, bias = unpack(theta)
        z = x @ matrix + bias
        p, log_p = _softmax(z)
        off = matrix - np.diag(np.diag(matrix))
        penalty = 1e-2 * (off**2).sum() + 1e-3 * (bias**2).sum()
        error = (p - truth) / n
        d_matrix = x.T @ error + 2e-2 * off
        d_bias = error.sum(axis=0) + 2e-3 * bias
        d = np.diag(d_matrix) if diagonal else d_matrix.ravel()
        return float(-log_p[truth > 0].mean() + penalty), np.concatenate([d, d_bias])

    start = np.ones(outputs) if diagonal else np.eye(outputs).ravel()
    found = minimize(objective, np.concatenate([start, np.zeros(outputs)]), jac=True, method="L-BFGS-B")
    matrix, bias = unpack(found.x)
    return Calibration(mode, matrix / spread, bias)


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
