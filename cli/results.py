"""The hospital's commands on the head that came back: ``decrypt``, ``evaluate``, ``predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blindtune.cli import render
from blindtune.cli.options import Json, Study

if TYPE_CHECKING:
    from blindtune.client.decrypt import Opened
    from blindtune.client.study import StudyDirectory
    from blindtune.imaging import Embeddings
    from blindtune.report import Predictions, Result


def decrypt(
    study: Study,
    key: Annotated[Path | None, typer.Option(help="secret.key; the study's own by default.")] = None,
    json_: Json = False,
) -> None:
    """Open the encrypted head: decrypt, unwhiten, calibrate on the validation split.

    The decrypted head stays here: handing it to the server can reveal the key.
    """
    from blindtune.client.decrypt import TRUSTED_DEVIATION, open_head
    from blindtune.client.study import StudyDirectory
    from blindtune.errors import BundleError

    directory = StudyDirectory(study)
    settings = directory.settings()
    opened = open_head(directory, render.load_key(key or directory.key_file))
    # With several members the steps ran on more rows than the rehearsal here.
    if len(settings.members) == 1 and opened.deviation > TRUSTED_DEVIATION:
        raise BundleError(
            f"the head differs from the same steps in clear by {100 * opened.deviation:.1f} %: "
            "the server did not run this study's steps; nothing was written",
            remedy="Submit the study again, to another server if it stays.",
        )
    opened.head.save(directory.head)
    opened.uncalibrated.save(directory.head / "uncalibrated")
    told = {
        "head": str(directory.head),
        "calibration": opened.head.provenance["calibration"],
        "weights_differ_from_clear_by": f"{100 * opened.deviation:.3f} %",
        **_choice(opened),
        "next": f"blindtune evaluate {study}",
    }
    if json_:
        render.print_json({**told, "deviation": opened.deviation, **opened.head.provenance.get("grid", {})})
    else:
        render.rows("Decrypted head", [(k.replace("_", " "), str(v)) for k, v in told.items()])


def _choice(opened: Opened) -> dict[str, str]:
    """Which setting of a grid was chosen, and why."""
    if len(opened.candidates) == 1:
        return {}
    from blindtune.models.grid import named

    found = {
        f"setting {n}": f"{named(c.setting)}: validation loss {c.loss:.4f}"
        for n, c in enumerate(opened.candidates)
    }
    return {**found, "chosen": f"setting {opened.chosen}, the least loss on validation rows"}


def release(
    study: Study,
    key: Annotated[Path | None, typer.Option(help="The study's secret.key, if it was moved.")] = None,
    json_: Json = False,
) -> None:
    """Release the head: decrypted under noise that hides the key, once; asked again, the same.

    STUDY/release may leave: a head as decrypt writes one, and release.json. The study must have been
    encrypted with --release. The noise hides the key, not the patients.
    """
    from blindtune.client.release import release_head
    from blindtune.client.study import StudyDirectory

    directory = StudyDirectory(study)
    found = release_head(directory, render.load_key(key or directory.key_file))
    render.tell("Released head", {"head": str(directory.released), **found.record}, json_)


def evaluate(
    study: Annotated[Path, typer.Argument(help="The directory from blindtune encrypt, or study join.")],
    embeddings: Annotated[
        Path | None, typer.Option(help="The .npz whose test rows a head from study open is evaluated on.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write each head's test predictions into this folder, for compare.")
    ] = None,
    json_: Json = False,
) -> None:
    """Evaluate on the test split, beside the same steps in clear and the converged plaintext head.

    A head that several hospitals opened stands alone, on each hospital's own test rows.
    """
    from blindtune.client.evaluate import SHOWN, evaluate_head, evaluate_study, head_summary, study_summary
    from blindtune.client.study import StudyDirectory
    from blindtune.imaging import load_embeddings
    from blindtune.models.linear import LinearHead
    from blindtune.report import terminal_table, write_report

    directory = StudyDirectory(study)
    _check_rows(directory, embeddings)
    if embeddings is None:
        settings, data, results = directory.settings(), directory.embeddings(), evaluate_study(directory)
        summary = study_summary(settings, LinearHead.load(directory.head))
    else:
        head, data = LinearHead.load(directory.head), load_embeddings(embeddings, shard=True)
        results, summary = evaluate_head(head, data), head_summary(head)
    json_path, html_path = write_report(directory.report, summary, results)
    if predictions is not None:
        _write_heads(results, data, predictions)
    if json_:
        print(json_path.read_text())
        return
    from rich.console import Console

    # The others are in the report: five columns do not fit a terminal.
    table = terminal_table({name: results[name] for name in SHOWN if name in results})
    Console(highlight=False).print(table)
    render.console().print(f"all heads, plots and intervals: {html_path}", soft_wrap=True)


def predict(
    head: Annotated[Path, typer.Argument(help="The head's directory: STUDY/head.")],
    scans: Annotated[Path, typer.Argument(help="A scan, a folder of scans, or an .npz of embeddings.")],
    weights: Annotated[Path | None, typer.Option(help="The backbone's weights (.safetensors).")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Labels table: adds patient and label, for compare, and leaves out the rest."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Only the scans of this split of the labels table, or rows of the .npz."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV to write instead of stdout.")] = None,
    json_: Json = False,
) -> None:
    """Classify scans, or rows of embeddings, with a decrypted head, on this machine.

    With --split, rows of embeddings come with their patients and labels, for compare.
    """
    from blindtune.client.predict import predict_rows, predict_scans, predict_split
    from blindtune.errors import InputError
    from blindtune.models.linear import LinearHead

    rows = scans.suffix == ".npz"
    if rows and (labels is not None or weights is not None):
        raise InputError(
            "embeddings need neither --labels nor --weights", where=scans.name, remedy="Leave them out."
        )
    if not rows and split is not None and labels is None:
        raise InputError("no table that tells splits", where="--split", remedy="Give --labels as well.")
    loaded = LinearHead.load(head)
    if rows:
        found = predict_rows(loaded, scans)
        labelled = None if split is None else predict_split(loaded, scans, split)
    else:
        with render.progress(json_ or out is None) as shown:
            task = shown.add_task("features", total=None)
            found = predict_scans(
                loaded, scans, weights, lambda done, total: shown.update(task, completed=done, total=total)
            )
        labelled = None if labels is None else _labelled(found, loaded.classes, labels, split)
    if json_:
        chosen = None if labelled is None else set(labelled.cases)
        name = _named(found)
        render.print_json([row for row in found if chosen is None or row[name] in chosen])
        return
    text = _csv(found, loaded.classes) if labelled is None else labelled.to_csv()
    if out is None:
        print(text, end="")
    elif labelled is None:
        out.write_text(text)
    else:
        labelled.write(out)


def _check_rows(directory: StudyDirectory, embeddings: Path | None) -> None:
    """Refuse a head without rows to evaluate it on, and other rows than a study's own.

    Raises:
        InputError: as said.
    """
    from blindtune.errors import InputError

    if directory.complete and embeddings is not None:
        raise InputError(
            "the study has its own embeddings",
            where="--embeddings",
            remedy="For other rows: blindtune predict STUDY/head FILE.npz --split test, then compare.",
        )
    if not directory.complete and embeddings is None and directory.head.is_dir():
        raise InputError(
            "a head, and no rows to evaluate it on",
            where=directory.root.name,
            remedy="Give --embeddings FILE.npz.",
        )


def _write_heads(results: dict[str, Result], data: Embeddings, folder: Path) -> None:
    """A CSV of test predictions a head; cases are rows of the study's embeddings."""
    import re

    from blindtune.client.predict import row_name
    from blindtune.report import Predictions

    test = data.indices("test").tolist()
    cases, patients = [row_name(i) for i in test], [data.patients[i] for i in test]
    render.make_directory(folder)
    for name, result in results.items():
        file = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        Predictions.of(result, cases, patients).write(folder / f"{file}.csv")


