"""Embeddings from .npz: layouts, and files that lie."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from blindtune.errors import InputError
from blindtune.imaging import load_embeddings

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 5))
Y = np.arange(40) % 2


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        path = tmp_path / "study.npz"
        np.savez_compressed(path, **arrays)
        return path

    return write


def test_plain_layout(save):
    study = load_embeddings(save(embeddings=X, labels=Y))
    assert study.features.dtype == np.float32
    assert study.features.shape == (40, 5)
    assert study.classes == ("0", "1")
    assert len(study) == len(set(study.patients)) == 40
    assert not study.named
    assert {str(s) for s in study.splits} == {"train", "val", "test"}


def test_names_patients_and_splits(save):
    patients = [f"p{i // 2}" for i in range(40)]
    splits = ["train"] * 30 + ["valid"] * 4 + ["test"] * 6
    names = np.array(["ill", "well"])[Y]
    study = load_embeddings(save(embeddings=X, labels=names, patients=patients, splits=splits))
    assert study.classes == ("ill", "well")
    assert study.labels.tolist() == Y.tolist()
    assert study.patients == tuple(patients)
    assert study.named
    assert [len(study.indices(s)) for s in ("train", "val", "test")] == [30, 4, 6]


def test_names_of_numbered_classes(save):
    study = load_embeddings(save(embeddings=X, labels=Y.astype(float), classes=["well", "ill"]))
    assert study.classes == ("well", "ill")
    assert study.labels.tolist() == Y.tolist()


def test_layout_by_split(save):
    # MedMNIST keeps its labels as a column.
    study = load_embeddings(save(train_x=X[:30], train_y=Y[:30, None], test_x=X[30:], test_y=Y[30:, None]))
    assert len(study.indices("test")) == 10
    assert len(study.indices("val")) == 4
    np.testing.assert_array_equal(study.features, X.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"embeddings": np.where(np.arange(5) == 2, np.nan, X)}, "NaN or infinity"),
        ({"embeddings": X * 1e300}, "NaN or infinity"),
        ({"embeddings": X[0]}, "expected numbers"),
        ({"embeddings": X.astype(str)}, "expected numbers"),
        ({"embeddings": X[:, :0]}, "expected numbers"),
        ({"embeddings": X.astype(complex)}, "array of type complex"),
        ({"labels": Y[:-1]}, r"labels has shape \(39,\)"),
        ({"labels": Y + 0.5}, "whole numbers"),
        ({"labels": Y * 0}, "only one class"),
        ({"classes": ["one"]}, "outside the list"),
        ({"classes": ["same", "same"]}, "distinct"),
        ({"splits": ["train"] * 40}, "no row is in the test"),
        ({"splits": ["elsewhere"] * 40}, "unknown split"),
        ({"patients": ["p"] * 40, "splits": ["train", "test"] * 20}, "more than one split"),
    ],
)
def test_refusals(save, change, reason):
    with pytest.raises(InputError, match=reason) as caught:
        load_embeddings(save(**({"embeddings": X, "labels": Y} | change)))
    assert "\n" not in str(caught.value)


def test_a_shard_may_lack_classes(save):
    splits = np.array(["train"] * 30 + ["test"] * 10)
    lacking = {"embeddings": X, "labels": np.where(splits == "train", 0, Y), "splits": splits}
    path = save(**lacking, classes=["well", "ill", "worse"])
    with pytest.raises(InputError, match="no training image of class ill, worse"):
        load_embeddings(path)
    shard = load_embeddings(path, shard=True)
    assert shard.classes == ("well", "ill", "worse")
    assert set(shard.labels[shard.indices("train")]) == {0}
    assert load_embeddings(save(embeddings=X, labels=["ill"] * 40), shard=True).classes == ("ill",)


def test_missing_arrays(save):
    with pytest.raises(InputError, match="no embeddings"):
        load_embeddings(save(features=X))
    with pytest.raises(InputError, match="no array 'labels'"):
        load_embeddings(save(embeddings=X))
    with pytest.raises(InputError, match="unequal numbers"):
        load_embeddings(save(train_x=X, train_y=Y, test_x=X[:, :4], test_y=Y))


def test_nothing_is_unpickled(save, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    with pytest.raises(InputError, match="array of type object"):
        load_embeddings(save(embeddings=X, labels=Y, patients=np.array([Trap()] * 40)))
    assert not (tmp_path / "sprung").exists()


def test_a_header_that_declares_more_than_the_file_holds(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 192)}
    )
    path = tmp_path / "liar.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("embeddings.npy", stream.getvalue() + bytes(100))
    with pytest.raises(InputError, match="declares 1536000000000 bytes and holds 100"):
        load_embeddings(path)


def test_sizes_are_limited(save, monkeypatch):
    monkeypatch.setattr("blindtune.imaging.arrays.MAX_ARRAY_BYTES", 1000)
    with pytest.raises(InputError, match="declares more than"):
        load_embeddings(save(embeddings=X, labels=Y))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(50), b"not a zip"])
def test_files_that_are_no_archive(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match="not a readable"):
        load_embeddings(tmp_path / "x.npz")
    with pytest.raises(InputError, match="cannot be read"):
        load_embeddings(tmp_path / "none.npz")


def test_damage(save):
    path = save(embeddings=X, labels=Y)
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError):
        load_embeddings(path)
