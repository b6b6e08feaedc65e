"""Metrics, comparisons, converged baselines, plots, reports; each name loads its module on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .baseline import LinearHead as LinearHead
    from .baseline import converged_multilabel as converged_multilabel
    from .baseline import converged_ridge as converged_ridge
    from .baseline import converged_softmax as converged_softmax
    from .course import Course as Course
    from .figures import ClassMetrics as ClassMetrics
    from .figures import Figure as Figure
    from .figures import Kind as Kind
    from .figures import Metrics as Metrics
    from .figures import difference as difference
    from .html import write_report as write_report
    from .labels import check_apart as check_apart
    from .labels import read_expert as read_expert
    from .labels import read_people as read_people
    from .metrics import evaluate as evaluate
    from .paired import McNemar as McNemar
    from .paired import mcnemar as mcnemar
    from .predictions import Predictions as Predictions
    from .predictions import read_predictions as read_predictions
    from .results import Comparison as Comparison
    from .results import Result as Result
    from .results import compare as compare
    from .run import Judged as Judged
    from .run import Run as Run
    from .run import judge as judge
    from .run_html import write_run_report as write_run_report
    from .selection import Selection as Selection
    from .selection import select as select
    from .terminal import run_tables as run_tables
    from .terminal import terminal_table as terminal_table

_MODULES = {
    "baseline": ("LinearHead", "converged_multilabel", "converged_ridge", "converged_softmax"),
    "course": ("Course",),
    "figures": ("ClassMetrics", "Figure", "Kind", "Metrics", "difference"),
    "html": ("write_report",),
    "labels": ("check_apart", "read_expert", "read_people"),
    "metrics": ("evaluate",),
    "paired": ("McNemar", "mcnemar"),
    "predictions": ("Predictions", "read_predictions"),
    "results": ("Comparison", "Result", "compare"),
    "run": ("Judged", "Run", "judge"),
    "run_html": ("write_run_report",),
    "selection": ("Selection", "select"),
    "terminal": ("run_tables", "terminal_table"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
