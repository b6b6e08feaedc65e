"""The labels table: a CSV with a row a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blindtune.errors import InputError
from blindtune.imaging.splits import split_name
from blindtune.tables import LABEL_COLUMNS, Line, Table, read_csv

_LAYOUT = "The first line names the columns: file,label and optionally patient,split."


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
    table = read_csv(path, "Write a line a file: file,label.")
    columns = {ours: table.position(*names) for ours, names in LABEL_COLUMNS.items()}
    for needed in ("file", "label"):
        columns[needed] = table.required(needed, LABEL_COLUMNS[needed], _LAYOUT)
    found = {ours: at for ours, at in columns.items() if at is not None}
    rows: dict[str, Row] = {}
    for line in table.lines:
        row = _row(table, line, found)
        if rows.setdefault(row.file, row) != row:
            raise InputError(
                f"line {line.number} contradicts an earlier line for {row.file}",
                where=table.where,
                remedy="Keep one line a file.",
            )
    return tuple(rows.values())


def _row(table: Table, line: Line, columns: dict[str, int]) -> Row:
    given = {name: table.cell(line, at, name) for name, at in columns.items()}
    split = None
    if "split" in given:
        split = split_name(given["split"])
        if split is None:
            raise InputError(
                f"line {line.number}: split '{given['split']}'",
                where=table.where,
                remedy="Write train, val or test, or leave the column out.",
            )
    # Tables written on Windows separate folders with a backslash.
    return Row(given["file"].replace("\\", "/"), given["label"], given.get("patient"), split)
