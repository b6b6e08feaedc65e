"""``blindtune compare``, and the tables that ``evaluate`` and ``predict`` write for it."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from blindtune.report import Predictions, read_predictions


def draw(seed, n=60, prefix="T", classes=("well", "ill")):
    """Predictions of the same cases for every seed."""
    labels = np.arange(n) % len(classes)
    random = np.random.default_rng(seed)
    shares = np.exp(random.normal(size=(n, len(classes))) + 1.5 * np.eye(len(classes))[labels])
    return Predictions(
        classes,
        tuple(f"{prefix}{i}.png" for i in range(n)),
        tuple(f"{prefix}{i // 2}" for i in range(n)),
        labels,
        shares / shares.sum(axis=1, keepdims=True),
        tuple("ab"[i // 2 % 2] for i in range(n)),
    )


@pytest.fixture
def tables(tmp_path):
    """Test tables of three models and a validation table."""
    for seed, name in enumerate(("local", "federated", "private")):
        draw(seed).write(tmp_path / f"{name}.csv")
    draw(9, prefix="V").write(tmp_path / "validation.csv")
    return tmp_path


def test_one_document(blindtune, tables):
    expert = draw(0)
    lines = [f"{case},{expert.classes[k]}" for case, k in zip(expert.cases, expert.labels, strict=True)]
    (tables / "expert.csv").write_text("\n".join(["case,label", *lines]))
    rounds = [{"number": 0, "sites": ["a"], "confusion": [[1, 0], [0, 1]], "loss": 0.5}]
    (tables / "study.json").write_text(json.dumps({"plan": "x", "rounds": rounds}))
    ran = blindtune(
        *("compare", tables / "local.csv", f"fed={tables / 'federated.csv'}", tables / "private.csv"),
        *("--reference", "fed", "--validation", f"private={tables / 'validation.csv'}"),
        *("--sensitivity", 0.9, "--seen", tables / "validation.csv", "--resamples", 50),
        *("--expert", f"Dr A={tables / 'expert.csv'}", "--course", f"fed={tables / 'study.json'}"),
        *("--report", tables / "out.html", "--title", "Three models", "--json"),
    )
    assert ran.code == 0, ran.err
    assert ran.err == ""
    found = json.loads(ran.out)
    assert list(found["models"]) == ["local", "fed", "private"]
    assert found["comparison"]["reference"] == "fed"
    assert list(found["comparison"]["agreement"]) == ["local", "private"]
    assert found["seen_patients"] == 30
    assert "90 %" in found["selections"]["private"]["rule"]
    assert (
        found["models"]["local"]
        == read_predictions(tables / "local.csv").result(resamples=50).metrics.to_json()
    )
    assert list(found["sites"]["fed"]) == ["a", "b"]
    assert found["experts"]["Dr A"]["labels of the test set"]["same"] == 1.0
    assert found["courses"]["fed"][0]["loss"] == 0.5
    assert "Three models" in (tables / "out.html").read_text(encoding="utf-8")


def test_tables_fit_the_terminal(blindtune, tables):
    ran = blindtune(
        "compare", tables / "local.csv", tables / "federated.csv", "--report", tables / "out.html"
    )
    assert ran.code == 0, ran.err
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "p, by patient" in ran.out
    assert "60 held-out scans of 30 patients" in ran.out
    assert "written: " in ran.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["none.csv"], ["none.csv", "cannot be read"]),
        (["local.csv", "local.csv"], ["two files are called 'local'"]),
        (["local.csv", "validation.csv"], ["model 'validation'", "same test cases"]),
        (["local.csv", "--reference", "x"], ["no head is named 'x'"]),
        (["local.csv", "--sensitivity", 0.9], ["--validation"]),
        (["local.csv", "--validation", "local=local.csv"], ["30 of 30 test patient(s)"]),
        (["local.csv", "--validation", "validation.csv"], ["no model here"]),
        (["local.csv", "--seen", "federated.csv"], ["30 of 30 test patient(s)"]),
        (["local.csv", "--expert", "validation.csv"], ["60 of 60 cases have no label"]),
        (["local.csv", "--course", "validation.csv"], ["not the file of a federated run"]),
        (["local.csv", "--report", "/proc/none/x.html"], ["cannot be written"]),
    ],
)
def test_bad_input_is_one_line(blindtune, tables, monkeypatch, options, words):
    monkeypatch.chdir(tables)
    blindtune("compare", *options, "--resamples", 20).refused(*words)


def test_evaluate_writes_what_compare_reads(blindtune, trained, tmp_path):
    assert blindtune("decrypt", trained).code == 0
    ran = blindtune("evaluate", trained, "--predictions", tmp_path / "p", "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)["heads"]
    names = sorted(path.stem for path in (tmp_path / "p").iterdir())
    assert names == sorted(name.replace(", ", "-").replace(" ", "-") for name in told)
    ran = blindtune(
        "compare", tmp_path / "p" / "encrypted.csv", tmp_path / "p" / "converged-plaintext.csv", "--json"
    )
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)["models"]
    for name, ours in (("encrypted", "encrypted"), ("converged plaintext", "converged-plaintext")):
        for key, figure in told[name]["figures"].items():
            assert found[ours]["figures"][key]["value"] == pytest.approx(figure["value"], abs=1e-6), key
        assert found[ours]["confusion"] == told[name]["confusion"]
        assert found[ours]["patients"] == told[name]["patients"]


class TestPredict:
    """``predict --labels``: patients and labels from the table, one split if asked for."""

    @pytest.fixture
    def head(self, tmp_path, monkeypatch):
        from blindtune.client import predict
        from blindtune.models.linear import LinearHead

        def told(head, scans, weights=None, progress=None):
            return [
                {"file": f"{i}.png", "prediction": "a", "probabilities": {"a": 1 - i / 10, "b": i / 10}}
                for i in range(6)
            ]

        monkeypatch.setattr(predict, "predict_scans", told)
        LinearHead(np.zeros((1, 3)), np.zeros(1), ("a", "b"), "binary", {}).save(tmp_path / "head")
        return tmp_path / "head"

    @pytest.fixture
    def labels(self, tmp_path):
        rows = ["file,label,patient,split", "5.png,b,P5,test", "0.png,a,P0,train", "3.png,b,P3,test"]
        (tmp_path / "labels.csv").write_text("\n".join(rows))
        return tmp_path / "labels.csv"

    def test_labelled(self, blindtune, head, labels, tmp_path):
        ran = blindtune("predict", head, tmp_path, "--labels", labels)
        assert ran.code == 0, ran.err
        rows = list(csv.DictReader(io.StringIO(ran.out)))
        assert [(row["case"], row["patient"], row["label"], row["b"]) for row in rows] == [
            ("0.png", "P0", "a", "0"),
            ("3.png", "P3", "b", "0.3"),
            ("5.png", "P5", "b", "0.5"),
        ]

    def test_one_split(self, blindtune, head, labels, tmp_path):
        out = tmp_path / "test.csv"
        assert (
            blindtune("predict", head, tmp_path, "--labels", labels, "--split", "test", "--out", out).code
            == 0
        )
        assert read_predictions(out).cases == ("3.png", "5.png")
        told = blindtune("predict", head, tmp_path, "--labels", labels, "--split", "test", "--json").out
        assert [row["file"] for row in json.loads(told)] == ["3.png", "5.png"]

    @pytest.mark.parametrize(
        ("change", "options", "words"),
        [
            (("", ""), ["--split", "val"], ["no scan has a label in the split 'val'"]),
            (("", ""), ["--split", "some"], ["splits are train, val and test"]),
            ((".png", ".dcm"), [], ["no scan has a label"]),
            ((",b,", ",c,"), [], ["2 scan(s) have a label that is no class"]),
            (("patient", "person"), [], ["no column 'patient'"]),
        ],
    )
    def test_unfit_tables(self, blindtune, head, labels, tmp_path, change, options, words):
        labels.write_text(labels.read_text().replace(*change))
        blindtune("predict", head, tmp_path, "--labels", labels, *options).refused(*words)

    def test_split_without_labels(self, blindtune, head, tmp_path):
        blindtune("predict", head, tmp_path, "--split", "test").refused("--labels")
