"""ROC curves, reliability diagrams, confusion matrices and regression scatter as inline SVG.

Every function returns one ``<svg>`` string with a title and a description, coloured through CSS
variables (see ``_svg.py``), free of ids that could clash as long as ``prefix`` differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import _svg
from ._bootstrap import Booleans, Floats
from ._estimators import CALIBRATION_BINS, ranking_margin
from ._format import percent, shortened
from .results import Result

_POINTS = 300
_SIDE, _MARGIN = 2.6, 0.6
Curve = tuple[Floats, Floats]


def roc_of_heads(results: Mapping[str, Result], *, prefix: str = "roc") -> str:
    """One ROC curve a head: of the positive class, or the mean over the classes."""
    curves: dict[str, Curve] = {}
    for name, result in results.items():
        each = list(_roc_by_class(result).values())
        if each:
            curves[_with_area(name, result.metrics["roc_auc"].value)] = (
                each[0] if len(each) == 1 else _mean(each)
            )
    several = len(next(iter(results.values())).metrics.classes) > 2
    title = "ROC curves" + (", mean over the classes" if several else "")
    return _curves(curves, title, prefix)


def roc_by_class(name: str, result: Result, *, prefix: str = "roc-class") -> str:
    """One head's ROC curve of each class against the rest, and their mean."""
    each = _roc_by_class(result)
    areas = {one.name: one.roc_auc.value for one in result.metrics.per_class}
    curves = {_with_area(label, areas[label]): curve for label, curve in each.items()}
    mean = _with_area(f"mean of {len(each)}", result.metrics["roc_auc"].value)
    if len(each) > 1:
        curves[mean] = _mean(list(each.values()))
    return _curves(curves, f"ROC curves by class, {name}", prefix, mean)


