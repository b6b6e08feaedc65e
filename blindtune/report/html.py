"""Write a study's report: ``report.json`` for machines, ``report.html`` for people.

Only what is passed in appears in either file: no path, no host name, no scan.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import page, plots
from .results import Comparison, Result, compare

SCHEMA = "blindtune.report/1"


def write_report(
    directory: str | os.PathLike[str],
    study: Mapping[str, Any],
    results: Mapping[str, Result],
    *,
    reference: str | None = None,
) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html`` into ``directory``, replacing earlier ones whole.

    Args:
        directory: made if it is missing.
        study: ``title`` (text), ``summary`` (text), ``notes`` (list of texts in plain language) and
            ``provenance`` (name → value, or section → name → value; values are text, numbers, truth
            values, None, or lists of them). All may be left out.
        results: head name → result, in the order of the columns.
        reference: the head that the others are compared with; see :func:`~blindtune.report.compare`.

    Returns:
        The paths of the JSON and the HTML file.

    Raises:
        InputError: the study has an unknown entry or one that JSON cannot hold, the heads were not
            judged on the same scans, or the directory cannot be written.
    """
    checked = page.checked_study(study)
    comparison = compare(results, reference=reference)
    data = {
        "schema": SCHEMA,
        "study": checked,
        "heads": {name: result.metrics.to_json() for name, result in results.items()},
        "comparison": comparison.to_json(),
    }
    rendered = render_html(checked, results, comparison)
    folder = Path(directory)
    targets = folder / "report.json", folder / "report.html"
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    for path, content in zip(targets, (text + "\n", rendered), strict=True):
        page.write(path, content)
    return targets


def render_html(study: Mapping[str, Any], results: Mapping[str, Result], comparison: Comparison) -> str:
    """The page as text; everything passed in is escaped."""
    reference = results[comparison.reference].metrics
    return page.render(
        "report_study.html",
        {**study, "title": study.get("title") or "Study report"},
        comparison=comparison,
        metrics={name: result.metrics for name, result in results.items()},
        reference=reference,
        headlines=[name for name in HEADLINES[reference.kind] if name in reference.figures],
        figures=drawings(results, comparison.reference, "head"),
    )


HEADLINES: dict[str, tuple[str, ...]] = {
    "binary": ("roc_auc", "sensitivity", "specificity", "accuracy"),
    "multiclass": ("accuracy", "balanced_accuracy", "roc_auc", "mcc"),
    "multilabel": ("roc_auc", "balanced_accuracy", "accuracy", "exact_match"),
    "regression": ("rmse", "mae", "r2"),
}


def drawings(
    results: Mapping[str, Result], reference: str, noun: str
) -> list[tuple[str, list[tuple[str, str]]]]:
    """(heading, [(caption, svg)]) for each group of plots that fits the kind; a result is called ``noun``."""

    def each(draw: Callable[..., str], prefix: str) -> list[tuple[str, str]]:
        return [
            (name, draw(name, result, prefix=f"{prefix}-{at}"))
            for at, (name, result) in enumerate(results.items())
        ]

    kind, classes = results[reference].metrics.kind, results[reference].metrics.classes
    if kind == "regression":
        return [("Predicted against measured", each(plots.scatter, "scatter"))]
    several = kind != "binary" and len(classes) > 1
    roc = [(f"All {noun}s" + (", mean of the classes" if several else ""), plots.roc_of_heads(results))]
    if several:
        roc.append((f"{reference}, by class", plots.roc_by_class(reference, results[reference])))
    groups = [("ROC curves", roc)]
    if results[reference].metrics.confusion is not None:
        groups.append(("Confusion matrices", each(plots.confusion, "confusion")))
    groups.append(("Calibration", each(plots.reliability, "reliability")))
    return groups
