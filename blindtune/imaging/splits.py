"""Train, validation and test: drawn by patient, or checked where they are given."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from blindtune.errors import InputError

SPLITS = ("train", "val", "test")

_SYNONYMS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_TEST_SHARE = 0.2
_VAL_SHARE = 0.1
_VAL_SHARE_OF_TRAIN = _VAL_SHARE / (1 - _TEST_SHARE)


def split_name(word: str) -> str | None:
    """'train', 'val' or 'test' for a word that names one of them, None for another word."""
    return _SYNONYMS.get(word.strip().lower())


def draw_splits(
    patients: Sequence[str], labels: npt.NDArray[np.int64], *, seed: int = 0
) -> npt.NDArray[np.str_]:
    """70/10/20 by patient, stratified by the patient's commonest label.

    A patient's place depends on a hash of the seed and the patient, so it does not depend on the
    order of the rows. A class of one patient goes to train, of two to train and test.

    Args:
        patients: one id a row.
        labels: (n,) class index a row.
        seed: which draw.

    Returns:
        (n,) of 'train', 'val' or 'test'.
    """
    place = {}
    for group in _strata(patients, labels, seed):
        count = len(group)
        tests = max(1, round(_TEST_SHARE * count)) if count >= 2 else 0
        vals = max(1, round(_VAL_SHARE * count)) if count >= 3 else 0
        for rank, patient in enumerate(group):
            place[patient] = "test" if rank < tests else "val" if rank < tests + vals else "train"
    return np.array([place[patient] for patient in patients], dtype="<U5")


def complete_splits(
    given: Sequence[str], patients: Sequence[str], labels: npt.NDArray[np.int64], *, seed: int = 0
) -> npt.NDArray[np.str_]:
    """Check given splits; where none is 'val', take an eighth of the training patients for it.

    Args:
        given: (n,) of 'train', 'val' or 'test'.
        patients: one id a row.
        labels: (n,) class index a row.
        seed: which validation patients.

    Returns:
        (n,) of 'train', 'val' or 'test'.

    Raises:
        InputError: a patient in two splits, or no row for train or for test.
    """
    splits = np.array(list(given), dtype="<U5")
    seen: dict[str, str] = {}
    torn = {p for p, s in zip(patients, given, strict=True) if seen.setdefault(p, s) != s}
    if torn:
        # The message may reach a log that leaves the hospital: it counts patients, and names none.
        raise InputError(
            f"{len(torn)} patient(s) stand in more than one split",
            where="split",
            remedy="Put all images of a patient into one split, or leave the split column out.",
        )
    for name in ("train", "test"):
        if name not in splits:
            raise InputError(
                f"no row is in the {name} split",
                where="split",
                remedy="Give rows to train and to test, or leave the splits out and they are drawn.",
            )
    if "val" not in splits:
        train = np.flatnonzero(splits == "train").tolist()
        chosen: set[str] = set()
        for group in _strata([patients[i] for i in train], labels[train], seed):
            count = len(group)
            chosen.update(group[: max(1, round(_VAL_SHARE_OF_TRAIN * count)) if count >= 2 else 0])
        splits[[i for i in train if patients[i] in chosen]] = "val"
    return splits


def check_train_classes(
    labels: npt.NDArray[np.int64], splits: npt.NDArray[np.str_], classes: Sequence[str]
) -> None:
    """Refuse fewer than two classes, or a class without a training row.

    Raises:
        InputError: as said.
    """
    if len(classes) < 2:
        raise InputError(
            f"only one class ({', '.join(classes) or 'none'})",
            where="labels",
            remedy="A classifier needs images of two or more classes.",
        )
    counts = np.bincount(labels[splits == "train"], minlength=len(classes))
    missing = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if missing:
        raise InputError(
            f"no training image of class {', '.join(missing)}",
            where="split",
            remedy="Add images of it to train, or remove the class.",
        )


def _strata(patients: Sequence[str], labels: npt.NDArray[np.int64], seed: int) -> list[list[str]]:
    """Patients grouped by their commonest label, each group in the order of the seeded hash."""
    votes: dict[str, Counter[int]] = {}
    for patient, label in zip(patients, labels.tolist(), strict=True):
        votes.setdefault(patient, Counter())[label] += 1
    groups: dict[int, list[str]] = {}
    for patient, counter in votes.items():
        label = min(counter, key=lambda k: (-counter[k], k))
        groups.setdefault(label, []).append(patient)

    def key(patient: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{patient}".encode()).digest()

    return [sorted(groups[label], key=key) for label in sorted(groups)]
