"""How well a head does on held-out scans: figures with 95 % intervals, never NaN.

Probabilities come from the logits: the logistic function for binary and multi-label heads, softmax
for multi-class heads (also where the head was trained one-versus-rest). Decisions are a logit above
a cutoff, 0 unless another was chosen on validation scans, or the class of the largest logit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike

from blindtune.errors import InputError

from . import _estimators as estimators
from ._bootstrap import Booleans, Estimator, Floats, Integers, exact_limit, replicates
from .figures import NO_WIDTH, ClassMetrics, Figure, Kind, Metrics

#: Shares of scans: where no error was seen they still have an exact limit.
_SHARES = frozenset({"accuracy", "exact_match", "sensitivity", "specificity", "ppv", "npv"})
#: In the order of the fields of ClassMetrics.
_PER_CLASS = ("sensitivity", "specificity", "ppv", "npv", "roc_auc")


def evaluate(
    logits: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    *,
    kind: Kind = "binary",
    groups: Sequence[object] | ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
    cutoff: float = 0.0,
) -> Metrics:
    """Evaluate a head on held-out scans.

    Args:
        logits: (n,) or (n, 1) for binary and regression heads, (n, K) for the others.
        labels: (n,) class indices; (n, K) of 0 and 1 for multi-label; (n,) numbers for regression.
        classes: K names; two for a binary head (negative, positive), at most one for regression.
        kind: the task.
        groups: (n,) the patient of each scan: intervals then resample patients instead of scans.
        resamples: bootstrap replicates behind the intervals; 0 for none.
        seed: of the replicates.
        cutoff: logit above which a binary or multi-label head decides for a class.

    Raises:
        InputError: shapes, labels or names do not fit, a value is not finite, or there is no scan.
    """
    if kind not in get_args(Kind):
        raise InputError(f"unknown kind {kind!r}", where="kind", remedy=f"Use one of {get_args(Kind)}.")
    if not np.isfinite(cutoff) or (cutoff and kind not in ("binary", "multilabel")):
        raise InputError(f"{cutoff} does not fit a {kind} head", where="cutoff", remedy="Leave it at 0.")
    names = tuple(str(name) for name in classes)
    scores, truth = _checked(logits, labels, names, kind)
    unit = indices_of(groups, len(scores))
    units = int(unit.max()) + 1

    confusion: tuple[tuple[int, ...], ...] | None = None
    counts: tuple[tuple[int, int, int, int], ...] = ()
    reasons: dict[str, str] = {}
    if kind == "regression":
        estimate = estimators.regression_figures(scores, truth, unit)
        reasons["r2"] = "every scan has the same value"
        support = {}
    else:
        actual, called, estimate = _classification(
            scores, truth.astype(np.int64), len(names), kind, unit, cutoff
        )
        if kind != "multilabel":
            confusion = tuple(map(tuple, (actual.astype(np.int64).T @ called.astype(np.int64)).tolist()))
        counts = tuple(
            (int((a & c).sum()), int((~a & c).sum()), int((a & ~c).sum()), int((~a & ~c).sum()))
            for a, c in zip(actual.T, called.T, strict=True)
        )
        reasons = _reasons(names, counts, kind)
        support = _support(actual, called, unit, units, kind)

    points = {name: float(value[0]) for name, value in estimate(np.ones((1, units))).items()}
    samples = replicates(estimate, units, len(scores), resamples, seed)
    figures = {
        name: _figure(name, value, samples.get(name), reasons, support.get(name, units))
        for name, value in points.items()
    }
    whole = {name: figure for name, figure in figures.items() if ":" not in name}
    return Metrics(
        kind=kind,
        classes=names,
        n=len(scores),
        patients=None if groups is None else units,
        figures=whole,
        per_class=tuple(
            ClassMetrics(names[k], *counts[k], *(figures[f"{name}:{k}"] for name in _PER_CLASS))
            for k in range(len(counts))
        ),
        confusion=confusion,
        resamples=resamples,
        cutoff=cutoff,
        design=_design(truth, unit, kind, resamples, seed),
        samples={name: samples[name] for name in whole if name in samples},
    )


def _checked(
    logits: ArrayLike, labels: ArrayLike, names: tuple[str, ...], kind: Kind
) -> tuple[Floats, Floats]:
    """Logits (n,) or (n, K) and labels as finite floats of the right shape and values."""
    try:
        scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("not an array of numbers", where="logits or labels") from None
    single = kind in ("binary", "regression")
    if single and scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    wanted = {"binary": (2, 2), "regression": (0, 1), "multiclass": (2, None), "multilabel": (1, None)}
    least, most = wanted[kind]
    if len(names) < least or (most is not None and len(names) > most):
        raise InputError(f"{len(names)} names do not fit a {kind} head", where="classes")
    shape = (len(scores),) if single else (len(scores), len(names))
    if scores.shape != shape or len(scores) == 0:
        expected = "(n,)" if single else f"(n, {len(names)})"
        raise InputError(
            f"shape {scores.shape} where a {kind} head has {expected}",
            where="logits",
            remedy="Hand in the logits of at least one scan.",
        )
    if truth.shape != (shape if kind == "multilabel" else shape[:1]):
        raise InputError(f"shape {truth.shape} does not fit logits {scores.shape}", where="labels")
    for name, values in (("logits", scores), ("labels", truth)):
        if not np.isfinite(values).all():
            raise InputError(
                "holds a value that is not finite", where=name, remedy="Check that training converged."
            )
    top = {"binary": 1, "multiclass": len(names) - 1, "multilabel": 1, "regression": None}[kind]
    if top is not None and not (np.isin(truth, np.arange(top + 1))).all():
        raise InputError(f"a label is not a whole number from 0 to {top}", where="labels")
    return scores, truth


def indices_of(groups: Sequence[object] | ArrayLike | None, rows: int) -> Integers:
    """Patients as indices 0 … units − 1 (n,); every scan its own patient where none are given.

    Raises:
        InputError: another number of entries than of scans.
    """
    if groups is None:
        return np.arange(rows)
    index: dict[object, int] = {}
    names = np.asarray(groups).tolist()
    unit = np.array([index.setdefault(name, len(index)) for name in names], dtype=np.int64)
    if len(unit) != rows:
        raise InputError(f"{len(unit)} entries for {rows} scans", where="groups")
    return unit


def _classification(
    logits: Floats, labels: Integers, count: int, kind: Kind, unit: Integers, cutoff: float
) -> tuple[Booleans, Booleans, Estimator]:
    """Labels and decisions as columns (n, K), and the estimator of all figures."""
    rows = np.arange(len(logits))
    if kind == "multiclass":
        actual = labels[:, None] == np.arange(count)
        called = logits.argmax(axis=1)[:, None] == np.arange(count)
        log_probability = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        probability = np.exp(log_probability)
        top = logits.argmax(axis=1)
        gaps = [estimators.calibration_gaps(np.minimum(probability[rows, top], 1.0), top == labels)]
        brier = ((probability - actual) ** 2).sum(axis=1)
        log_loss = -log_probability[rows, labels]
        scores = estimators.ranking_margin(logits)
    else:
        columns = logits.reshape(len(logits), -1)
        positive = labels.reshape(columns.shape) == 1
        probability = np.exp(-np.logaddexp(0.0, -columns))
        gaps = [estimators.calibration_gaps(p, y) for p, y in zip(probability.T, positive.T, strict=True)]
        brier = ((probability - positive) ** 2).mean(axis=1)
        log_loss = np.logaddexp(0.0, np.where(positive, -columns, columns)).mean(axis=1)
        actual, called, scores = positive, columns > cutoff, columns
        if kind == "binary":
            actual, called = np.hstack([~actual, actual]), np.hstack([~called, called])
            scores = np.hstack([-scores, scores])
    losses = np.stack([brier, log_loss], axis=1)
    estimate = estimators.class_figures(
        actual, called, scores, losses, gaps, unit, independent=kind == "multilabel"
    )
    return actual, called, estimate


def _figure(
    name: str, value: float, samples: Floats | None, reasons: Mapping[str, str], units: int
) -> Figure:
    found = Figure.of(value, samples, reasons.get(name, "undefined"))
    if found.reason == NO_WIDTH and name.partition(":")[0] in _SHARES and value in (0.0, 1.0):
        limit = exact_limit(units)
        return Figure(value, limit, 1.0) if value == 1.0 else Figure(value, 0.0, 1 - limit)
    return found


def _support(actual: Booleans, called: Booleans, unit: Integers, units: int, kind: Kind) -> dict[str, int]:
    """Patients in the denominator of each share: what an exact limit counts."""
    support: dict[str, int] = {}
    for k in range(actual.shape[1]):
        chosen = {"sensitivity": actual[:, k], "specificity": ~actual[:, k]}
        chosen |= {"ppv": called[:, k], "npv": ~called[:, k]}
        for name, rows in chosen.items():
            support[f"{name}:{k}"] = len(np.unique(unit[rows]))
            if kind == "binary" and k == 1:
                support[name] = support[f"{name}:{k}"]
    return support


def _reasons(
    names: tuple[str, ...], counts: tuple[tuple[int, int, int, int], ...], kind: Kind
) -> dict[str, str]:
    """Why a figure is undefined, in words a reader of the report can act on."""
    reasons: dict[str, str] = {}
    gone: list[str] = []
    for k, (tp, fp, fn, tn) in enumerate(counts):
        absent = f"no scan of class “{names[k]}”" if tp + fn == 0 else ""
        full = f"every scan is of class “{names[k]}”" if fp + tn == 0 else ""
        gone += [text for text in (absent, full if kind == "multilabel" else "") if text]
        reasons[f"sensitivity:{k}"] = absent
        reasons[f"specificity:{k}"] = full
        reasons[f"roc_auc:{k}"] = absent or full
        reasons[f"ppv:{k}"] = f"“{names[k]}” is never predicted"
        reasons[f"npv:{k}"] = f"“{names[k]}” is always predicted"
    for name in ("balanced_accuracy", "roc_auc", "roc_auc_weighted", "mcc"):
        reasons[name] = "; ".join(gone)
    if kind == "binary":
        reasons |= {name: reasons[f"{name}:1"] for name in ("sensitivity", "specificity", "ppv", "npv")}
    return reasons


def _design(truth: Floats, unit: Integers, kind: Kind, resamples: int, seed: int) -> str:
    """Sixteen hex digits over what fixes the replicates."""
    digest = hashlib.sha256(f"{kind} {truth.shape} {resamples} {seed}".encode())
    digest.update(np.ascontiguousarray(truth).tobytes())
    digest.update(np.ascontiguousarray(unit).tobytes())
    return digest.hexdigest()[:16]
