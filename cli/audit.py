"""Attacks on one's own configuration at the terminal; each attack is a module of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blindtune.cli import render
from blindtune.cli.options import Json, Security, Study, number

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
    control, and why none may be told. The last row is what blindtune release tells. With --out, a run that
    was stopped goes on with the next key.
    """
    from blindtune.audit.keys import SIZES, audit
    from blindtune.audit.results import earlier_results

    names = [p.value for p in parameters] if parameters else list(SIZES)
    with render.progress(json_) as shown:
        task = shown.add_task("keys", total=None)
        found = audit(
            names,
            tries,
            security,
            lambda done, total: shown.update(task, completed=done, total=total),
            earlier=earlier_results(out),
            keep=keeper(out),
        )
    tell(found, out, json_)


@app.command()
def membership(
    study: Study,
    heads: Annotated[int, typer.Option(help="Shadow heads of each kind.", min=16)] = 256,
    epsilon: Annotated[
        list[float] | None, typer.Option(help="Budgets of private heads to attack; may be repeated.")
    ] = None,
    out: Results = None,
    json_: Json = False,
) -> None:
    """Does the head tell who was in its training data? The likelihood ratio attack, by patient.

    Shadow heads are trained as the study's head is, each on half of the patients. The attacker knows the
    patients' embeddings and labels and all heads but the one under attack. A head that memorises its rows
    is the control.
    """
    from blindtune.audit.heads import read_study
    from blindtune.audit.membership import audit
    from blindtune.client.study import StudyDirectory

    loaded = read_study(StudyDirectory(study))
    with render.progress(json_) as shown:
        task = shown.add_task("shadow heads", total=None)
        found = audit(
            loaded,
            heads,
            epsilon or [1.0, 3.0, 8.0],
            lambda done, total: shown.update(task, completed=done, total=total),
        )
    tell(found, out, json_)


@app.command()
def dp(
    epsilon: Annotated[
        list[float] | None, typer.Option(help="Budgets to audit; may be repeated; 1 and 3.")
    ] = None,
    delta: Annotated[float, typer.Option(help="Delta that the training claims.", callback=number)] = 1e-5,
    canaries: Annotated[int, typer.Option(help="Canaries: more can prove more.", min=1000)] = 2000,
    out: Results = None,
    json_: Json = False,
) -> None:
    """Does private training hold what it claims? One run with canaries, and three with a planted bug.

    The lower bound on epsilon must not exceed the claim, and must exceed it where noise, clipping or
    sampling is wrong on purpose. With --out, a run that was stopped goes on with the next budget.
    """
    from blindtune.audit.private import results
    from blindtune.audit.results import earlier_results

    with render.progress(json_) as shown:
        task = shown.add_task("private steps", total=None)
        found = results(
            epsilon or [1.0, 3.0],
            delta,
            canaries,
            lambda done, total: shown.update(task, completed=done, total=total),
            earlier=earlier_results(out),
            keep=keeper(out),
        )
    tell(found, out, json_)


def keeper(out: Path | None) -> Callable[[list[AttackResult]], None]:
    """Writes results so far where results are to be written."""
    from blindtune.audit.results import write_results

    return partial(write_results, out) if out is not None else lambda _: None


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
