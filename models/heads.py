"""Classifier heads as data: target encoding, residual polynomial, step schedule, sample weights.

A head is trained by ``w ← retain·w + momentum·Δw + lr/n · Xᵀ S (Y - p(Xw))`` on whitened features, where
``p`` is an odd polynomial that stands in for the activation on ``|z| ≤ interval``. Everything but degree,
number of steps, decay and momentum is encrypted into coefficients, so a provider never learns it and never
runs a tenant's code. :func:`logistic`, :func:`one_vs_rest`, :func:`ridge` and
:func:`blindtune.models.softmax.softmax` are built in; a custom head is a :class:`Head` with its own
functions (see ``examples/custom_head.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import InputError, PlanError
from blindtune.kernels.polynomial import DEPTH
from blindtune.kernels.training import Program

Floats = NDArray[np.float64]
Kind = Literal["binary", "multiclass", "multilabel", "regression"]
DEGREES = tuple(DEPTH)
MOST_SHRINKAGE = 1.0
STEEPEST = 1.1
"""Largest residual of a class against the rest: target and polynomial, each about a half."""


@dataclass(frozen=True)
class Encoded:
    """What is encrypted of each training row and output, besides its features.

    Attributes:
        targets: the residual at zero weights (n, K).
        coefficients: of z, z³, … in what is subtracted from it: (C, n, K).
    """

    targets: Floats
    coefficients: Floats


@dataclass(frozen=True)
class Start:
    """A head in clear that encrypted training starts from, on raw features.

    Attributes:
        weight: (d, K).
        bias: (K,).
    """

    weight: Floats
    bias: Floats

    def logits(self, features: Floats) -> Floats:
        """(n, d) to (n, K)."""
        return np.asarray(features @ self.weight + self.bias)


@dataclass(frozen=True)
class Head:
    """A linear head and how it is trained.

    Attributes:
        name: shown in reports.
        kind: how logits are read: ``binary`` one logit, ``multiclass`` one a class, ``multilabel`` one a
            label, ``regression`` one a target.
        activation: the function on logits that ``p`` approximates, odd; vectorised.
        targets: labels (n,) or (n, K) and K to Y (n, K), with values like the activation's.
        degree: of ``p``: 1, 3, 5 or 7.
        interval: P, the largest |logit| on which ``p`` is fitted; training must not leave it.
        learning_rates: one a step.
        decay: L2 penalty on the whitened weights; ``retain = 1 - lr · decay``, which is public.
        shrinkage: penalty on the mean square of the logits, encrypted within the linear coefficient; on
            whitened features about what an L2 penalty is.
        balanced: weigh each output's positive and negative rows equally.
        momentum: factor on the previous change of the weights, reached over the first steps.
        started: whether training starts from encrypted weights instead of zero.
    """

    name: str
    kind: Kind
    activation: Callable[[Floats], Floats]
    targets: Callable[[NDArray[Any], int], Floats]
    degree: int = 7
    interval: float = 12.0
    learning_rates: tuple[float, ...] = (4.0, 4.0, 4.0)
    decay: float = 0.0
    balanced: bool = True
    momentum: float = 0.0
    started: bool = False
    shrinkage: float = 0.0

    def __post_init__(self) -> None:
        if self.degree not in DEGREES:
            raise PlanError(f"a residual polynomial of degree {self.degree}", remedy="Use 1, 3, 5 or 7.")
        positive = self.learning_rates and all(0 < rate < np.inf for rate in self.learning_rates)
        if not positive or self.interval <= 0 or self.decay < 0:
            raise PlanError("learning rates and interval must be positive, decay not negative")
        if not 0 <= self.shrinkage <= MOST_SHRINKAGE:
            raise PlanError(f"a shrinkage of {self.shrinkage:g}", remedy=f"Use 0 to {MOST_SHRINKAGE:g}.")
        if not 0 <= self.momentum < 1:
            raise PlanError(f"a momentum of {self.momentum:g}", remedy="Use 0 or more, below 1.")

    @property
    def settings(self) -> tuple[Head, ...]:
        """Settings of the head that are trained side by side: this one."""
        return (self,)

    @property
    def steps(self) -> int:
        """T, gradient steps."""
        return len(self.learning_rates)

    @property
    def coefficients(self) -> Floats:
        """c_1, c_3, … of ``p``: least squares on ``[-interval, interval]``."""
        z = np.linspace(-self.interval, self.interval, 4001)
        # Powers of z / interval keep the system well conditioned.
        powers = np.arange(1, self.degree + 1, 2)
        basis = (z / self.interval)[:, None] ** powers
        scaled = np.linalg.lstsq(basis, self.activation(z), rcond=None)[0]
        return np.asarray(scaled / self.interval**powers)

    @property
    def program(self) -> Program:
        """The public part: what the server does."""
        sets, seen = [], list[float]()
        for lr in self.learning_rates:
            if lr not in seen:
                seen.append(lr)
            sets.append(seen.index(lr))
        retain = tuple(max(0.0, 1 - lr * self.decay) for lr in self.learning_rates)
        # As in Nesterov's method it grows with the steps: there is no change to go on with at first.
        momentum = tuple(min(self.momentum, t / (t + 3)) for t in range(self.steps)) if self.momentum else ()
        return Program(self.steps, self.degree, tuple(sets), retain, momentum, self.started)

    @property
    def rates(self) -> tuple[float, ...]:
        """The distinct learning rates, in the order of the program's coefficient sets."""
        return tuple(dict.fromkeys(self.learning_rates))

    def begin(
        self, features: Floats, labels: NDArray[Any], held: Floats, held_labels: NDArray[Any], outputs: int
    ) -> Start | None:
        """A start in clear, from training rows and held-out ones; None starts from zero."""
        return None

    def encode(self, labels: NDArray[Any], outputs: int, offset: Floats | None = None) -> Encoded:
        """Weighted targets and coefficients of the rows.

        Args:
            offset: logits of the start (n, K), if there is one.

        Raises:
            InputError: labels that do not fit the head.
        """
        y, s = self.weigh(labels, outputs)
        coefficients = s * self.coefficients[:, None, None]
        coefficients[0] += self.shrinkage
        return Encoded(s * y, coefficients)

    def weigh(self, labels: NDArray[Any], outputs: int) -> tuple[Floats, Floats]:
        """Targets Y and sample weights S, both (n, K); each output's weights average to one.

        Raises:
            InputError: labels that do not fit the head.
        """
        y = np.asarray(self.targets(labels, outputs), np.float64)
        if not len(labels) or y.shape != (len(labels), outputs) or not np.isfinite(y).all():
            raise InputError(f"targets of shape {y.shape} for {outputs} outputs, or not finite")
        s = np.ones_like(y)
        if self.balanced and self.kind != "regression":
            positive = y > 0
            share = positive.mean(axis=0)
            if ((share == 0) | (share == 1)).any():
                raise InputError(
                    "a class without positive or without negative training rows",
                    remedy="Add rows or leave the class out.",
                )
            s = np.where(positive, 0.5 / share, 0.5 / (1 - share))
        return y, s

    def with_rate(self, rate: float) -> Head:
        """The same head with every learning rate set to ``rate``."""
        return replace(self, learning_rates=(rate,) * self.steps)

    def adapted(self, features: Floats, encoded: Encoded, rate: float) -> Head:
        """The head with a learning rate for these whitened rows; here, the rate as it is."""
        return self.with_rate(rate)

    def scaled_for(self, largest: float) -> Head:
        """The head scaled for the largest |logit| of a rehearsal; here, its interval says the scale."""
        return self

    def loss(self, logits: Floats, labels: NDArray[Any], offset: Floats | None = None) -> float:
        """Held-out loss at the best common scale of the logits, which calibration would find.

        Log loss (or squared error for regression), balanced as the head is.

        Args:
            logits: of the trained change of the weights (n, K).
            offset: logits of the start, if there is one.
        """
        targets, weights = self.weigh(labels, logits.shape[1])
        if self.kind == "regression":
            return float(np.mean(weights * (logits - targets) ** 2))
        sign = np.where(targets > 0, 1.0, -1.0)
        if self.kind == "multiclass":
            return min(_balanced_loss(t * logits, sign > 0) for t in (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0))
        return min(
            float(np.mean(weights * np.logaddexp(0.0, -sign * t * logits))) for t in (0.5, 0.7, 1.0, 1.4, 2.0)
        )


