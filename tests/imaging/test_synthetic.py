"""The synthetic cohort: valid DICOM, the same for the same seed, and no class outside the lungs."""

from __future__ import annotations

import csv

import numpy as np
import pydicom
import pytest

from blindtune.errors import InputError
from blindtune.imaging import SYNTHETIC_CLASSES, load_cohort, read_image, write_synthetic_cohort
from blindtune.imaging.anatomy import Anatomy, Exposure
from blindtune.imaging.phantom import render
from blindtune.imaging.synthetic import draw_severity


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "cohort"
    write_synthetic_cohort(folder, patients=30, seed=3)
    return folder


def test_it_loads_as_a_cohort(folder):
    cohort = load_cohort(folder)
    assert cohort.classes == SYNTHETIC_CLASSES
    assert (cohort.patient_source, cohort.split_source, cohort.ignored) == ("table", "given", 0)
    assert len(set(cohort.patients)) == 30 < len(cohort)
    for name in ("train", "val", "test"):
        assert set(cohort.labels[cohort.indices(name)]) == {0, 1, 2}


def test_pictures_use_the_range_and_have_dark_lungs(folder):
    for file in load_cohort(folder).files[:12]:
        image = read_image(file)
        height, width = image.shape
        assert 256 <= height <= 320
        assert 256 <= width <= 320
        assert np.ptp(image) > 0.5
        spine = image[height // 3 : height // 2, width // 2 - 5 : width // 2 + 5].mean()
        assert spine > image[height // 3 : height // 2, width // 5 : 2 * width // 5].mean()


def test_tags(folder):
    kinds = set()
    for file in sorted(folder.glob("*.dcm")):
        dataset = pydicom.dcmread(file)
        assert dataset.PatientName == f"Synthetic^{dataset.PatientID}"
        assert dataset.Manufacturer == "blindtune synthetic"
        assert (dataset.BodyPartExamined, dataset.BitsStored, dataset.BitsAllocated) == ("CHEST", 12, 16)
        assert dataset.pixel_array.max() < 4096
        kinds.add((dataset.Modality, dataset.ViewPosition, dataset.PhotometricInterpretation))
    assert {kind[0] for kind in kinds} == {"CR", "DX"}
    assert {kind[1] for kind in kinds} == {"AP", "PA"}
    assert {kind[2] for kind in kinds} == {"MONOCHROME1", "MONOCHROME2"}


def test_same_seed_same_bytes(folder, tmp_path):
    write_synthetic_cohort(tmp_path, patients=30, seed=3)
    for file in [*sorted(folder.glob("*.dcm"))[:5], folder / "labels.csv"]:
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_tags_and_sizes_do_not_know_the_class(folder, tmp_path, monkeypatch):
    """Give every patient another class: each byte outside the pixels stays."""
    turned = ("focal-opacity", "clear", "diffuse-pattern")
    monkeypatch.setattr("blindtune.imaging.synthetic.SYNTHETIC_CLASSES", turned)
    write_synthetic_cohort(tmp_path, patients=30, seed=3)
    with (folder / "labels.csv").open() as before, (tmp_path / "labels.csv").open() as after:
        assert all(
            a[1] != b[1]
            for a, b in zip(list(csv.reader(before))[1:], list(csv.reader(after))[1:], strict=True)
        )
    for file in sorted(folder.glob("*.dcm"))[:12]:
        ours, theirs = pydicom.dcmread(file), pydicom.dcmread(tmp_path / file.name)
        assert ours.pixel_array.tobytes() != theirs.pixel_array.tobytes()
        del ours.PixelData, theirs.PixelData
        assert ours == theirs


def test_findings_are_drawn_inside_the_chest_only():
    rng = np.random.default_rng(0)
    anatomy, exposure = Anatomy.draw(rng), Exposure.draw(rng, portable=False)
    pictures = {}
    for finding in SYNTHETIC_CLASSES:
        pictures[finding] = render((128, 160), anatomy, exposure, finding, 3.0, np.random.default_rng(5))
    for finding in ("focal-opacity", "diffuse-pattern"):
        change = np.abs(pictures[finding] - pictures["clear"])
        assert change[40:90, 30:130].mean() > 2 * change[:10].mean()


def test_difficulty_lowers_severity():
    means = [np.mean([draw_severity(np.random.default_rng(i), d) for i in range(50)]) for d in (0, 0.5, 1)]
    assert means[0] > means[1] > means[2] > 0


def test_refusals(folder, tmp_path):
    with pytest.raises(InputError, match=r"holds a labels\.csv"):
        write_synthetic_cohort(folder)
    for bad in ({"patients": 3}, {"difficulty": 2.0}, {"seed": -1}):
        with pytest.raises(InputError):
            write_synthetic_cohort(tmp_path / "x", **bad)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_synthetic_cohort(tmp_path / "file" / "x", patients=10)
