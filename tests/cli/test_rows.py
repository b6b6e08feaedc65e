"""``predict`` and ``evaluate`` with a head that several hospitals opened: rows of embeddings, no backbone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindtune.models.linear import LinearHead
from blindtune.models.softmax import probabilities
from blindtune.report import read_predictions
from tests.cli.conftest import Ran

Run = Callable[..., Ran]
CLASSES = ("a", "b", "c")


@pytest.fixture
def joint(tmp_path: Path) -> Path:
    """A joint study's directory after ``study open``."""
    rng = np.random.default_rng(2)
    head = LinearHead(rng.normal(size=(3, 6)), rng.normal(size=3), CLASSES, "multiclass")
    head.save(tmp_path / "joint" / "head")
    (tmp_path / "joint" / "private").mkdir()
    return tmp_path / "joint"


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Rows of a hospital that lacks a class, and numbers the others in another order."""
    rng = np.random.default_rng(3)
    labels = np.arange(40) % 2
    splits = np.array(["train"] * 24 + ["val"] * 6 + ["test"] * 10)
    rows = {"labels": labels, "classes": np.array(["c", "a"]), "splits": splits}
    patients = np.array([f"P{i // 2}" for i in range(40)])
    np.savez(tmp_path / "own.npz", embeddings=rng.normal(size=(40, 6)), patients=patients, **rows)
    return tmp_path / "own.npz"


def said(joint: Path, shard: Path) -> Any:
    """What the head says of all rows."""
    head = LinearHead.load(joint / "head")
    return probabilities(np.load(shard)["embeddings"] @ head.weight.T + head.bias)


def test_rows_without_labels(blindtune: Run, joint: Path, shard: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "new.npz", embeddings=np.load(shard)["embeddings"][:3])
    ran = blindtune("predict", joint / "head", tmp_path / "new.npz")
    assert ran.code == 0, ran.err
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert [row["case"] for row in rows] == ["row 0", "row 1", "row 2"]
    found = np.array([[float(row[name]) for name in CLASSES] for row in rows])
    exact = said(joint, shard)[:3]
    np.testing.assert_allclose(found, exact, atol=1e-4)
    assert [row["prediction"] for row in rows] == [CLASSES[k] for k in exact.argmax(axis=1)]
    told = blindtune("predict", joint / "head", tmp_path / "new.npz", "--json")
    assert [row["case"] for row in json.loads(told.out)] == ["row 0", "row 1", "row 2"]


def test_a_split_comes_with_patients_and_labels(
    blindtune: Run, joint: Path, shard: Path, tmp_path: Path
) -> None:
    out = tmp_path / "own.csv"
    assert blindtune("predict", joint / "head", shard, "--split", "test", "--out", out).code == 0
    found = read_predictions(out)
    assert (found.cases[0], found.patients[0], len(found)) == ("row 30", "P15", 10)
    assert [found.classes[k] for k in found.labels] == ["c", "a"] * 5
    np.testing.assert_allclose(found.probabilities, said(joint, shard)[30:], atol=1e-6)
    told = blindtune("predict", joint / "head", shard, "--split", "test", "--json")
    assert [row["case"] for row in json.loads(told.out)] == list(found.cases)


def test_evaluation_on_a_hospitals_own_test_rows(
    blindtune: Run, joint: Path, shard: Path, tmp_path: Path
) -> None:
    pytest.importorskip("scipy", reason="figures need it")
    ran = blindtune("evaluate", joint, "--embeddings", shard, "--predictions", tmp_path / "p", "--json")
    assert ran.code == 0, ran.err
    (figures,) = json.loads(ran.out)["heads"].values()
    right = said(joint, shard)[30:].argmax(axis=1) == np.array([2, 0] * 5)
    assert figures["figures"]["accuracy"]["value"] == pytest.approx(right.mean())
    assert figures["patients"] == 5
    assert len(read_predictions(tmp_path / "p" / "encrypted.csv")) == 10
    assert (joint / "report" / "report.html").stat().st_size > 10_000


def test_what_does_not_fit_is_told(
    blindtune: Run, joint: Path, shard: Path, tmp_path: Path, make_embeddings: Callable[..., Path]
) -> None:
    pytest.importorskip("scipy", reason="figures need it")
    strange, wide = tmp_path / "strange.npz", make_embeddings(tmp_path / "wide.npz")
    np.savez(strange, **{**np.load(shard), "classes": np.array(["c", "z"])})
    head = ("predict", joint / "head")
    blindtune("evaluate", joint).refused("no rows to evaluate it on", "--embeddings")
    blindtune("evaluate", joint, "--embeddings", strange).refused("a class that the study has not: z")
    blindtune("evaluate", joint / "head", "--embeddings", shard).refused("no head here")
    blindtune(*head, strange, "--split", "test").refused("a class that the study has not: z")
    blindtune(*head, wide).refused("the head takes 6 features")
    blindtune(*head, shard, "--split", "some").refused("no row is in the split 'some'")
    blindtune(*head, shard, "--labels", shard).refused("neither --labels nor --weights")
    blindtune(*head, tmp_path / "none.npz").refused("cannot be read")
