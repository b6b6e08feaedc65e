"""Named heads judged on the same scans, and how far each is from the one that was encrypted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from blindtune.errors import InputError

from ._bootstrap import Floats, Integers
from .figures import Figure, Kind, Metrics, difference
from .metrics import evaluate, indices_of
from .paired import McNemar, kappa, mcnemar

#: Figure → (label, which way is better, what it says).
MEANINGS: dict[str, tuple[str, Literal["higher", "lower"], str]] = {
    "accuracy": ("Accuracy", "higher", "share of decisions that are right"),
    "exact_match": ("Exact match", "higher", "share of scans with every label right"),
    "balanced_accuracy": ("Balanced accuracy", "higher", "mean over the classes, each counted alike"),
    "sensitivity": ("Sensitivity", "higher", "share of the positive scans that are found"),
    "specificity": ("Specificity", "higher", "share of the negative scans that are cleared"),
    "ppv": (
        "Positive predictive value",
        "higher",
        "share of positive calls that are right, on this test set",
    ),
    "npv": (
        "Negative predictive value",
        "higher",
        "share of negative calls that are right, on this test set",
    ),
    "roc_auc": ("ROC-AUC", "higher", "chance that a positive scan ranks above a negative one"),
    "roc_auc_weighted": (
        "ROC-AUC, weighted",
        "higher",
        "each class counted by its scans, where ROC-AUC counts them alike",
    ),
    "mcc": ("Matthews correlation", "higher", "0 is chance, 1 is perfect"),
    "ece": ("Calibration error (ECE)", "lower", "mean gap between probability and outcome, 10 bins"),
    "brier": ("Brier score", "lower", "mean squared error of the probabilities"),
    "log_loss": ("Log loss", "lower", "mean of −ln of the probability given to the truth"),
    "rmse": ("RMSE", "lower", "root mean squared error, in the target’s unit"),
    "mae": ("Mean absolute error", "lower", "in the target’s unit"),
    "r2": ("R²", "higher", "share of the variance explained"),
}
REFERENCE = "encrypted"


@dataclass(frozen=True)
class Result:
    """One head on the test set: its metrics, and what plots and comparisons are made from.

    Attributes:
        metrics: the figures.
        logits: (n,) for binary and regression heads, else (n, K).
        labels: as :func:`~blindtune.report.evaluate` takes them.
        unit: (n,) the patient of each scan, 0 … units − 1.
        seed: of the replicates.
    """

    metrics: Metrics
    logits: Floats
    labels: Floats
    unit: Integers
    seed: int

    @classmethod
    def of(
        cls,
        logits: ArrayLike,
        labels: ArrayLike,
        classes: Sequence[str],
        *,
        kind: Kind = "binary",
        groups: Sequence[object] | ArrayLike | None = None,
        resamples: int = 1000,
        seed: int = 0,
        cutoff: float = 0.0,
    ) -> Result:
        """:func:`~blindtune.report.evaluate` a head and keep what it was evaluated on."""
        metrics = evaluate(
            logits, labels, classes, kind=kind, groups=groups, resamples=resamples, seed=seed, cutoff=cutoff
        )
        values = np.asarray(logits, dtype=np.float64)
        if kind in ("binary", "regression"):
            values = values.reshape(-1)
        unit = indices_of(groups, len(values))
        return cls(metrics, values, np.asarray(labels, dtype=np.float64), unit, seed)

    @property
    def decisions(self) -> Integers:
        """Class indices (n,), or 0 and 1 a label (n, K) for multi-label heads; not for regression."""
        if self.metrics.kind == "multiclass":
            return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)
        return (self.logits > self.metrics.cutoff).astype(np.int64)


@dataclass(frozen=True)
class Row:
    """One figure over all heads; ``differences`` are head minus reference, None for the reference."""

    key: str
    figures: tuple[Figure, ...]
    differences: tuple[Figure | None, ...]


@dataclass(frozen=True)
class Agreement:
    """How alike two heads are, scan by scan.

    Attributes:
        decisions: share of decisions that are the same; None for regression.
        largest_gap: the largest absolute difference of any output (logit, or predicted number).
        kappa: Cohen's, of the decisions; None for regression and several labels.
        mcnemar: whether one, the head before the reference, is right more often; None like ``kappa``.
    """

    decisions: float | None
    largest_gap: float
    kappa: Figure | None = None
    mcnemar: McNemar | None = None


@dataclass(frozen=True)
class Comparison:
    """All heads beside the reference; the tuples run in the order of ``heads``."""

    kind: Kind
    classes: tuple[str, ...]
    heads: tuple[str, ...]
    reference: str
    rows: tuple[Row, ...]
    agreements: tuple[Agreement | None, ...]

    def to_json(self) -> dict[str, Any]:
        """Differences and agreements by head; the figures themselves stand with each head."""
        others = [(at, head) for at, head in enumerate(self.heads) if head != self.reference]
        return {
            "reference": self.reference,
            "differences": {
                head: {
                    row.key: dict(vars(gap)) for row in self.rows if (gap := row.differences[at]) is not None
                }
                for at, head in others
            },
            "agreement": {
                head: asdict(one) for at, head in others if (one := self.agreements[at]) is not None
            },
        }


def compare(results: Mapping[str, Result], *, reference: str | None = None) -> Comparison:
    """Compare heads with ``reference``: by default the one named ``"encrypted"``, else the first.

    Raises:
        InputError: there is no head, or they were not judged on the same scans and classes.
    """
    if not results:
        raise InputError("there is no head to report on", where="results")
    base = reference or (REFERENCE if REFERENCE in results else next(iter(results)))
    if base not in results:
        raise InputError(f"no head is named {base!r}", where="reference")
    first = results[base]
    for name, one in results.items():
        if (one.metrics.kind, one.metrics.classes) != (first.metrics.kind, first.metrics.classes) or not (
            np.array_equal(one.labels, first.labels)
            and np.array_equal(one.unit, first.unit)
            and one.logits.shape == first.logits.shape
        ):
            raise InputError(
                f"head {name!r} and head {base!r} were not judged on the same scans and classes",
                where="results",
                remedy="Evaluate every head on the same test set, in the same order.",
            )
    return Comparison(
        kind=first.metrics.kind,
        classes=first.metrics.classes,
        heads=tuple(results),
        reference=base,
        rows=tuple(
            Row(
                key,
                tuple(one.metrics[key] for one in results.values()),
                tuple(
                    None if name == base else difference(one.metrics, first.metrics, key)
                    for name, one in results.items()
                ),
            )
            for key in MEANINGS
            if key in first.metrics.figures
        ),
        agreements=tuple(None if name == base else _agreement(one, first) for name, one in results.items()),
    )


def _agreement(one: Result, other: Result) -> Agreement:
    gap = float(np.abs(one.logits - other.logits).max())
    if one.metrics.kind == "regression":
        return Agreement(None, gap)
    mine, theirs = one.decisions, other.decisions
    same = float((mine == theirs).mean())
    if one.metrics.kind == "multilabel":
        return Agreement(same, gap)
    return Agreement(
        same,
        gap,
        kappa(mine, theirs, one.unit, resamples=one.metrics.resamples, seed=one.seed),
        mcnemar(mine == one.labels, theirs == one.labels, one.unit),
    )
