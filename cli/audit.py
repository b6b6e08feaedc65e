"""Attacks on one's own configuration at the terminal; each attack is a module of its own."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blindtune.cli import render
from blindtune.cli.options import Json, Security

if TYPE_CHECKING:
    from blindtune.audit.results import AttackResult
    from blindtune.report.figures import Figure

app = typer.Typer(
    help="Attack your own configuration, and read what an attacker would find.", no_args_is_help=True
)


class Parameter(str, Enum):
    """Names of :data:`blindtune.audit.keys.SIZES`, for help without importing it."""

    insecure = "insecure"
    usual = "usual"
    release = "release"


Results = Annotated[
    Path | None, typer.Option("--out", help="Write the results here too (.json), for the privacy report.")
]


@app.command()
def keys(
    tries: Annotated[int, typer.Option(help="Fresh keys a size of parameters.", min=1)] = 20,
    parameters: Annotated[
        list[Parameter] | None, typer.Option(help="Parameters to attack; may be repeated; all.")
    ] = None,
    security: Security = 128,
    out: Results = None,
    json_: Json = False,
) -> None:
    """Recover secret keys from decryptions that are told: raw ones, and sanitised ones.

    Li and Micciancio's passive attack, on throw-away keys. Raw decryptions give the key away: that is the
    control, and why none may be told. The last row is what blindtune release tells.
    """
    from blindtune.audit.keys import SIZES, audit

    names = [p.value for p in parameters] if parameters else list(SIZES)
    with render.progress(json_) as shown:
        task = shown.add_task("keys", total=None)
        found = audit(
            names, tries, security, lambda done, total: shown.update(task, completed=done, total=total)
        )
    tell(found, out, json_)


def tell(results: Sequence[AttackResult], out: Path | None, json_: bool) -> None:
    """Write results where asked, and show them as tables or as one JSON document."""
    from blindtune.audit.results import write_results

    if out is not None:
        write_results(out, results)
    if json_:
        render.print_json([r.to_json() for r in results])
        return
    for r in results:
        control = "succeeded" if r.control else "FAILED: these figures say nothing"
        pairs = [("protection", r.protection), ("trials", f"{r.trials:,}"), ("control", control)]
        render.rows(f"{r.attack}: {r.target}", pairs + [(n, _shown(f)) for n, f in r.figures.items()])


def _shown(figure: Figure) -> str:
    if figure.value is None:
        return f"undefined: {figure.reason}"
    interval = "" if figure.low is None else f" ({figure.low:.4g} to {figure.high:.4g})"
    return f"{figure.value:.4g}{interval}"
