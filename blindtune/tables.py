"""CSV tables that people hand in: the file is checked once here, its columns by whoever reads them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from blindtune.errors import InputError

MAX_TABLE_BYTES = 256 << 20
LABEL_COLUMNS = {
    "file": ("file", "filename", "file_name", "path", "image"),
    "label": ("label", "class", "diagnosis", "finding"),
    "patient": ("patient", "patient_id", "patientid"),
    "split": ("split", "subset", "fold"),
}
"""What people call the columns of a table of labels."""


@dataclass(frozen=True)
class Line:
    """One line below the header, its number in the file and its cells without outer blanks."""

    number: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table in memory.

    Attributes:
        where: the file's name, for messages.
        header: names of the columns, as written.
        lines: all lines that are not blank.
    """

    where: str
    header: tuple[str, ...]
    lines: tuple[Line, ...]

    def position(self, *names: str) -> int | None:
        """Of the column with the first of these names that the header has, in any case."""
        found = [name.lower().replace(" ", "_") for name in self.header]
        return next((found.index(name) for name in names if name in found), None)

    def required(self, what: str, names: tuple[str, ...], remedy: str) -> int:
        """As :meth:`position`; ``what`` is the column's name in the message.

        Raises:
            InputError: no such column.
        """
        at = self.position(*names)
        if at is None:
            raise InputError(
                f"no column '{what}' (has: {', '.join(self.header) or 'nothing'})",
                where=self.where,
                remedy=remedy,
            )
        return at

    def cell(self, line: Line, at: int, what: str) -> str:
        """A cell that must be filled in.

        Raises:
            InputError: it is empty.
        """
        value = line.cells[at] if at < len(line.cells) else ""
        if not value:
            raise InputError(
                f"line {line.number} has no {what}",
                where=self.where,
                remedy="Fill it in or delete the line.",
            )
        return value


def read_csv(path: Path, remedy: str) -> Table:
    """Read a UTF-8 table with comma, semicolon or tab between cells.

    Args:
        path: the file.
        remedy: what a table without rows should have held.

    Raises:
        InputError: not a readable CSV, too large, or without rows.
    """
    where = path.name
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise InputError(
                f"larger than {MAX_TABLE_BYTES >> 20} MiB", where=where, remedy="Is it the right table?"
            )
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text", where=where, remedy="Save the table as UTF-8 CSV.") from error
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", where=where, remedy="Check the path of the table."
        ) from error
    header, _, _ = text.partition("\n")
    delimiter = max(",;\t", key=header.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"not a CSV table ({error})", where=where, remedy="Export it again.") from error
    stripped = [tuple(cell.strip() for cell in cells) for cells in rows]
    lines = tuple(Line(n, cells) for n, cells in enumerate(stripped[1:], start=2) if any(cells))
    if stripped and not lines:
        raise InputError("no rows", where=where, remedy=remedy)
    return Table(where, stripped[0] if stripped else (), lines)
