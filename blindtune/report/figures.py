"""The figures of a head as data: immutable, readable back from JSON, comparable between heads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from blindtune.errors import InputError

from ._bootstrap import Floats, percentile_interval

Kind = Literal["binary", "multiclass", "multilabel", "regression"]
NO_WIDTH = "no interval: every resampled test set gives the same value"
_TOO_FEW = "no interval: too few patients carry this figure"


@dataclass(frozen=True)
class Figure:
    """One number with its 95 % interval. ``value`` is None where undefined, and ``reason`` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    @classmethod
    def of(cls, value: float, replicates: Floats | None, undefined: str) -> Figure:
        """A value and the interval of its replicates (R,); ``undefined`` says why the value is NaN."""
        if math.isnan(value):
            return cls(None, reason=undefined)
        if replicates is None:
            return cls(value)
        interval = percentile_interval(replicates)
        if interval is None:
            return cls(value, reason=_TOO_FEW)
        return cls(value, *interval) if interval[0] < interval[1] else cls(value, reason=NO_WIDTH)


@dataclass(frozen=True)
class ClassMetrics:
    """One class against the rest: counts of scans, and shares in 0 … 1."""

    name: str
    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int
    sensitivity: Figure
    specificity: Figure
    ppv: Figure
    npv: Figure
    roc_auc: Figure

    @property
    def support(self) -> int:
        """Scans labelled with this class."""
        return self.true_positive + self.false_negative

    def to_json(self) -> dict[str, Any]:
        """The fields, each figure as a dict."""
        return {k: dict(vars(v)) if isinstance(v, Figure) else v for k, v in vars(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClassMetrics:
        """Read back :meth:`to_json`."""
        fields: dict[str, Any] = {k: Figure(**v) if isinstance(v, dict) else v for k, v in data.items()}
        return cls(**fields)


@dataclass(frozen=True)
class Metrics:
    """What :func:`evaluate` found.

    Attributes:
        kind: the task.
        classes: class or label names, in the order of the columns; for regression the target's name.
        n: scans.
        patients: distinct patients, None where no groups were given.
        figures: name → figure of the whole head: ``accuracy``, ``balanced_accuracy``, ``roc_auc``
            (macro over classes), ``mcc``, ``ece``, ``brier``, ``log_loss``; binary heads also
            ``sensitivity``, ``specificity``, ``ppv``, ``npv`` of the second class; other heads
            ``roc_auc_weighted`` (each class by its scans); multi-label heads also ``exact_match``;
            regression ``rmse``, ``mae``, ``r2``.
        per_class: one entry a class; empty for regression.
        confusion: (K, K) counts, rows are true classes; None for multi-label and regression.
        resamples: bootstrap replicates.
        cutoff: logit above which a binary or multi-label head decides for a class.
        design: fingerprint of labels, patients and replicates: equal designs can be compared pair by
            pair. It is made of labels, so it stays out of the JSON.
        samples: the replicates (R,) of each entry of ``figures``; not part of the JSON either.
    """

    kind: Kind
    classes: tuple[str, ...]
    n: int
    patients: int | None
    figures: Mapping[str, Figure]
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...] | None
    resamples: int
    cutoff: float = 0.0
    design: str = field(default="", repr=False, compare=False)
    samples: Mapping[str, Floats] = field(default_factory=dict, repr=False, compare=False)

    def __getitem__(self, name: str) -> Figure:
        return self.figures[name]

    def to_json(self) -> dict[str, Any]:
        """Strings, numbers, None, lists and dicts only; no NaN, and nothing about a single patient."""
        return {
            "kind": self.kind,
            "classes": list(self.classes),
            "n": self.n,
            "patients": self.patients,
            "figures": {name: dict(vars(figure)) for name, figure in self.figures.items()},
            "per_class": [one.to_json() for one in self.per_class],
            "confusion": None if self.confusion is None else [list(row) for row in self.confusion],
            "resamples": self.resamples,
            "cutoff": self.cutoff,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Metrics:
        """Read back :meth:`to_json`; ``design`` and ``samples`` stay behind.

        Raises:
            InputError: a field is missing or of another shape.
        """
        try:
            return cls(
                kind=data["kind"],
                classes=tuple(data["classes"]),
                n=data["n"],
                patients=data["patients"],
                figures={name: Figure(**figure) for name, figure in data["figures"].items()},
                per_class=tuple(ClassMetrics.from_json(one) for one in data["per_class"]),
                confusion=None if data["confusion"] is None else tuple(map(tuple, data["confusion"])),
                resamples=data["resamples"],
                cutoff=data["cutoff"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"the metrics cannot be read back ({error!r})",
                where="report.json",
                remedy="Write the report again with this version of blindtune.",
            ) from None


def difference(head: Metrics, reference: Metrics, name: str) -> Figure:
    """``head`` minus ``reference`` in one figure; the interval pairs the replicates, scan by scan.

    Two heads judged on the same scans err together, so their difference is known better than either
    figure. Without a common design there is a value but no interval.
    """
    left, right = head.figures.get(name), reference.figures.get(name)
    if left is None or right is None or left.value is None or right.value is None:
        return Figure(None, reason="undefined for one of the two heads")
    result = Figure(left.value - right.value)
    if not head.design or head.design != reference.design:
        return result
    if name not in head.samples or name not in reference.samples:
        return result
    interval = percentile_interval(head.samples[name] - reference.samples[name])
    return result if interval is None else replace(result, low=interval[0], high=interval[1])
