"""One page for a federated run: its models on the test set, its rounds, and how to read both.

As the study's page it stands alone, and holds nothing about a single patient.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from . import curves, page, plots
from ._format import DASH
from .course import Course, RoundRecord
from .html import HEADLINES, drawings
from .run import LABEL, Judged, Run, judge

#: Figures of a table by site, in the order of its columns.
_BY_SITE = {
    "binary": ("sensitivity", "specificity", "roc_auc", "mcc", "brier"),
    "multiclass": ("accuracy", "balanced_accuracy", "roc_auc", "mcc", "brier"),
}
#: A reason comes from a site, which may write anything into it.
_LONGEST_REASON = 200


def write_run_report(path: str | os.PathLike[str], run: Run | Judged) -> Path:
    """Write the page of a run, replacing an earlier one whole.

    Args:
        path: the HTML file; its directory is made if it is missing.
        run: what to report on; one that is judged already is not judged again.

    Raises:
        InputError: as :func:`~blindtune.report.judge` and :func:`~blindtune.report.write_report`.
    """
    target = Path(path)
    page.write(target, render_run(run if isinstance(run, Judged) else judge(run)))
    return target


def render_run(judged: Judged) -> str:
    """The page as text; everything passed in is escaped."""
    run, comparison = judged.run, judged.comparison
    study = page.checked_study(
        {
            "title": run.title or ("Federated run" if run.courses else "Comparison of models"),
            "summary": run.summary,
            "notes": list(run.notes),
            "provenance": dict(run.provenance),
        }
    )
    reference = None if comparison is None else judged.results[comparison.reference].metrics
    return page.render(
        "report_run.html",
        study,
        judged=judged,
        comparison=comparison,
        reference=reference,
        metrics={name: result.metrics for name, result in judged.results.items()},
        headlines=[] if reference is None else HEADLINES[reference.kind],
        site_figures=() if reference is None else _BY_SITE[reference.kind],
        label=LABEL,
        seen=None if run.seen is None else len(set(run.seen)),
        several_scans=bool(judged.groups) and judged.groups[0].patients < judged.groups[0].n,
        courses={name: _table(course) for name, course in run.courses.items()},
        noisy=[name for name, course in run.courses.items() if course.noisy],
        curves=_curves(run.courses),
        validation=_validation(run.courses, reference.classes if reference else run.classes),
        figures=[] if comparison is None else drawings(judged.results, comparison.reference, "model"),
    )


def _table(course: Course) -> list[dict[str, str]]:
    """A line a round, by column; columns that no round fills in are left out."""
    lines = [_cells(one) for one in course.rounds]
    used = [key for key in lines[0] if any(line[key] != DASH for line in lines)]
    return [{key: line[key] for key in used} for line in lines]


def _cells(one: RoundRecord) -> dict[str, str]:
    figures = {name: float(values[0]) for name, values in Course((one,)).curves.items()}
    excluded = "; ".join(f"{name}: {reason[:_LONGEST_REASON]}" for name, reason in one.excluded.items())
    return {
        "Round": str(one.number),
        "Sites": f"{len(one.sites)}",
        "Left out": excluded or DASH,
        "Stopped early": str(one.stopped),
        "Tries": str(one.attempts),
        "Validation cases": f"{one.cases:,.1f}".removesuffix(".0"),
        "Loss": _number(figures["loss"]),
        "Accuracy": _number(figures["accuracy"]),
        "MCC": _number(figures["mcc"]),
        "AUC": _number(figures["auc"]),
        "Length of the update": DASH if one.change is None else f"{one.change:.3g}",
        "Epsilon": DASH if one.epsilon is None else f"{one.epsilon:.3g}",
    }


def _number(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:.3f}".replace("-", "−")


def _curves(courses: Mapping[str, Course]) -> list[tuple[str, str]]:
    """(caption, svg) of every curve that a run has."""
    return [
        (curves.AXES[key][0], curves.course(courses, key, prefix=f"course-{key}"))
        for key in curves.shown(courses)
    ]


def _validation(courses: Mapping[str, Course], classes: tuple[str, ...]) -> list[tuple[str, str]]:
    """(caption, svg) of each course's last counts; classes are numbered where their names are not known."""
    found = []
    for at, (name, course) in enumerate(courses.items()):
        if (one := course.last) is None:
            continue
        k = len(one.confusion)
        names = classes if len(classes) == k else tuple(f"class {i}" for i in range(k))
        drawn = plots.confusion_matrix(
            f"{name}, validation", np.array(one.confusion), names, prefix=f"validation-{at}"
        )
        found.append((f"{name}, after {one.number} rounds", drawn))
    return found
