"""Weighted figures: each maps weights over patients (R, units) to values (R,), NaN where undefined.

The figure itself is the same function under weights of one, so a point and its replicates cannot
drift apart. Everything but the area under the ROC curve is a ratio of sums, and sums over patients
are one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ._bootstrap import Booleans, Estimator, Floats, Integers, Values

CALIBRATION_BINS = 10


def ratio(above: Floats, below: Floats) -> Floats:
    """``above / below``, NaN where ``below`` is zero."""
    out = np.full(np.broadcast(above, below).shape, np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def sum_by_unit(rows: Floats, unit: Integers, units: int) -> Floats:
    """Add the rows (n, F) of each unit: (units, F)."""
    order = np.argsort(unit, kind="stable")
    starts = np.searchsorted(unit[order], np.arange(units))
    return np.asarray(np.add.reduceat(rows[order], starts, axis=0), dtype=np.float64)


def ranking_margin(logits: Floats) -> Floats:
    """Log-odds of each class under softmax (n, K): the order of the probabilities, without rounding to 1."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    margins: Floats = np.empty_like(shifted)
    for column in range(shifted.shape[1]):
        others = np.delete(shifted, column, axis=1)
        margins[:, column] = shifted[:, column] - np.logaddexp.reduce(others, axis=1)
    return margins


