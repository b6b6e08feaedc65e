"""``compare``: models judged on the same labelled cases, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blindtune.cli import render
from blindtune.cli.options import Json


def compare(
    predictions: Annotated[
        list[str],
        typer.Argument(
            help="[NAME=]FILE: a model's test predictions (CSV), as evaluate and predict write them."
        ),
    ],
    reference: Annotated[str | None, typer.Option(help="The model to compare with; the first.")] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(
            help="[NAME=]FILE: a model's validation predictions, to choose threshold and calibration on."
        ),
    ] = None,
    sensitivity: Annotated[
        float | None, typer.Option(help="Of two classes, the sensitivity that the threshold must reach.")
    ] = None,
    seen: Annotated[
        list[Path] | None,
        typer.Option(help="CSV of training and validation patients: refuses a test set with one of them."),
    ] = None,
    expert: Annotated[
        list[str] | None, typer.Option(help="[NAME=]FILE: an expert's labels (CSV: case,label).")
    ] = None,
    course: Annotated[
        list[str] | None, typer.Option(help="[NAME=]FILE: the study.json of a federated run, for its curves.")
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the report.")] = "",
    resamples: Annotated[int, typer.Option(help="Bootstrap replicates.", min=0, max=100_000)] = 1000,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report here.")] = None,
    json_: Json = False,
) -> None:
    """Compare models on the same test cases: figures by patient, tests, sites, experts.

    Intervals resample patients. Thresholds are chosen on validation patients only.
    """
    from blindtune.errors import InputError
    from blindtune.report import (
        Course,
        Run,
        judge,
        read_expert,
        read_people,
        read_predictions,
        run_tables,
        select,
        write_run_report,
    )

    models = {name: read_predictions(path) for name, path in _named(predictions).items()}
    held_out = {name: read_predictions(path) for name, path in _named(validation or []).items()}
    if sensitivity is not None and not held_out:
        raise InputError(
            "a threshold has nothing to be chosen on",
            where="--sensitivity",
            remedy="Give --validation with predictions for validation patients.",
        )
    first = next(iter(models.values()))
    run = Run(
        models=models,
        courses={name: Course.read(path) for name, path in _named(course or []).items()},
        reference=reference,
        selections={name: select(one, sensitivity=sensitivity) for name, one in held_out.items()},
        seen=frozenset().union(*map(read_people, seen)) if seen else None,
        experts={name: read_expert(path, first) for name, path in _named(expert or []).items()},
        title=title,
        resamples=resamples,
    )
    judged = judge(run)
    if report is not None:
        write_run_report(report, judged)
    if json_:
        render.print_json(judged.to_json())
        return
    from rich.console import Console

    for table in run_tables(judged):
        Console(highlight=False).print(table)
    if report is not None:
        render.console().print(f"written: {report}", soft_wrap=True)


def _named(given: list[str]) -> dict[str, Path]:
    """``NAME=FILE`` by name; a file alone is called by its own name without the ending.

    Raises:
        InputError: two of one name.
    """
    from blindtune.errors import InputError

    found: dict[str, Path] = {}
    for text in given:
        name, separator, file = text.partition("=")
        # A file may have an equals sign in its own name.
        path = Path(file)
        if not separator or Path(text).exists():
            path = Path(text)
            name = path.stem
        if name in found:
            raise InputError(
                f"two files are called {name!r}", where="options", remedy="Name them: NAME=FILE."
            )
        found[name] = path
    return found
