"""The written report: valid, self-contained, escaped, and nothing in it that was not passed in."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from blindtune.errors import InputError
from blindtune.report import Metrics, Result, compare, terminal_table, write_report
from blindtune.report.html import SCHEMA

NASTY = ("<b>bold</b>", "$x^{", "_under \"quote\" & 'co'", "病変")


def heads(kind="multiclass", n=60, names=NASTY, groups=None):
    random = np.random.default_rng(0)
    k = len(names)
    if kind == "regression":
        labels = random.normal(size=n)
        logits = labels + random.normal(size=n)
    elif kind == "binary":
        labels = random.integers(0, 2, n)
        logits = random.normal(size=n) + labels
    else:
        labels = random.integers(0, 2, (n, k)) if kind == "multilabel" else random.integers(0, k, n)
        logits = random.normal(size=(n, k))
    return {
        name: Result.of(logits + gap, labels, names, kind=kind, groups=groups, resamples=50)
        for name, gap in (("encrypted", 0.0), ("<i>clear", 0.001), ("[red]converged", 0.2))
    }


CASES = [
    ("binary", ("no", "<b>yes</b>")),
    ("multiclass", NASTY),
    ("multilabel", NASTY),
    ("regression", ("ml",)),
]


@pytest.mark.parametrize(("kind", "names"), CASES)
def test_page_is_sound(tmp_path, kind, names, text_of):
    study = {
        "title": "<script>alert(1)</script>",
        "notes": ["Synthetic & <b>small</b>"],
        "provenance": {"steps": 12, "exact": None, "Keys": {"bits": (60, 40), "gpu": False, "x": 0.1}},
    }
    _, path = write_report(tmp_path, study, heads(kind, names=names))
    page = path.read_text(encoding="utf-8")
    text = text_of(page)
    assert "<b>" not in page
    assert "Synthetic & <b>small</b>" in text
    assert "60, 40" in text
    if kind != "regression":
        assert names[-1] in text
    assert str(tmp_path) not in page


def test_json_is_readable_back(tmp_path):
    results = heads(groups=[f"patient-{i // 2}" for i in range(60)])
    path, _ = write_report(tmp_path / "new" / "folder", {"title": "T", "provenance": {"a": (1, 2)}}, results)
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["schema"] == SCHEMA
    assert data["study"] == {"title": "T", "provenance": {"a": [1, 2]}}
    assert list(data["heads"]) == list(results)
    for name, result in results.items():
        assert Metrics.from_json(data["heads"][name]) == result.metrics
    assert data["comparison"]["reference"] == "encrypted"
    assert data["comparison"]["agreement"]["<i>clear"]["largest_gap"] == pytest.approx(0.001)
    assert "patient-" not in path.read_text(encoding="utf-8")
    assert results["encrypted"].metrics.design not in path.read_text(encoding="utf-8")


def test_earlier_report_is_replaced_whole_and_no_rubbish_stays(tmp_path):
    for title in ("first", "second"):
        write_report(tmp_path, {"title": title}, heads("binary", names=("a", "b")))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert "second" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_one_head_and_no_study(tmp_path):
    only = {"mine": heads("binary", names=("a", "b"))["encrypted"]}
    _, path = write_report(tmp_path, {}, only)
    assert "difference from" not in path.read_text(encoding="utf-8")


def test_absent_class_shows_a_dash_and_why(tmp_path):
    result = Result.of([1.0, -1.0, 2.0], [1, 1, 1], ("well", "ill"), resamples=20)
    _, path = write_report(tmp_path, {}, {"encrypted": result})
    page = path.read_text(encoding="utf-8")
    assert "no scan of class “well”" in page
    assert "<strong>–</strong>" in page


@pytest.mark.parametrize(
    "study", [{"path": "x"}, {"provenance": {"a": float("nan")}}, {"notes": "text"}, {"summary": object()}]
)
def test_unfit_study_is_refused_before_anything_is_written(tmp_path, study):
    with pytest.raises(InputError):
        write_report(tmp_path, study, heads("binary", names=("a", "b")))
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(tmp_path / "file", {}, heads("binary", names=("a", "b")))


def test_heads_of_other_scans_are_refused():
    results = heads("binary", names=("a", "b"))
    results["other"] = Result.of([1.0, -1.0], [1, 0], ("a", "b"), resamples=0)
    with pytest.raises(InputError, match="same scans"):
        compare(results)
    with pytest.raises(InputError):
        compare({})
    with pytest.raises(InputError, match="no head"):
        compare(heads("binary", names=("a", "b")), reference="gone")


def test_same_logits_agree_everywhere():
    results = heads()
    results["twin"] = results["encrypted"]
    found = compare(results)
    assert found.agreements[0] is None
    assert (found.agreements[-1].decisions, found.agreements[-1].largest_gap) == (1.0, 0.0)
    assert {row.differences[-1].value for row in found.rows} == {0.0}


@pytest.mark.parametrize(("kind", "names"), CASES)
def test_terminal_table_takes_names_as_they_are(kind, names):
    from rich.console import Console

    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(terminal_table(heads(kind, names=names)))
    text = console.export_text()
    assert "[red]converged" in text
    assert "held-out scans" in text
