"""The hospital's commands on the head that came back: ``decrypt``, ``evaluate``, ``predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from blindtune.cli import render
from blindtune.cli.options import Json, Study


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
        "next": f"blindtune evaluate {study}",
    }
    if json_:
        render.print_json({**told, "deviation": opened.deviation})
    else:
        render.rows("Decrypted head", [(k.replace("_", " "), str(v)) for k, v in told.items()])


def evaluate(
    study: Study,
    json_: Json = False,
) -> None:
    """Evaluate on the test split, beside the same steps in clear and the converged plaintext head."""
    from blindtune.client.evaluate import SHOWN, evaluate_study, study_summary
    from blindtune.client.study import StudyDirectory
    from blindtune.report import terminal_table, write_report

    directory = StudyDirectory(study)
    settings = directory.settings()
    results = evaluate_study(directory)
    json_path, html_path = write_report(directory.report, study_summary(settings), results)
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
    scans: Annotated[Path, typer.Argument(help="A scan, or a folder of scans.")],
    weights: Annotated[Path | None, typer.Option(help="The backbone's weights (.safetensors).")] = None,
    out: Annotated[Path | None, typer.Option(help="CSV to write instead of stdout.")] = None,
    json_: Json = False,
) -> None:
    """Classify scans with a decrypted head, on this machine."""
    from blindtune.client.predict import predict_scans
    from blindtune.models.linear import LinearHead

    loaded = LinearHead.load(head)
    with render.progress(json_ or out is None) as shown:
        task = shown.add_task("features", total=None)
        found = predict_scans(
            loaded, scans, weights, lambda done, total: shown.update(task, completed=done, total=total)
        )
    if json_:
        render.print_json(found)
        return
    _write_csv(found, loaded.classes, out)


def _write_csv(found: list[dict[str, Any]], classes: tuple[str, ...], out: Path | None) -> None:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "prediction", *classes])
    for row in found:
        writer.writerow(
            [row["file"], row["prediction"], *(f"{p:.4f}" for p in row["probabilities"].values())]
        )
    if out is None:
        print(text.getvalue(), end="")
    else:
        out.write_text(text.getvalue())
