"""The page of a run, and its tables for the terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from blindtune.errors import InputError
from blindtune.report import Course, Run, judge, run_tables, select, write_run_report


def course(rounds=5, **changes):
    return Course.of(
        [
            {
                "number": i,
                "sites": ["north", "south"],
                "excluded": {"west": "<script>late</script>"} if i == 2 else {},
                "confusion": [[30 + i, 10], [9, 40 + i]],
                "loss": 0.9 / (1 + i),
                "change": 0.5,
                **changes,
            }
            for i in range(rounds)
        ]
    )


@pytest.fixture
def run(predictions, noisier):
    """Everything at once, with names that are no markup."""
    names = ("<b>well</b>", "_ill $x^{")
    local = predictions(n=80, classes=names, sites=("north & co", "süd"))
    models = {"local": local, "<i>federated": noisier(local), "[red]private": noisier(local, seed=2, noise=3)}
    validation = predictions(seed=4, n=60, classes=names, prefix="V", sites=("north & co", "süd"))
    return Run(
        models=models,
        courses={
            "<i>federated": course(),
            "[red]private": course(epsilon=2.5, confusion=[[3.5, 1], [2, 8.25]]),
        },
        selections={"<i>federated": select(validation)},
        seen=set(validation.people),
        experts={"Dr <A>": local.labels},
        title="A <run>",
        notes=["Synthetic & small"],
        provenance={"rounds": 5},
        resamples=60,
    )


def test_page_is_sound_and_says_what_a_sceptic_asks(tmp_path, text_of, run):
    path = write_run_report(tmp_path / "new" / "run.html", run)
    page = path.read_text(encoding="utf-8")
    text = " ".join(text_of(page).split())
    assert "<b>" not in page
    assert "<i>" not in page
    for said in (
        "80 held-out scans of 40 patients from 2 sites",
        "None of these patients is among the 30 patients of training and validation",
        "Thresholds and calibration were chosen on validation patients, none of whom is here",
        "60 bootstrap test sets, drawn by patient",
        "p by patient",
        "McNemar",
        "multiply by 2 to be safe",
        "unless a threshold was chosen on validation",
        "carry privacy noise",
        "west: <script>late</script>",
        "Dr <A>",
        "Synthetic & small",
        "north & co",
    ):
        assert said in text, said
    assert re.search(r"P\d+", text) is None
    assert str(tmp_path) not in page
    assert page.count("<svg") == 5 + 2 + 1 + 3 + 3  # curves, validation, ROC, confusion, calibration


def test_a_judged_run_is_not_judged_again(tmp_path, run, monkeypatch):
    judged = judge(run)
    first = write_run_report(tmp_path / "a.html", run).read_text(encoding="utf-8")
    monkeypatch.setattr("blindtune.report.run_html.judge", None)
    assert write_run_report(tmp_path / "b.html", judged).read_text(encoding="utf-8") == first


def test_course_alone(tmp_path, text_of):
    path = write_run_report(tmp_path / "run.html", Run(courses={"run": course(1)}, classes=("a", "b")))
    text = " ".join(text_of(path.read_text(encoding="utf-8")).split())
    assert "no test set was handed in" in text
    assert "They have no intervals" in text
    assert "bootstrap" not in text
    assert "Epsilon" not in text


@pytest.mark.parametrize("classes", ["ab", "abc"])
def test_one_model_without_sites(tmp_path, text_of, predictions, classes):
    path = write_run_report(
        tmp_path / "run.html", Run(models={"m": predictions(classes=classes)}, resamples=20)
    )
    text = text_of(path.read_text(encoding="utf-8"))
    assert "It was not checked here whether patients" in text
    assert "By site" not in text
    assert "McNemar" not in text


def test_unfit_study_is_refused(tmp_path, predictions):
    run = Run(models={"m": predictions()}, provenance={"x": float("nan")}, resamples=0)
    with pytest.raises(InputError, match="JSON"):
        write_run_report(tmp_path / "run.html", run)
    assert list(tmp_path.iterdir()) == []


def test_the_documented_example_runs(capsys):
    page = Path(__file__).parents[2] / "docs" / "evaluation.md"
    (body,) = re.findall(r"```python run\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    exec(compile(body, str(page), "exec"), {})
    assert 0 < float(capsys.readouterr().out) <= 1


def test_tables_for_the_terminal(run):
    from rich.console import Console

    console = Console(width=110, file=io.StringIO(), record=True)
    judged = judge(run)
    tables = run_tables(judged)
    for table in tables:
        console.print(table)
    text = console.export_text()
    assert len(tables) == 1 + 3 + 1
    assert "[red]private" in text
    assert "Dr <A>" in text
    assert "p, by patient" in text
    test = judged.comparison.agreements[2].mcnemar
    assert ("< 0.001" if test.p_by_patient < 0.001 else f"{test.p_by_patient:.2g}") in text


def test_many_models_are_shown_three_at_a_time(predictions, noisier):
    one = predictions()
    models = {"base": one, **{f"m{i}": noisier(one, seed=i) for i in range(4)}}
    tables = run_tables(judge(Run(models=models, resamples=0)))
    assert [[str(c.header) for c in table.columns] for table in tables] == [
        ["", "base", "m0", "m1"],
        ["", "base", "m2", "m3"],
    ]
