"""Metrics, converged baselines, plots and the study report; each name loads its module on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .baseline import LinearHead as LinearHead
    from .baseline import converged_multilabel as converged_multilabel
    from .baseline import converged_ridge as converged_ridge
    from .baseline import converged_softmax as converged_softmax
    from .figures import ClassMetrics as ClassMetrics
    from .figures import Figure as Figure
    from .figures import Kind as Kind
    from .figures import Metrics as Metrics
    from .figures import difference as difference
    from .html import write_report as write_report
    from .metrics import evaluate as evaluate
    from .results import Comparison as Comparison
    from .results import Result as Result
    from .results import compare as compare
    from .terminal import terminal_table as terminal_table

_MODULES = {
    "baseline": ("LinearHead", "converged_multilabel", "converged_ridge", "converged_softmax"),
    "figures": ("ClassMetrics", "Figure", "Kind", "Metrics", "difference"),
    "html": ("write_report",),
    "metrics": ("evaluate",),
    "results": ("Comparison", "Result", "compare"),
    "terminal": ("terminal_table",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