def reliability(name: str, result: Result, *, prefix: str = "reliability") -> str:
    """Observed frequency against predicted probability in ten bins; a dot's area is its share of scans."""
    probability, hit = _confidences(result)
    bins = np.minimum((probability * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    used = counts > 0
    expected = np.bincount(bins, probability, CALIBRATION_BINS)[used] / counts[used]
    observed = np.bincount(bins, hit, CALIBRATION_BINS)[used] / counts[used]
    top = result.metrics.kind == "multiclass"

    def draw(figure: Any) -> None:
        axes = _square(figure, 0)
        axes.plot([0, 1], [0, 1], color=_svg.MUTED, lw=1, ls=(0, (3, 3)))
        axes.plot(expected, observed, color=_svg.SERIES[0], lw=1.4)
        sizes = 14 + 200 * counts[used] / counts.sum()
        axes.scatter(expected, observed, s=sizes, color=_svg.SERIES[0], alpha=0.75, lw=0, clip_on=False)
        axes.set_xlabel("Probability of the predicted class" if top else "Predicted probability")
        axes.set_ylabel("Share that is right" if top else "Share that is positive")

    points = "; ".join(
        f"{percent(x)} predicted, {percent(y)} observed" for x, y in zip(expected, observed, strict=True)
    )
    return _svg.render(
        draw, _size(0), title=f"Reliability diagram, {name}", description=points, prefix=prefix
    )


def confusion(name: str, result: Result, *, prefix: str = "confusion") -> str:
    """The confusion matrix of a head."""
    return confusion_matrix(
        name, np.array(result.metrics.confusion, dtype=np.float64), result.metrics.classes, prefix=prefix
    )


def confusion_matrix(name: str, counts: Floats, classes: Sequence[str], *, prefix: str = "confusion") -> str:
    """Counts (K, K) by true class (rows) and predicted class (columns); shading is the row's share."""
    names = [shortened(one, 16) for one in classes]
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    k = len(names)
    cell = 0.78 if k <= 4 else max(0.36, 3.2 / k)
    left = 0.45 + 0.085 * max(map(len, names))
    slanted = k > 3 or max(map(len, names)) > 9
    below = 0.5 + (0.06 * max(map(len, names)) if slanted else 0.0)
    size = (left + cell * k + 0.12, below + cell * k + 0.12)

    def draw(figure: Any) -> None:
        from matplotlib.patches import Rectangle

        axes = figure.add_axes(
            (left / size[0], below / size[1], cell * k / size[0], cell * k / size[1]),
            xlim=(-0.5, k - 0.5),
            ylim=(k - 0.5, -0.5),
        )
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xticks(range(k), names, rotation=45 if slanted else 0, ha="right" if slanted else "center")
        axes.set_yticks(range(k), names)
        axes.set_xlabel("Predicted")
        axes.set_ylabel("True")
        for row, column in np.ndindex(k, k):
            corner = (column - 0.48, row - 0.48)
            axes.add_patch(Rectangle(corner, 0.96, 0.96, fc=_svg.GRID, alpha=0.35, lw=0))
            # At most 55 % of the accent, so that the ink on it keeps its contrast on either paper.
            axes.add_patch(
                Rectangle(corner, 0.96, 0.96, fc=_svg.ACCENT, alpha=0.55 * share[row, column], lw=0)
            )
            text = f"{counts[row, column]:.0f}"
            if k <= 4 and total[row, 0]:
                text += f"\n{100 * share[row, column]:.0f} %"
            bold = "bold" if row == column else "normal"
            axes.text(
                column, row, text, ha="center", va="center", weight=bold, fontsize=10 if k <= 8 else 7.5
            )

    rows = "; ".join(
        f"true {classes[i]}: " + ", ".join(f"{counts[i, j]:.0f} as {classes[j]}" for j in range(k))
        for i in range(k)
    )
    return _svg.render(draw, size, title=f"Confusion matrix, {name}", description=rows, prefix=prefix)


def scatter(name: str, result: Result, *, prefix: str = "scatter") -> str:
    """Predicted against measured numbers of a regression head; at most 300 scans, evenly picked."""
    picked = np.unique(np.linspace(0, len(result.labels) - 1, _POINTS).astype(int))
    x, y = result.labels[picked], result.logits[picked]
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    pad = 0.04 * (high - low) or 1.0

    def draw(figure: Any) -> None:
        axes = _square(figure, 0, limits=(low - pad, high + pad))
        axes.plot([low, high], [low, high], color=_svg.MUTED, lw=1, ls=(0, (3, 3)))
        axes.scatter(x, y, s=12, color=_svg.SERIES[0], alpha=0.55, lw=0)
        axes.set_xlabel("Measured")
        axes.set_ylabel("Predicted")

    return _svg.render(
        draw,
        _size(0),
        title=f"Predicted against measured, {name}",
        description=f"{len(picked)} scans; the dashed line is perfect agreement.",
        prefix=prefix,
    )


def _curves(curves: Mapping[str, Curve], title: str, prefix: str, emphasis: str = "") -> str:
    def draw(figure: Any) -> None:
        axes = _square(figure, len(curves))
        axes.plot([0, 1], [0, 1], color=_svg.MUTED, lw=1, ls=(0, (3, 3)))
        handles = []
        for at, (label, (x, y)) in enumerate(curves.items()):
            colour = _svg.SERIES[at % len(_svg.SERIES)]
            few = len(curves) <= len(_svg.STYLES)
            style = _svg.STYLES[(at if few else at // len(_svg.SERIES)) % len(_svg.STYLES)]
            if label == emphasis:
                handles += axes.plot(x, y, color=_svg.INK, lw=2.4)
            else:
                handles += axes.plot(x, y, color=colour, lw=1.6, ls=style)
        axes.set_xlabel("1 − specificity")
        axes.set_ylabel("Sensitivity")
        if handles:
            labels = [_svg.label(name) for name in curves]
            figure.legend(handles, labels, loc="lower left", bbox_to_anchor=(0.02, 0.0), borderaxespad=0.2)

    described = "; ".join(curves) or "not defined on this test set"
    return _svg.render(draw, _size(len(curves)), title=title, description=described, prefix=prefix)


def _size(entries: int) -> tuple[float, float]:
    return _SIDE + _MARGIN + 0.12, _SIDE + 0.7 + 0.205 * entries


def _square(figure: Any, entries: int, limits: tuple[float, float] = (0.0, 1.0)) -> Any:
    """Axes of a fixed size above room for a legend of that many entries."""
    width, height = _size(entries)
    below = height - _SIDE - 0.12
    axes = figure.add_axes((_MARGIN / width, below / height, _SIDE / width, _SIDE / height))
    axes.grid(lw=0.8)
    axes.tick_params(length=0, pad=5)
    axes.set(xlim=limits, ylim=limits)
    return axes


def _roc_by_class(result: Result) -> dict[str, Curve]:
    """Class → curve, without the classes whose curve is undefined; only the positive one if binary."""
    classes, labels, logits = result.metrics.classes, result.labels, result.logits
    if result.metrics.kind == "binary":
        scores, truth, names = logits[:, None], labels[:, None] == 1, classes[1:]
    elif result.metrics.kind == "multiclass":
        scores, truth, names = ranking_margin(logits), labels[:, None] == np.arange(len(classes)), classes
    else:
        scores, truth, names = logits, labels == 1, classes
    return {
        name: _roc(scores[:, k], truth[:, k])
        for k, name in enumerate(names)
        if 0 < truth[:, k].sum() < len(truth)
    }


def _roc(score: Floats, positive: Booleans) -> Curve:
    """(1 − specificity, sensitivity) at every threshold, thinned to what can be seen."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(positive[order])[ends]
    x = np.concatenate([[0.0], (ends + 1 - hits) / (~positive).sum()])
    y = np.concatenate([[0.0], hits / positive.sum()])
    corner = np.ones(len(x), dtype=bool)
    corner[1:-1] = np.diff(x[:-1]) * np.diff(y[1:]) != np.diff(x[1:]) * np.diff(y[:-1])
    kept = np.flatnonzero(corner)
    if len(kept) > _POINTS:
        kept = kept[np.linspace(0, len(kept) - 1, _POINTS).astype(int)]
    return x[kept], y[kept]


def _mean(curves: list[Curve]) -> Curve:
    grid = np.linspace(0, 1, 101)
    return np.append(0.0, grid), np.append(0.0, np.mean([np.interp(grid, x, y) for x, y in curves], axis=0))


def _with_area(name: str, area: float | None) -> str:
    short = shortened(name, 24)
    return short if area is None else f"{short}, AUC {area:.3f}"


def _confidences(result: Result) -> tuple[Floats, Booleans]:
    """Probabilities and outcomes that the calibration error is about, flat."""
    logits, labels = result.logits, result.labels
    if result.metrics.kind == "multiclass":
        top = logits.argmax(axis=1)
        log_probability = logits.max(axis=1) - np.logaddexp.reduce(logits, axis=1)
        return np.minimum(np.exp(log_probability), 1.0), top == labels
    return np.exp(-np.logaddexp(0.0, -logits)).ravel(), (labels == 1).ravel()
