"""Differential privacy at the terminal: what a budget costs, and what a site has spent."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blindtune.cli import render
from blindtune.cli.options import Json, number

if TYPE_CHECKING:
    from blindtune.privacy.options import Option

app = typer.Typer(help="Differential privacy: what a budget costs, and what is spent.", no_args_is_help=True)

LedgerFile = Annotated[Path, typer.Argument(help="The site's privacy ledger.")]
Delta = Annotated[float | None, typer.Option(help="Delta; a tenth of one over the patients.")]


@app.command()
def plan(
    patients: Annotated[int, typer.Option(help="Patients in the training set.", min=2)],
    epochs: Annotated[
        float, typer.Option(help="Passes over the patients.", min=0.01, callback=number)
    ] = 10.0,
    batch: Annotated[
        int | None, typer.Option(help="Patients expected in a step; a tenth of all.", min=1)
    ] = None,
    epsilon: Annotated[list[float] | None, typer.Option(help="Budgets to compare; may be repeated.")] = None,
    delta: Delta = None,
    plot: Annotated[Path | None, typer.Option(help="Write a plot here (.svg, .png or .pdf).")] = None,
    json_: Json = False,
) -> None:
    """What does each budget cost in noise? Answered before anything is trained.

    Steps draw each patient independently (Poisson sampling), clip what a patient adds to 1, and add
    Gaussian noise. Noise of the mean update is what learning has to get over.
    """
    from blindtune.privacy.options import options

    size = batch or max(1, patients // 10)
    steps = max(1, round(epochs * patients / size))
    chosen = delta if delta is not None else 0.1 / patients
    with render.progress(json_) as shown:
        shown.add_task("accounting", total=None)
        found = options(
            epsilon or [0.5, 1.0, 2.0, 3.0, 5.0, 8.0], chosen, patients=patients, batch=size, steps=steps
        )
    if plot:
        _plot(plot, found)
    if json_:
        told = {"patients": patients, "batch": size, "steps": steps, "delta": chosen}
        render.print_json({**told, "options": [asdict(o) for o in found]})
        return
    render.rows(
        f"{patients:,} patients, {size:,} expected in each of {steps:,} steps, delta {chosen:.2g}",
        [
            (
                f"epsilon {o.epsilon:g}",
                f"noise {o.noise:.2f} x clip; of the mean update {o.update_noise:.2g} x clip; "
                f"a tenth with {o.least_patients:,} patients a step",
            )
            for o in found
        ],
    )
    if plot:
        render.console().print(f"written: {plot}")


@app.command("open")
def open_(
    ledger: LedgerFile,
    epsilon: Annotated[float, typer.Option(help="The budget of these patients, for ever.")],
    delta: Annotated[float, typer.Option(help="Delta, below one over the patients.")],
    json_: Json = False,
) -> None:
    """Open a privacy ledger for a new set of patients. It is never replaced, nor is its budget raised."""
    from blindtune.privacy.ledger import Ledger

    Ledger.create(ledger, epsilon, delta).close()
    _show(ledger, json_)


@app.command()
def show(ledger: LedgerFile, json_: Json = False) -> None:
    """What a ledger's patients have spent, and on what."""
    _show(ledger, json_)


def _show(path: Path, json_: bool) -> None:
    from blindtune.privacy.ledger import Ledger

    ledger = Ledger(path)
    spent, purposes = ledger.spent_epsilon, ledger.purposes()
    ledger.close()
    if json_:
        charges = [{"charged": when, "purpose": purpose, **asdict(r)} for when, purpose, r in purposes]
        render.print_json(
            {"epsilon": ledger.epsilon, "delta": ledger.delta, "spent": spent, "charges": charges}
        )
        return
    render.rows(
        f"epsilon {spent:.3g} of {ledger.epsilon:g} spent, at delta {ledger.delta:g}",
        [
            (f"{when} {purpose}", f"{r.count} x noise {r.noise:g}, sampling {r.sampling:g}")
            for when, purpose, r in purposes
        ],
    )


def _plot(path: Path, found: list[Option]) -> None:
    import matplotlib

    from blindtune.errors import InputError

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5.2, 3.4), layout="constrained")
    axis.plot([o.epsilon for o in found], [o.update_noise for o in found], marker="o", color="#0b5fa5")
    axis.set(xlabel="epsilon", ylabel="noise of the mean update / clip", yscale="log")
    axis.grid(alpha=0.25, which="both")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InputError(
            "no plot can be written here", where=path.name, remedy="Name a .svg, .png or .pdf file."
        ) from error
    finally:
        pyplot.close(figure)
