"""The labels table: a CSV with a row a file."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from blindtune.errors import InputError
from blindtune.imaging.splits import split_name

MAX_TABLE_BYTES = 256 << 20

_SYNONYMS = {
    "file": ("file", "filename", "file_name", "path", "image"),
    "label": ("label", "class", "diagnosis", "finding"),
    "patient": ("patient", "patient_id", "patientid"),
    "split": ("split", "subset", "fold"),
}


@dataclass(frozen=True)
class Row:
    """One line of the table; ``patient`` and ``split`` are None where the table has no such column."""

    file: str
    label: str
    patient: str | None
    split: str | None


def read_table(path: Path) -> tuple[Row, ...]:
    """Read a labels CSV: columns file and label, optionally patient and split.

    Headers in any case and a few common synonyms; comma, semicolon or tab; further columns are
    ignored. The same row twice counts once.

    Raises:
        InputError: not a readable CSV, a column or value is missing, or two rows contradict each other.
    """
    where = path.name
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise InputError(
                f"larger than {MAX_TABLE_BYTES >> 20} MiB", where=where, remedy="Is it the labels table?"
            )
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text", where=where, remedy="Save the table as UTF-8 CSV.") from error
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", where=where, remedy="Check the path of the labels table."
        ) from error
    header, _, _ = text.partition("\n")
    delimiter = max(",;\t", key=header.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"not a CSV table ({error})", where=where, remedy="Export it again.") from error
    columns = _columns(lines[0] if lines else [], where)
    rows: dict[str, Row] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        row = _row(cells, columns, where, number)
        if rows.setdefault(row.file, row) != row:
            raise InputError(
                f"line {number} contradicts an earlier line for {row.file}",
                where=where,
                remedy="Keep one line a file.",
            )
    if not rows:
        raise InputError("no rows", where=where, remedy="Write a line a file: file,label.")
    return tuple(rows.values())


def _columns(header: list[str], where: str) -> dict[str, int]:
    """Position of each column that the header has, by our name for it."""
    names = [name.strip().lower().replace(" ", "_") for name in header]
    found: dict[str, int] = {}
    for ours, synonyms in _SYNONYMS.items():
        matches = [name for name in synonyms if name in names]
        if matches:
            found[ours] = names.index(matches[0])
    for needed in ("file", "label"):
        if needed not in found:
            raise InputError(
                f"no column '{needed}' (has: {', '.join(names) or 'nothing'})",
                where=where,
                remedy="The first line names the columns: file,label and optionally patient,split.",
            )
    return found


def _row(cells: list[str], columns: dict[str, int], where: str, number: int) -> Row:
    def cell(column: str) -> str:
        at = columns[column]
        value = cells[at].strip() if at < len(cells) else ""
        if not value:
            raise InputError(
                f"line {number} has no {column}", where=where, remedy="Fill it in or delete the line."
            )
        return value

    split = None
    if "split" in columns:
        split = split_name(cell("split"))
        if split is None:
            raise InputError(
                f"line {number}: split '{cell('split')}'",
                where=where,
                remedy="Write train, val or test, or leave the column out.",
            )
    patient = cell("patient") if "patient" in columns else None
    # Tables written on Windows separate folders with a backslash.
    return Row(cell("file").replace("\\", "/"), cell("label"), patient, split)
