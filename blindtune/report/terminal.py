"""The comparisons of the reports as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import _format
from .figures import Figure
from .results import MEANINGS, Comparison, Result, compare
from .run import Judged

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

#: Columns of a table by site.
_BY_SITE = ("accuracy", "roc_auc", "mcc")


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
            cell = _cell(row.key, figure)
            if gap is not None and gap.value is not None:
                # Broken before the interval, so that three heads fit 80 columns.
                cell.append(f"\n{_format.change(row.key, gap).replace(' (', chr(10) + '(')}", style="cyan")
            cells.append(cell)
        label, better, _ = MEANINGS[row.key]
        table.add_row(Text(f"{label} {'↑' if better == 'higher' else '↓'}"), *cells)
    _add_tests(table, comparison)
    return table


def run_tables(judged: Judged) -> list[Table]:
    """Tables of a run: models three at a time, the reference first; then by site, and beside experts."""
    from rich.table import Table
    from rich.text import Text

    tables = []
    if judged.comparison is not None:
        base = judged.comparison.reference
        others = [name for name in judged.results if name != base]
        for at in range(0, max(len(others), 1), 2):
            chosen = [base, *others[at : at + 2]]
            tables.append(terminal_table({name: judged.results[name] for name in chosen}, reference=base))
    for name, sites in judged.sites.items():
        table = Table(title=Text(f"{name}, by site"), title_justify="left")
        for heading in ("site", "patients", "scans", *(MEANINGS[key][0] for key in _BY_SITE)):
            table.add_column(heading, justify="left" if heading == "site" else "right")
        for site, one in sites.items():
            cells = [_cell(key, one[key]) for key in _BY_SITE]
            table.add_row(Text(site), f"{one.patients:,}", f"{one.n:,}", *cells)
        tables.append(table)
    for expert, readings in judged.experts.items():
        table = Table("", "same class", "Cohen’s κ", title=Text(f"beside {expert}"), title_justify="left")
        for name, reading in readings.items():
            table.add_row(Text(name), _format.percent(reading.same), _cell("kappa", reading.kappa))
        tables.append(table)
    return tables


def _cell(key: str, figure: Figure) -> Text:
    """A figure above its interval, or above the reason why there is none."""
    from rich.text import Text

    cell = Text(_format.value(key, figure))
    if between := _format.interval(key, figure):
        cell.append(f"\n{between}", style="dim")
    elif figure.value is None:
        cell.append(f"\n{figure.reason}", style="dim")
    return cell


def _add_tests(table: Table, comparison: Comparison) -> None:
    """Cohen's κ and the two p of each head beside the reference, where there are any."""
    columns: list[tuple[Text | str, ...]] = []
    for one in comparison.agreements:
        if one is None or one.kappa is None or one.mcnemar is None:
            columns.append(("", "", ""))
        else:
            tests = (one.mcnemar.p_by_patient, one.mcnemar.p)
            columns.append((_cell("kappa", one.kappa), *map(_format.p_value, tests)))
    for label, *cells in zip(("Cohen’s κ", "p, by patient", "p, McNemar"), *columns, strict=True):
        if any(cells):
            table.add_row(label, *cells)
