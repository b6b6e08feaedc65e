"""What the HTML pages share: templates with everything escaped, texts of values, files written whole.

The pages stand alone: no script, no outside address, and they print.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from blindtune.errors import InputError
from blindtune.files import whole_file, writing

from . import _format
from .results import MEANINGS

#: What a page says of its study, all of it optional.
STUDY_KEYS = frozenset({"title", "summary", "notes", "provenance"})


def render(template: str, study: Mapping[str, Any], **context: Any) -> str:
    """A page as text; everything passed in is escaped, but for drawings, which the templates mark.

    Args:
        template: a file beside this module.
        study: as :func:`checked_study` gives it; its ``title`` is needed.
        context: what else the template uses.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        value=_format.value,
        interval=_format.interval,
        change=_format.change,
        percent=_format.percent,
        p_value=_format.p_value,
        meanings=MEANINGS,
    )
    return environment.get_template(template).render(
        title=study["title"],
        summary=study.get("summary") or "",
        notes=study.get("notes") or [],
        provenance=sections(study.get("provenance") or {}),
        **context,
    )


def write(path: Path, content: str) -> None:
    """Write a file whole: a reader sees the old one or the new one, never half of it.

    Raises:
        InputError: it cannot be written.
    """
    with writing("the report", str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text(content, encoding="utf-8")


def checked_study(study: Mapping[str, Any]) -> dict[str, Any]:
    """The study as JSON would give it back: tuples are lists, keys are text.

    Raises:
        InputError: an unknown entry, or one that JSON cannot hold.
    """
    unknown = sorted(set(map(str, study)) - STUDY_KEYS)
    if unknown:
        raise InputError(f"unknown entries {unknown}", where="study", remedy=f"Use {sorted(STUDY_KEYS)}.")
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


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def sections(provenance: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Facts as text, by section: loose entries first, under no heading, then each nested mapping."""
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