def area_under_roc(score: Floats, positive: Booleans, unit: Integers) -> Callable[[Floats], Floats]:
    """The share of (positive, negative) pairs in the right order, ties half (Mann and Whitney, 1947)."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    positives = np.flatnonzero(positive[order])
    first = np.searchsorted(ordered, ordered[positives], side="left")
    last = np.searchsorted(ordered, ordered[positives], side="right")
    negative_column = (~positive[order]).astype(np.float64)
    unit_in_order = unit[order]

    def area(weights: Floats) -> Floats:
        by_row = weights[:, unit_in_order]
        positive_weight = by_row[:, positives]
        below = np.zeros((len(weights), len(score) + 1))
        np.cumsum(by_row * negative_column, axis=1, out=below[:, 1:])
        won = 0.5 * np.einsum("rp,rp->r", positive_weight, below[:, first] + below[:, last])
        return ratio(won, positive_weight.sum(axis=1) * below[:, -1])

    return area


def calibration_gaps(probability: Floats, hit: Booleans) -> Floats:
    """Each row's (probability − outcome) in the column of its bin (n, bins): sums of it make the ECE."""
    bins = np.minimum((probability * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.zeros((len(probability), CALIBRATION_BINS))
    gaps[np.arange(len(probability)), bins] = probability - hit
    return gaps


def class_figures(
    truth: Booleans,
    predicted: Booleans,
    scores: Floats,
    losses: Floats,
    gaps: Sequence[Floats],
    unit: Integers,
    *,
    independent: bool,
) -> Estimator:
    """All figures of a classifier; keys are ``name`` for the head and ``name:k`` for class k.

    Args:
        truth: (n, K), the labels as columns; binary heads hand in both classes.
        predicted: (n, K), the decisions as columns.
        scores: (n, K), larger for more likely.
        losses: (n, 2), Brier score and log loss of each row.
        gaps: one :func:`calibration_gaps` per calibration that the ECE is the mean of.
        unit: (n,), the row's patient, 0 … units − 1.
        independent: True for labels that do not exclude each other.
    """
    count, units = truth.shape[1], int(unit.max()) + 1
    right = truth == predicted
    columns = [np.ones((len(truth), 1)), truth, predicted, truth & predicted, right, losses, *gaps]
    columns.append(right.all(axis=1, keepdims=True))
    sums = sum_by_unit(np.hstack([column.astype(np.float64) for column in columns]), unit, units)
    edges = np.cumsum([column.shape[1] for column in columns])[:-1]
    # The two columns of a binary head rank alike, so its one area is computed once.
    binary = count == 2 and not independent
    areas = [area_under_roc(scores[:, k], truth[:, k], unit) for k in ([1] if binary else range(count))]

    def figures(weights: Floats) -> Values:
        total, actual, called, hits, agreed, lost, *gap, exact = np.split(weights @ sums, edges, axis=1)
        sensitivity = ratio(hits, actual)
        specificity = ratio(total - actual - called + hits, total - actual)
        area = np.stack([one(weights) for one in areas], axis=1)
        per_class = {
            "sensitivity": sensitivity,
            "specificity": specificity,
            "ppv": ratio(hits, called),
            "npv": ratio(total - actual - called + hits, total - called),
            "roc_auc": np.repeat(area, 2, axis=1) if binary else area,
        }
        values: Values = {
            f"{name}:{k}": table[:, k] for name, table in per_class.items() for k in range(count)
        }
        if independent:
            values["exact_match"] = exact[:, 0] / total[:, 0]
            values["balanced_accuracy"] = ((sensitivity + specificity) / 2).mean(axis=1)
            values["mcc"] = _correlation_per_label(total, actual, called, hits).mean(axis=1)
            values["accuracy"] = (agreed / total).mean(axis=1)
        else:
            values["accuracy"] = hits.sum(axis=1) / total[:, 0]
            values["balanced_accuracy"] = sensitivity.mean(axis=1)
            values["mcc"] = correlation(total[:, 0], actual, called, hits)
        if binary:
            for name in ("sensitivity", "specificity", "ppv", "npv"):
                values[name] = per_class[name][:, 1]
        values["roc_auc"] = area.mean(axis=1)
        if not binary:
            values["roc_auc_weighted"] = ratio((area * actual).sum(axis=1), actual.sum(axis=1))
        values["ece"] = np.mean([np.abs(g).sum(axis=1) for g in gap], axis=0) / total[:, 0]
        values["brier"], values["log_loss"] = (lost / total).T
        return values

    return figures


def correlation(total: Floats, actual: Floats, called: Floats, hits: Floats) -> Floats:
    """Matthews' coefficient for K classes (Gorodkin, 2004) from counts; 0 for a constant prediction.

    Args:
        total: (R,) scans.
        actual: (R, K) scans of each class.
        called: (R, K) scans called so.
        hits: (R, K) those that are both.
    """
    # Counts may be noisy and not whole: rounding must not make a spread negative.
    spread_actual = np.maximum(total**2 - (actual**2).sum(axis=1), 0.0)
    spread_called = np.maximum(total**2 - (called**2).sum(axis=1), 0.0)
    covariance = hits.sum(axis=1) * total - (actual * called).sum(axis=1)
    value = ratio(covariance, np.sqrt(spread_actual * spread_called))
    return np.where((spread_actual > 0) & (spread_called == 0), 0.0, value)


def _correlation_per_label(total: Floats, actual: Floats, called: Floats, hits: Floats) -> Floats:
    spread_actual = actual * (total - actual)
    spread_called = called * (total - called)
    value = ratio(hits * total - actual * called, np.sqrt(spread_actual * spread_called))
    return np.where((spread_actual > 0) & (spread_called == 0), 0.0, value)


def kappa_figure(first: Integers, second: Integers, unit: Integers) -> Estimator:
    """Cohen's kappa (1960) of two readings (n,) of the same scans, as ``kappa``.

    NaN where both give one and the same class throughout: chance alone agrees fully there.
    """
    classes = np.arange(max(first.max(), second.max()) + 1)
    columns = [np.ones((len(first), 1)), first[:, None] == classes, second[:, None] == classes]
    columns.append((first == second)[:, None])
    rows = np.hstack([column.astype(np.float64) for column in columns])
    sums = sum_by_unit(rows, unit, int(unit.max()) + 1)
    edges = np.cumsum([column.shape[1] for column in columns])[:-1]

    def figure(weights: Floats) -> Values:
        total, one, other, same = np.split(weights @ sums, edges, axis=1)
        by_chance = (one * other).sum(axis=1)
        squared = total[:, 0] ** 2
        return {"kappa": ratio(total[:, 0] * same[:, 0] - by_chance, squared - by_chance)}

    return figure


def regression_figures(predicted: Floats, measured: Floats, unit: Integers) -> Estimator:
    """RMSE, MAE (both in the target's unit) and R² of predictions (n,) against measurements (n,)."""
    # R² subtracts a square of sums from a sum of squares: around the mean that loses no digits.
    centred = measured - measured.mean()
    error = predicted - measured
    rows = np.stack([np.ones_like(error), error**2, np.abs(error), centred, centred**2], axis=1)
    sums = sum_by_unit(rows, unit, int(unit.max()) + 1)
    floor = np.finfo(np.float64).eps * float(np.sum(measured**2))

    def figures(weights: Floats) -> Values:
        total, squares, absolute, first, second = (weights @ sums).T
        spread = second - first**2 / total
        unexplained = ratio(squares, np.where(spread > floor, spread, 0.0))
        return {"rmse": np.sqrt(squares / total), "mae": absolute / total, "r2": 1 - unexplained}

    return figures
