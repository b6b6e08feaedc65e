"""A folder of scans and their labels → one checked list, before any work is done on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from blindtune.errors import InputError
from blindtune.imaging.formats import sniff_format
from blindtune.imaging.splits import check_train_classes, complete_splits, draw_splits, split_name
from blindtune.imaging.table import Row, read_table

_SUFFIXES = frozenset({".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg"})
_NOT_SCANS = frozenset({"DICOMDIR"})


@dataclass(frozen=True, eq=False)
class Cohort:
    """Labelled scans, the patient of each and its split; rows are in the order of ``files``.

    Attributes:
        files: (n,) paths.
        labels: int64 (n,), indices into ``classes``.
        classes: names of the classes, two or more.
        patients: (n,) ids; they never leave the hospital.
        splits: (n,) of 'train', 'val' or 'test'; no patient is in two.
        ignored: files in the folder that no label names.
        patient_source: where patients come from. 'file' means that nothing told them apart, so that
            two images of one person may stand in train and in test.
        split_source: 'given' by the user or 'drawn' by seed.
    """

    files: tuple[Path, ...]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    patients: tuple[str, ...]
    splits: npt.NDArray[np.str_]
    ignored: int = 0
    patient_source: Literal["table", "dicom", "file"] = "file"
    split_source: Literal["given", "drawn"] = "drawn"

    def __len__(self) -> int:
        return len(self.files)

    def indices(self, split: str) -> npt.NDArray[np.intp]:
        """Rows of 'train', 'val' or 'test'."""
        return np.flatnonzero(self.splits == split)


def load_cohort(
    scans: str | Path,
    labels: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> Cohort:
    """List the labelled scans of a folder, their patients and splits.

    Labels come from ``labels``, else from ``scans``/labels.csv, else from the folder names:
    ``class/file`` or ``split/class/file``. A patient comes from the table, else from the DICOM
    PatientID, else each file is a patient. Splits come from the table or folders, else 70/10/20
    is drawn by patient and seed; given splits without 'val' lose an eighth of train to it.

    Args:
        scans: folder of DICOM, PNG or JPEG files.
        labels: CSV with columns file,label and optionally patient,split; files relative to ``scans``
            or to the table.
        classes: order of the classes; sorted by name without it.
        seed: which draw of splits.

    Raises:
        InputError: an empty folder, a label without a file, a missing column, contradicting rows, a
            patient in two splits, fewer than two classes, or a class without a training image.
    """
    scans = Path(scans)
    found = list_scans(scans)
    table = Path(labels) if labels is not None else scans / "labels.csv"
    if labels is not None or table.is_file():
        rows = read_table(table)
        files = tuple(_locate(row.file, scans, table) for row in rows)
    else:
        files, rows = _from_folders(scans, found)
    ignored = len({file.resolve() for file in found} - {file.resolve() for file in files})
    names = _class_order(rows, classes)
    indices = np.array([names.index(row.label) for row in rows], dtype=np.int64)
    patients, patient_source = _patients(files, rows)
    given = [row.split for row in rows if row.split is not None]
    if given:
        splits = complete_splits(given, patients, indices, seed=seed)
    else:
        splits = draw_splits(patients, indices, seed=seed)
    check_train_classes(indices, splits, names)
    return Cohort(
        files, indices, names, patients, splits, ignored, patient_source, "given" if given else "drawn"
    )


def list_scans(folder: Path) -> list[Path]:
    """The scans in a folder and its subfolders, sorted.

    Raises:
        InputError: not a folder, or none in it.
    """
    if not folder.is_dir():
        raise InputError("not a folder", where=str(folder), remedy="Name the folder that holds the scans.")
    found = list(_scan_files(folder))
    if not found:
        raise InputError(
            "no DICOM, PNG or JPEG file in the folder", where=str(folder), remedy="Name the folder of scans."
        )
    return found


def _scan_files(folder: Path) -> Iterator[Path]:
    """Files that look like scans, sorted; hidden ones are left out, nameless suffixes are sniffed."""
    for root, directories, names in os.walk(folder):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            if name.startswith(".") or name in _NOT_SCANS:
                continue
            suffix = path.suffix.lower()
            # Archives name DICOM files by UID: the "suffix" is then a number, or there is none.
            if suffix in _SUFFIXES or (
                (suffix[1:].isdigit() or not suffix) and sniff_format(path) == "dicom"
            ):
                yield path


def _locate(name: str, scans: Path, table: Path) -> Path:
    """The file that a table row names, inside the folder of scans."""
    root = scans.resolve()
    for base in (scans, table.parent):
        path = base / name
        if path.is_file():
            if path.resolve().is_relative_to(root):
                return path
            raise InputError(
                f"{name} is outside the folder of scans", where=table.name, remedy="Move it inside."
            )
    raise InputError(
        f"a label without a file: {name}",
        where=table.name,
        remedy="Add the file or delete its line; file names are relative to the folder of scans.",
    )


def _from_folders(scans: Path, found: list[Path]) -> tuple[tuple[Path, ...], tuple[Row, ...]]:
    """Rows of a tree class/… or split/class/…; files that lie above the classes are left out."""
    tops = {path.relative_to(scans).parts[0] for path in found if len(path.relative_to(scans).parts) > 1}
    by_split = bool(tops) and all(split_name(top) for top in tops)
    files, rows = [], []
    for path in found:
        parts = path.relative_to(scans).parts
        if len(parts) < 2 + by_split:
            continue
        split = split_name(parts[0]) if by_split else None
        files.append(path)
        rows.append(Row("/".join(parts), parts[int(by_split)], None, split))
    if not rows:
        raise InputError(
            "scans without labels",
            where=str(scans),
            remedy="Add a labels.csv with columns file,label, or put each class into its own folder.",
        )
    return tuple(files), tuple(rows)


def _class_order(rows: Sequence[Row], order: Sequence[str] | None) -> tuple[str, ...]:
    present = sorted({row.label for row in rows})
    if order is None:
        return tuple(present)
    if sorted(order) != present:
        raise InputError(
            f"classes {', '.join(order)} asked for, but the labels hold {', '.join(present)}",
            where="classes",
            remedy="Name each class of the labels once.",
        )
    return tuple(order)


def _patients(
    files: Sequence[Path], rows: Sequence[Row]
) -> tuple[tuple[str, ...], Literal["table", "dicom", "file"]]:
    if rows[0].patient is not None:
        return tuple(row.patient or "" for row in rows), "table"
    from blindtune.imaging.dicom import read_patient_id

    tagged = [read_patient_id(file) if sniff_format(file) == "dicom" else "" for file in files]
    source: Literal["dicom", "file"] = "dicom" if all(tagged) else "file"
    # The prefix keeps a file without a PatientID from meeting a patient of that name.
    return tuple(tag or f"file:{row.file}" for tag, row in zip(tagged, rows, strict=True)), source
