"""The comparison of the report as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import _format
from .results import MEANINGS, Result, compare

if TYPE_CHECKING:
    from rich.table import Table


def terminal_table(results: Mapping[str, Result], *, reference: str | None = None) -> Table:
    """Figures as rows, heads as columns, each with its interval and its difference from the reference.

    Raises:
        InputError: as :func:`~blindtune.report.compare`.
    """
    from rich.table import Table
    from rich.text import Text

    comparison = compare(results, reference=reference)
    first = results[comparison.reference].metrics
    patients = "" if first.patients is None else f" of {first.patients:,} patients"
    table = Table(title=Text(f"{first.n:,} held-out scans{patients}; 95 % intervals"), title_justify="left")
    table.add_column("", style="bold")
    for head in comparison.heads:
        # Names are text, not markup: "[red]" is a name.
        table.add_column(Text(head), justify="right")
    for row in comparison.rows:
        cells = []
        for figure, gap in zip(row.figures, row.differences, strict=True):
            cell = Text(_format.value(row.key, figure))
            if between := _format.interval(row.key, figure):
                cell.append(f"\n{between}", style="dim")
            elif figure.value is None:
                cell.append(f"\n{figure.reason}", style="dim")
            if gap is not None and gap.value is not None:
                # Broken before the interval, so that three heads fit 80 columns.
                cell.append(f"\n{_format.change(row.key, gap).replace(' (', chr(10) + '(')}", style="cyan")
            cells.append(cell)
        label, better, _ = MEANINGS[row.key]
        table.add_row(Text(f"{label} {'↑' if better == 'higher' else '↓'}"), *cells)
    return table