def _labelled(
    found: list[dict[str, Any]], classes: tuple[str, ...], table: Path, split: str | None
) -> Predictions:
    """Predictions of the scans that the labels table names, of one split where it is given.

    Raises:
        InputError: a row without patient or with an unknown label, or no scan is left.
    """
    import numpy as np

    from blindtune.errors import InputError
    from blindtune.imaging.splits import split_name
    from blindtune.imaging.table import read_table
    from blindtune.report import Predictions

    wanted = None if split is None else split_name(split)
    rows = {row.file: row for row in read_table(table) if split is None or row.split == wanted}
    chosen = [(one, rows[one["file"]]) for one in found if one["file"] in rows]
    if not chosen or (split is not None and wanted is None):
        raise InputError(
            "no scan has a label" + ("" if split is None else f" in the split '{split}'"),
            where=table.name,
            remedy="Name files as in the folder of scans; splits are train, val and test.",
        )
    if any(row.patient is None for _, row in chosen):
        raise InputError("no column 'patient'", where=table.name, remedy="Add it: intervals are by patient.")
    if strange := sum(row.label not in classes for _, row in chosen):
        raise InputError(
            f"{strange} scan(s) have a label that is no class of the head",
            where=table.name,
            remedy=f"The classes are {', '.join(classes)}.",
        )
    return Predictions(
        classes,
        tuple(one["file"] for one, _ in chosen),
        tuple(row.patient or "" for _, row in chosen),
        np.array([classes.index(row.label) for _, row in chosen]),
        np.array([list(one["probabilities"].values()) for one, _ in chosen]),
    )


def _csv(found: list[dict[str, Any]], classes: tuple[str, ...]) -> str:
    """A line a scan or row: its name, prediction, and the probability of each class."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    name = _named(found)
    writer.writerow([name, "prediction", *classes])
    for row in found:
        writer.writerow([row[name], row["prediction"], *(f"{p:.4f}" for p in row["probabilities"].values())])
    return text.getvalue()


def _named(found: list[dict[str, Any]]) -> str:
    """What predictions are named by: scans by file, rows of embeddings as cases."""
    return "file" if "file" in found[0] else "case"
