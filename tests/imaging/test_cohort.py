"""Cohorts: where labels, patients and splits come from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blindtune.errors import InputError
from blindtune.imaging import load_cohort


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return path


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.fixture
def scans(tmp_path):
    """Ten patients of two pictures, half of them ill."""
    for patient in range(10):
        for image in range(2):
            picture(tmp_path / "scans" / f"p{patient}_{image}.png")
    return tmp_path / "scans"


def lines(header: str = "file,label,patient", tail: str = "") -> str:
    rows = [f"p{p}_{i}.png,{'ill' if p % 2 else 'well'},P{p}{tail}" for p in range(10) for i in range(2)]
    return "\n".join([header, *rows]) + "\n"


def test_table_beside_the_scans(scans):
    table(scans, lines())
    cohort = load_cohort(scans)
    assert len(cohort) == 20
    assert cohort.classes == ("ill", "well")
    assert cohort.labels.dtype == np.int64
    assert cohort.files[2].name == "p1_0.png"
    assert cohort.labels[2] == 0
    assert (cohort.patient_source, cohort.split_source, cohort.ignored) == ("table", "drawn", 0)
    assert sum(len(cohort.indices(name)) for name in ("train", "val", "test")) == 20
    for patient in set(cohort.patients):
        assert len({s for p, s in zip(cohort.patients, cohort.splits, strict=True) if p == patient}) == 1


@pytest.mark.parametrize(
    "text",
    [
        lines("File, LABEL ,Patient_ID"),
        lines("filename,class,patient id"),
        lines().replace(",", ";"),
        lines().replace(",", "\t"),
        lines("file,label,patient,extra", ",1"),
        "\ufeff" + lines(),
        lines().replace("\n", "\r\n"),
        lines() + "\n\n",
        lines() + "p0_0.png,well,P0\n",
    ],
)
def test_tables_as_people_write_them(scans, text):
    table(scans, text)
    cohort = load_cohort(scans)
    assert (len(cohort), cohort.classes, cohort.patient_source) == (20, ("ill", "well"), "table")


def test_table_elsewhere_with_names_relative_to_itself(scans):
    path = table(scans.parent, lines().replace("\np", "\nscans/p"))
    assert load_cohort(scans, path).files[0] == scans / "p0_0.png"


def test_unlabelled_files_are_counted(scans):
    table(scans, "\n".join(lines().splitlines()[:-3]))
    assert load_cohort(scans).ignored == 3


def test_order_of_classes(scans):
    table(scans, lines())
    assert load_cohort(scans, classes=("well", "ill")).labels[0] == 0
    with pytest.raises(InputError, match="asked for"):
        load_cohort(scans, classes=("well", "sick"))


def test_given_splits_are_kept(scans):
    rows = lines("file,label,patient,split").splitlines()
    split = ["", *["train"] * 12, *["validation"] * 4, *["TEST"] * 4]
    table(scans, "\n".join([rows[0], *[f"{r},{s}" for r, s in zip(rows[1:], split[1:], strict=True)]]))
    cohort = load_cohort(scans)
    assert cohort.split_source == "given"
    assert cohort.splits.tolist() == ["train"] * 12 + ["val"] * 4 + ["test"] * 4


def test_validation_is_taken_from_train_where_none_is_given(scans):
    rows = lines("file,label,patient,split").splitlines()
    table(
        scans, "\n".join([rows[0], *[f"{r},{'train' if i < 16 else 'test'}" for i, r in enumerate(rows[1:])]])
    )
    cohort = load_cohort(scans)
    assert len(cohort.indices("test")) == 4
    assert len(cohort.indices("val")) == 4
    assert not {cohort.patients[i] for i in cohort.indices("val")} & {
        cohort.patients[i] for i in cohort.indices("train")
    }


def test_a_torn_patient_is_refused_and_not_named(scans):
    rows = lines("file,label,patient,split").splitlines()
    table(
        scans, "\n".join([rows[0], *[f"{r},{'train' if i % 2 else 'test'}" for i, r in enumerate(rows[1:])]])
    )
    with pytest.raises(InputError, match=r"10 patient\(s\) stand in more than one split") as caught:
        load_cohort(scans)
    assert "P1" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no column 'file'"),
        ("file,patient\na,b\n", "no column 'label'"),
        ("file,label\n", "no rows"),
        (lines() + "gone.png,ill,P3\n", "a label without a file: gone.png"),
        (lines() + "p0_0.png,ill,P0\n", "line 22 contradicts"),
        (lines() + "p0_0.png,,P0\n", "line 22 has no label"),
        (lines().replace("ill", "well"), "only one class"),
        (lines("file,label,patient,split", ",somewhere"), "split 'somewhere'"),
        (lines("file,label,patient,split", ",train"), "no row is in the test split"),
        (lines() + '"p0_0.png,well\n', "not a CSV"),
        (lines() + "../secret.png,ill,P0\n", "outside the folder"),
    ],
)
def test_bad_tables(scans, text, reason):
    picture(scans.parent / "secret.png")
    table(scans, text)
    with pytest.raises(InputError, match=reason) as caught:
        load_cohort(scans)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_class_without_training_images(scans):
    rows = lines("file,label,patient,split").splitlines()
    table(scans, "\n".join([rows[0], *[f"{r},{'test' if 'ill' in r else 'train'}" for r in rows[1:]]]))
    with pytest.raises(InputError, match="no training image of class ill"):
        load_cohort(scans)


def test_table_that_is_not_text(scans):
    table(scans, lines().replace("ill", "krank-überall"), encoding="latin-1")
    with pytest.raises(InputError, match="UTF-8"):
        load_cohort(scans)


def test_folders_that_do_not_do(tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        load_cohort(tmp_path / "none")
    with pytest.raises(InputError, match="no DICOM, PNG or JPEG"):
        load_cohort(tmp_path)
    picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="scans without labels"):
        load_cohort(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        load_cohort(tmp_path, tmp_path / "none.csv")


def test_class_folders(tmp_path):
    for name in ("b", "a"):
        for i in range(10):
            picture(tmp_path / name / "deeper" / f"{i}.png")
    picture(tmp_path / "stray.png")
    (tmp_path / "a" / ".hidden.png").write_bytes(b"")
    cohort = load_cohort(tmp_path)
    assert (len(cohort), cohort.classes, cohort.ignored, cohort.patient_source) == (20, ("a", "b"), 1, "file")
    assert len(set(cohort.patients)) == 20


def test_split_and_class_folders(tmp_path):
    for split in ("train", "valid", "test"):
        for name in ("b", "a"):
            picture(tmp_path / split / name / "x.png")
    cohort = load_cohort(tmp_path)
    assert cohort.split_source == "given"
    assert cohort.classes == ("a", "b")
    assert {str(s) for s in cohort.splits} == {"train", "val", "test"}


def test_patients_from_dicom(tmp_path, save_radiograph):
    values = np.zeros((4, 4), np.uint16)
    text = "file,label\n"
    for patient in range(6):
        for image in range(2):
            # Archives name files by UID, without a suffix that says DICOM.
            save_radiograph(values, name=f"1.2.{patient}.{image}", PatientID=f"H{patient}")
            text += f"1.2.{patient}.{image},{'ab'[patient % 2]}\n"
    table(tmp_path, text)
    cohort = load_cohort(tmp_path)
    assert cohort.patient_source == "dicom"
    assert sorted(set(cohort.patients)) == [f"H{i}" for i in range(6)]
    assert cohort.ignored == 0


def test_real_cohort(shared, tmp_path):
    import zipfile

    with zipfile.ZipFile(shared("data/kermany_pcxr_256.zip")) as archive:
        archive.extractall(tmp_path)
    cohort = load_cohort(tmp_path)
    assert [len(cohort.indices(name)) for name in ("train", "val", "test")] == [1097, 157, 310]
    assert cohort.classes == ("bacterial", "normal", "viral")
