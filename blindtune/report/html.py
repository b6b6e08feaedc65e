"""Write a study's report: ``report.json`` for machines, ``report.html`` for people.

Only what is passed in appears in either file: no path, no host name, no scan. The page stands alone:
no script, no outside address, and it prints.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from blindtune.errors import InputError

from . import _format, plots
from .results import MEANINGS, Comparison, Result, compare

SCHEMA = "blindtune.report/1"
_STUDY_KEYS = frozenset({"title", "summary", "notes", "provenance"})


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
    unknown = sorted(set(map(str, study)) - _STUDY_KEYS)
    if unknown:
        raise InputError(f"unknown entries {unknown}", where="study", remedy=f"Use {sorted(_STUDY_KEYS)}.")
    checked = _plain(study)
    comparison = compare(results, reference=reference)
    data = {
        "schema": SCHEMA,
        "study": checked,
        "heads": {name: result.metrics.to_json() for name, result in results.items()},
        "comparison": comparison.to_json(),
    }
    page = render_html(checked, results, comparison)
    folder = Path(directory)
    targets = folder / "report.json", folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
        for path, content in zip(targets, (text + "\n", page), strict=True):
            _replace(path, content)
    except OSError as error:
        raise InputError(
            f"the report cannot be written ({error.strerror})",
            where=str(folder),
            remedy="Choose a directory that you may write to, on a disk with room.",
        ) from error
    return targets


def render_html(study: Mapping[str, Any], results: Mapping[str, Result], comparison: Comparison) -> str:
    """The page as text; everything passed in is escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(
        value=_format.value,
        interval=_format.interval,
        change=_format.change,
        percent=_format.percent,
        meanings=MEANINGS,
    )
    template = environment.from_string(
        resources.files(__package__).joinpath("report_template.html").read_text(encoding="utf-8")
    )
    reference = results[comparison.reference].metrics
    return template.render(
        title=study.get("title") or "Study report",
        summary=study.get("summary") or "",
        notes=study.get("notes") or [],
        provenance=_sections(study.get("provenance") or {}),
        comparison=comparison,
        metrics={name: result.metrics for name, result in results.items()},
        reference=reference,
        headlines=[name for name in _HEADLINES[reference.kind] if name in reference.figures],
        figures=_drawings(results, comparison.reference),
    )


_HEADLINES: dict[str, tuple[str, ...]] = {
    "binary": ("roc_auc", "sensitivity", "specificity", "accuracy"),
    "multiclass": ("accuracy", "balanced_accuracy", "roc_auc", "mcc"),
    "multilabel": ("roc_auc", "balanced_accuracy", "accuracy", "exact_match"),
    "regression": ("rmse", "mae", "r2"),
}


def _drawings(results: Mapping[str, Result], reference: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """(heading, [(caption, svg)]) for each group of plots that fits the kind."""

    def each(draw: Callable[..., str], prefix: str) -> list[tuple[str, str]]:
        return [
            (name, draw(name, result, prefix=f"{prefix}-{at}"))
            for at, (name, result) in enumerate(results.items())
        ]

    kind, classes = results[reference].metrics.kind, results[reference].metrics.classes
    if kind == "regression":
        return [("Predicted against measured", each(plots.scatter, "scatter"))]
    several = kind != "binary" and len(classes) > 1
    roc = [("All heads, mean of the classes" if several else "All heads", plots.roc_of_heads(results))]
    if several:
        roc.append((f"{reference}, by class", plots.roc_by_class(reference, results[reference])))
    groups = [("ROC curves", roc)]
    if results[reference].metrics.confusion is not None:
        groups.append(("Confusion matrices", each(plots.confusion, "confusion")))
    groups.append(("Calibration", each(plots.reliability, "reliability")))
    return groups


def _sections(provenance: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Loose entries first, under no heading, then each nested mapping under its own."""
    loose = [(name, _text(one)) for name, one in provenance.items() if not isinstance(one, dict)]
    nested = [
        (name, [(key, _text(one)) for key, one in section.items()])
        for name, section in provenance.items()
        if isinstance(section, dict)
    ]
    return ([("", loose)] if loose else []) + nested


def _text(one: Any) -> str:
    if one is None:
        return _format.DASH
    if isinstance(one, bool):
        return "yes" if one else "no"
    if isinstance(one, float):
        return f"{one:.6g}"
    if isinstance(one, list):
        return ", ".join(map(_text, one))
    if isinstance(one, dict):
        return "; ".join(f"{key}: {_text(value)}" for key, value in one.items())
    return str(one)


def _plain(study: Mapping[str, Any]) -> dict[str, Any]:
    """The study as JSON would give it back: tuples are lists, keys are text."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(study), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"holds something that JSON cannot ({error})",
            where="study",
            remedy="Use text, finite numbers, truth values, None, lists and dicts.",
        ) from None
    notes, provenance = plain.get("notes") or [], plain.get("provenance") or {}
    if not isinstance(notes, list) or not isinstance(provenance, dict):
        raise InputError("notes must be a list and provenance a mapping", where="study")
    return plain


def _replace(path: Path, content: str) -> None:
    """Write beside the target and rename: a reader sees the old file or the new one, never half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
