"""The converged plaintext heads that an encrypted head is measured against.

They see the same features and the same split, but no polynomial, no noise and as many steps as they
need: what they reach beyond the encrypted head is the price of encryption. The strength of the
penalty is chosen on the validation set; the test set is never seen here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from blindtune.errors import InputError

from ._bootstrap import Floats, Integers

Weights = Literal["balanced"]

#: Inverse penalties, weakest last: scikit-learn's C, on standardised features.
C_GRID = tuple(float(c) for c in np.logspace(-5, 3, 9))
#: After this many rises of the validation loss in a row, weaker penalties are not tried.
_PATIENCE = 2
_ITERATIONS = 3000
#: Largest entry of the mean loss's gradient, and relative change, to stop at: while choosing C, and at last.
_LOOSE, _STRICT = (2e-5, 1e-7), (1e-6, 1e-11)


@dataclass(frozen=True)
class LinearHead:
    """A linear head on raw features.

    Attributes:
        coef: (K, d); one row for a binary head or a regression.
        intercept: (K,).
        C: inverse penalty that did best on the validation set; for several labels, each one's.
        converged: False where the solver stopped at its last iteration.
    """

    coef: Floats
    intercept: Floats
    C: tuple[float, ...]
    converged: bool

    def logits(self, x: ArrayLike) -> Floats:
        """(n, d) features → (n,) for one row of ``coef``, else (n, K)."""
        out: Floats = np.asarray(x, dtype=np.float64) @ self.coef.T + self.intercept
        return out[:, 0] if len(self.coef) == 1 else out


def converged_softmax(
    train_x: ArrayLike,
    train_y: ArrayLike,
    val_x: ArrayLike,
    val_y: ArrayLike,
    *,
    weights: Weights | None = "balanced",
) -> LinearHead:
    """Logistic regression with an L2 penalty, trained until it converges.

    Args:
        train_x: (n, d).
        train_y: (n,) class indices, every class at least once; two classes make a binary head.
        val_x: (m, d).
        val_y: (m,), classes of the training set only.
        weights: ``"balanced"`` counts each class alike, in training and in the validation loss.

    Raises:
        InputError: shapes do not fit, a value is not finite, or a class has no training scan.
    """
    x, y, held_x, held_y = _pairs(train_x, train_y, val_x, val_y, columns=1)
    labels, held = _classes(y, "train_y"), _classes(held_y, "val_y")
    counts = np.bincount(labels)
    if len(counts) < 2 or not counts.all():
        raise InputError(
            "a class has no scan in the training set",
            where="train_y",
            remedy="Number the classes 0, 1, 2, … without gaps and give each some training scans.",
        )
    if held.max() >= len(counts):
        raise InputError("holds a class that the training set lacks", where="val_y")
    share = len(labels) / (len(counts) * counts) if weights == "balanced" else np.ones(len(counts))
    scaler, x, held_x = _standardised(x, held_x)
    coef, intercept, c, converged = _best_logistic(x, labels, held_x, held, share)
    return _on_raw_features(coef, intercept, scaler, (c,), converged)


def converged_multilabel(
    train_x: ArrayLike,
    train_y: ArrayLike,
    val_x: ArrayLike,
    val_y: ArrayLike,
    *,
    weights: Weights | None = "balanced",
) -> LinearHead:
    """One binary :func:`converged_softmax` a label; labels are (n, K) and (m, K) of 0 and 1."""
    x, y, held_x, held_y = _pairs(train_x, train_y, val_x, val_y, columns=2)
    heads = [
        converged_softmax(x, one, held_x, other, weights=weights)
        for one, other in zip(y.T, held_y.T, strict=True)
    ]
    return LinearHead(
        np.vstack([head.coef for head in heads]),
        np.concatenate([head.intercept for head in heads]),
        tuple(head.C[0] for head in heads),
        all(head.converged for head in heads),
    )


def converged_ridge(train_x: ArrayLike, train_y: ArrayLike, val_x: ArrayLike, val_y: ArrayLike) -> LinearHead:
    """Ridge regression on (n, d) and (n,) numbers, solved exactly; the penalty is 1 / C.

    Raises:
        InputError: shapes do not fit or a value is not finite.
    """
    from sklearn.linear_model import Ridge

    x, y, held_x, held_y = _pairs(train_x, train_y, val_x, val_y, columns=1)
    scaler, x, held_x = _standardised(x, held_x)

    def fits() -> Iterable[tuple[float, tuple[Floats, Floats, float, bool]]]:
        for c in C_GRID:
            model = Ridge(alpha=1 / c, solver="cholesky").fit(x, y)
            loss = float(np.mean((model.predict(held_x) - held_y) ** 2))
            yield loss, (model.coef_[None, :], np.array([model.intercept_]), c, True)

    coef, intercept, c, converged = _least(fits())
    return _on_raw_features(coef, intercept, scaler, (c,), converged)


def _best_logistic(
    x: Floats, labels: Integers, held_x: Floats, held: Integers, share: Floats
) -> tuple[Floats, Floats, float, bool]:
    """Fit from the strongest penalty to weaker ones, each from the last; then the best to the end."""
    problem = _Logistic(x, labels, share)

    def fits() -> Iterable[tuple[float, tuple[Floats, Floats, float, bool]]]:
        for c in C_GRID:
            problem.fit(c, _LOOSE)
            loss = _log_loss(held_x @ problem.coef.T + problem.intercept, held, share[held])
            yield loss, (problem.at.copy(), problem.intercept, c, True)

    problem.at, _, c, _ = _least(fits())
    converged = problem.fit(c, _STRICT)
    return problem.coef, problem.intercept, c, converged


class _Logistic:
    """Penalised logistic regression as scikit-learn defines it, solved in scaled principal directions.

    There L-BFGS takes tens of steps instead of many hundreds, which decides about 50,000 rows.
    """

    def __init__(self, x: Floats, labels: Integers, share: Floats) -> None:
        values, self._vectors = np.linalg.eigh(x.T @ x / len(x))
        self._values = np.maximum(values, 0.0)
        self._x = np.hstack([x @ self._vectors, np.ones((len(x), 1))])
        truth = np.eye(len(share))[labels]
        self._truth = truth[:, 1:] if len(share) == 2 else truth
        self._weights = share[labels][:, None]
        self.at = np.zeros((self._x.shape[1], self._truth.shape[1]))

    @property
    def coef(self) -> Floats:
        """(K, d)."""
        return np.ascontiguousarray((self._vectors @ self.at[:-1]).T, np.float64)

    @property
    def intercept(self) -> Floats:
        """(K,)."""
        return np.array(self.at[-1], np.float64)

    def fit(self, c: float, tolerance: tuple[float, float]) -> bool:
        """Go on from the last solution to that of another C; False if it has not converged."""
        from scipy.optimize import minimize

        # About the Hessian's diagonal: a tenth of the variance, p (1 - p), and the penalty.
        curvature = 0.1 * self._values + 1 / (c * len(self._x))
        scale = np.append(1 / np.sqrt(curvature), 1.0)[:, None]
        found = minimize(
            self._loss,
            (self.at / scale).ravel(),
            args=(c, scale),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _ITERATIONS, "gtol": tolerance[0], "ftol": tolerance[1]},
        )
        self.at = found.x.reshape(self.at.shape) * scale
        return bool(found.success)

    def _loss(self, flat: Floats, c: float, scale: Floats) -> tuple[float, Floats]:
        """The mean loss and its gradient."""
        at = flat.reshape(self.at.shape) * scale
        logits = self._x @ at
        if logits.shape[1] == 1:
            p = 0.5 * (1 + np.tanh(logits / 2))
            loss = np.logaddexp(0.0, logits) - self._truth * logits
        else:
            top = logits.max(axis=1, keepdims=True)
            p = np.exp(logits - top)
            total = p.sum(axis=1, keepdims=True)
            p /= total
            loss = top + np.log(total) - (self._truth * logits).sum(axis=1, keepdims=True)
        gradient = self._x.T @ (self._weights * (p - self._truth))
        gradient[:-1] += at[:-1] / c
        value = (self._weights * loss).sum() + 0.5 * (at[:-1] ** 2).sum() / c
        return float(value) / len(logits), (gradient * scale).ravel() / len(logits)


def _least(
    fits: Iterable[tuple[float, tuple[Floats, Floats, float, bool]]],
) -> tuple[Floats, Floats, float, bool]:
    """The fit of the least loss; stop drawing once the loss keeps rising."""
    best_loss, best, rises = np.inf, None, 0
    for loss, fit in fits:
        if best is None or loss < best_loss:
            best_loss, best, rises = loss, fit, 0
        elif (rises := rises + 1) == _PATIENCE:
            break
    assert best is not None
    return best


def _log_loss(logits: Floats, labels: Integers, row_weights: Floats) -> float:
    """Weighted mean of −log p(label); logits (m, 1) are those of class 1 against class 0."""
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    log_probability = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    picked = log_probability[np.arange(len(labels)), labels]
    return float(-np.average(picked, weights=row_weights))


def _standardised(x: Floats, held_x: Floats) -> tuple[Any, Floats, Floats]:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    return scaler, scaler.transform(x), scaler.transform(held_x)


def _on_raw_features(
    coef: Floats, intercept: Floats, scaler: Any, c: tuple[float, ...], converged: bool
) -> LinearHead:
    """Fold the standardisation into the weights, so that the head applies to features as they are."""
    raw = np.asarray(coef, dtype=np.float64) / scaler.scale_
    return LinearHead(raw, np.asarray(intercept, dtype=np.float64) - raw @ scaler.mean_, c, converged)


def _pairs(
    train_x: ArrayLike, train_y: ArrayLike, val_x: ArrayLike, val_y: ArrayLike, *, columns: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Both pairs as finite floats; ``columns`` is the number of dimensions of the labels."""
    x, y, held_x, held_y = (np.asarray(a, dtype=np.float64) for a in (train_x, train_y, val_x, val_y))
    for name, features, labels in (("train", x, y), ("val", held_x, held_y)):
        if features.ndim != 2 or labels.ndim != columns or len(features) != len(labels) or not len(labels):
            raise InputError(
                f"features {features.shape} and labels {labels.shape} do not fit", where=f"{name}_x"
            )
        if not (np.isfinite(features).all() and np.isfinite(labels).all()):
            raise InputError("holds a value that is not finite", where=f"{name}_x or {name}_y")
    if x.shape[1] != held_x.shape[1] or y.shape[1:] != held_y.shape[1:]:
        raise InputError(f"{held_x.shape} does not fit train_x {x.shape}", where="val_x")
    return x, y, held_x, held_y


def _classes(labels: Floats, name: str) -> Integers:
    whole = labels.astype(np.int64)
    if (whole != labels).any() or (whole < 0).any():
        raise InputError("a label is not a class index", where=name)
    return whole