def _balanced_loss(logits: Floats, truth: NDArray[np.bool_]) -> float:
    """Softmax log loss (n, K), every class weighing the same."""
    top = logits.max(axis=1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    per_row = log_sum - logits[truth]
    return float(np.mean([per_row[truth[:, k]].mean() for k in range(truth.shape[1]) if truth[:, k].any()]))


def sigmoid_residual(z: Floats) -> Floats:
    """``σ(z) - 1/2``, the odd part of the logistic function."""
    return np.asarray(0.5 * np.tanh(z / 2))


def identity(z: Floats) -> Floats:
    """``z``."""
    return z


def logistic(**options: Any) -> Head:
    """Binary logistic regression: labels 0 and 1, one output."""
    return Head("logistic", "binary", sigmoid_residual, _binary_targets, **options)


def one_vs_rest(kind: Kind = "multiclass", **options: Any) -> Head:
    """One logistic regression a class (labels 0 … K-1) or, multi-label, a column of 0/1 labels (n, K)."""
    return Head("one-vs-rest", kind, sigmoid_residual, _indicator_targets, **options)


def ridge(kind: Kind = "regression", **options: Any) -> Head:
    """Least squares with an L2 penalty: real targets, or classes encoded as ±1."""
    targets = {"regression": _real_targets, "binary": _signs}.get(kind, _indicator_signs)
    defaults = {
        "degree": 1,
        "interval": 4.0,
        "learning_rates": (0.9, 0.9, 0.9),
        "decay": 0.01,
        "balanced": kind != "regression",
    }
    return Head("ridge", kind, identity, targets, **{**defaults, **options})


def _binary_targets(labels: NDArray[Any], outputs: int) -> Floats:
    if not np.isin(labels, (0, 1)).all():
        raise InputError("a binary head takes labels 0 and 1")
    return np.asarray(labels, np.float64).reshape(-1, 1) - 0.5


def _indicator_targets(labels: NDArray[Any], outputs: int) -> Floats:
    if labels.ndim == 2:
        if not np.isin(labels, (0, 1)).all():
            raise InputError("multi-label columns hold 0 and 1")
        return np.asarray(labels, np.float64) - 0.5
    if labels.ndim != 1 or not np.isin(labels, np.arange(outputs)).all():
        raise InputError(f"labels outside 0 … {outputs - 1}")
    return np.asarray(np.eye(outputs)[labels.astype(int)] - 0.5)


def _real_targets(labels: NDArray[Any], outputs: int) -> Floats:
    values = np.asarray(labels, np.float64)
    return values.reshape(-1, 1) if values.ndim == 1 else values


def _signs(labels: NDArray[Any], outputs: int) -> Floats:
    return np.asarray(2 * _binary_targets(labels, outputs))


def _indicator_signs(labels: NDArray[Any], outputs: int) -> Floats:
    return np.asarray(2 * _indicator_targets(labels, outputs))
