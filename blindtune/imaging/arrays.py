"""Embeddings that were made elsewhere, from an untrusted .npz file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blindtune.errors import InputError
from blindtune.imaging.splits import SPLITS, check_train_classes, complete_splits, draw_splits, split_name

MAX_ARRAY_BYTES = 2 << 30
"""Bytes that all arrays of a file may declare together."""

_LAYOUT = "Keys: embeddings (n, d), labels (n,), optionally splits, patients, classes; or train_x, train_y, …"


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Labelled feature vectors, rows in the order of the file.

    Attributes:
        features: float32 (n, d), finite.
        labels: int64 (n,), indices into ``classes``.
        classes: names of the classes, two or more; in a shard one may do.
        patients: (n,) ids; "row:i" where the file has none.
        splits: (n,) of 'train', 'val' or 'test'; no patient is in two.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    patients: tuple[str, ...]
    splits: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def named(self) -> bool:
        """Whether the file says whose rows they are."""
        return self.patients != _unnamed(len(self))

    def indices(self, split: str) -> npt.NDArray[np.intp]:
        """Rows of 'train', 'val' or 'test'."""
        return np.flatnonzero(self.splits == split)

    def labels_of(self, classes: Sequence[str]) -> npt.NDArray[np.int64]:
        """Labels as indices into other classes, which have the same names in an order of their own.

        Raises:
            InputError: a class that is not among them.
        """
        strange = [name for name in self.classes if name not in classes]
        if strange:
            raise InputError(
                f"a class that the study has not: {strange[0][:40]}",
                remedy=f"The study's classes are {', '.join(classes)}.",
            )
        return np.array([classes.index(name) for name in self.classes], np.int64)[self.labels]


def load_embeddings(path: str | Path, *, seed: int = 0, shard: bool = False) -> Embeddings:
    """Read embeddings and labels from an .npz file; nothing in it is ever unpickled.

    Either ``embeddings`` (n, d) and ``labels`` (n,), with optional ``splits``, ``patients`` (n,)
    and ``classes`` (names); or ``train_x``, ``train_y``, ``test_x``, ``test_y`` and optional ``val_x``,
    ``val_y``, ``classes``. Labels are whole numbers or names. Splits that are not given are drawn.

    Args:
        path: the .npz file.
        seed: which draw of splits.
        shard: the rows are one hospital's of several: classes may be without training rows, or be one.

    Raises:
        InputError: not such a file, NaN or infinity, shapes that do not fit, or splits as in ``load_cohort``.
    """
    path = Path(path)
    where = path.name
    arrays = _load_npz(path)
    if "embeddings" in arrays:
        features = _features(arrays, "embeddings", where)
        raw = _column(arrays, "labels", len(features), where)
        given = _column(arrays, "splits", len(features), where).astype(str) if "splits" in arrays else None
    else:
        parts = [name for name in SPLITS if f"{name}_x" in arrays]
        if "train" not in parts or "test" not in parts:
            raise InputError("no embeddings in the file", where=where, remedy=_LAYOUT)
        blocks = [_features(arrays, f"{name}_x", where) for name in parts]
        if len({block.shape[1] for block in blocks}) != 1:
            raise InputError("splits have unequal numbers of features", where=where, remedy=_LAYOUT)
        columns = [
            _column(arrays, f"{name}_y", len(block), where) for name, block in zip(parts, blocks, strict=True)
        ]
        if len({column.dtype.kind in "US" for column in columns}) != 1:
            raise InputError(
                "labels are numbers in one split and names in another", where=where, remedy=_LAYOUT
            )
        features, raw = np.concatenate(blocks), np.concatenate(columns)
        given = np.repeat(parts, [len(block) for block in blocks])
    labels, classes = _labels(raw, arrays.get("classes"), where)
    if "patients" in arrays:
        patients = tuple(_column(arrays, "patients", len(features), where).astype(str).tolist())
    else:
        patients = _unnamed(len(features))
    if given is None:
        splits = draw_splits(patients, labels, seed=seed)
    else:
        names = [split_name(str(word)) for word in given]
        if None in names:
            raise InputError("an unknown split name", where=where, remedy="Write train, val or test.")
        splits = complete_splits([name for name in names if name], patients, labels, seed=seed)
    if not shard:
        check_train_classes(labels, splits, classes)
    return Embeddings(features, labels, classes, patients, splits)


def load_features(path: Path) -> npt.NDArray[np.float32]:
    """The ``embeddings`` (n, d) of an .npz file, whose labels nobody has to know.

    Raises:
        InputError: not such a file, NaN or infinity.
    """
    arrays = _load_npz(path)
    if "embeddings" not in arrays:
        raise InputError("no array 'embeddings'", where=path.name, remedy=_LAYOUT)
    return _features(arrays, "embeddings", path.name)


def _unnamed(rows: int) -> tuple[str, ...]:
    """Patients of rows of which nobody said whose they are: one each."""
    return tuple(f"row:{i}" for i in range(rows))


def _load_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file whose every header was checked against the archive before memory is taken."""
    where = path.name
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if sum(info.file_size for info in members) > MAX_ARRAY_BYTES:
                raise InputError(
                    f"declares more than {MAX_ARRAY_BYTES >> 30} GiB of arrays",
                    where=where,
                    remedy="Split the study or store float32.",
                )
            for info in members:
                with archive.open(info) as member:
                    _check_header(member, info, where)
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror or 'damaged'})", where=where, remedy="Check the path."
        ) from error
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            "not a readable .npz file, or damaged", where=where, remedy="Write it again with numpy.savez."
        ) from error


def _check_header(member: Any, info: zipfile.ZipInfo, where: str) -> None:
    from numpy.lib import format as npy

    version = npy.read_magic(member)
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = reader(member)
    if dtype.kind not in "fiuUSb" or dtype.hasobject:
        raise InputError(
            f"array of type {dtype} in {info.filename}", where=where, remedy="Store numbers or plain text."
        )
    # A header may declare more than the archive holds; numpy would take the memory before it notices.
    declared = dtype.itemsize
    for length in shape:
        declared *= int(length)
    if declared + member.tell() != info.file_size:
        raise InputError(
            f"{info.filename} declares {declared} bytes and holds {info.file_size - member.tell()}",
            where=where,
            remedy="Write it again with numpy.savez.",
        )


def _features(arrays: Mapping[str, npt.NDArray[Any]], key: str, where: str) -> npt.NDArray[np.float32]:
    values = arrays[key]
    if values.ndim != 2 or values.dtype.kind not in "fiu" or 0 in values.shape:
        raise InputError(
            f"{key} is {values.dtype} {values.shape}, expected numbers (rows, features)",
            where=where,
            remedy=_LAYOUT,
        )
    with np.errstate(over="ignore"):
        features = values.astype(np.float32)
    if not np.isfinite(features).all():
        raise InputError(f"NaN or infinity in {key}", where=where, remedy="Drop these rows or impute them.")
    return features


def _column(arrays: Mapping[str, npt.NDArray[Any]], key: str, rows: int, where: str) -> npt.NDArray[Any]:
    if key not in arrays:
        raise InputError(f"no array '{key}'", where=where, remedy=_LAYOUT)
    column = arrays[key]
    if column.ndim == 2 and column.shape[1] == 1:  # MedMNIST stores labels so
        column = column[:, 0]
    if column.shape != (rows,):
        raise InputError(
            f"{key} has shape {arrays[key].shape}, expected ({rows},)", where=where, remedy=_LAYOUT
        )
    return column


def _labels(
    raw: npt.NDArray[Any], names: npt.NDArray[Any] | None, where: str
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Indices and class names; with ``names``, whole-number labels index them and names stand in them."""
    if raw.dtype.kind == "f" and np.isfinite(raw).all() and (raw == np.floor(raw)).all():
        raw = raw.astype(np.int64)
    if raw.dtype.kind not in "iuUSb":
        raise InputError("labels are not whole numbers or names", where=where, remedy=_LAYOUT)
    if names is None:
        present, labels = np.unique(raw, return_inverse=True)
        return labels.astype(np.int64), tuple(present.astype(str).tolist())
    if names.ndim != 1 or names.dtype.kind not in "US" or len(set(names.tolist())) != len(names):
        raise InputError("classes are not a list of distinct names", where=where, remedy=_LAYOUT)
    classes = tuple(names.astype(str).tolist())
    if raw.dtype.kind in "US":
        index = {name: i for i, name in enumerate(classes)}
        if not set(raw.astype(str).tolist()) <= index.keys():
            raise InputError("a label that classes does not name", where=where, remedy=_LAYOUT)
        return np.array([index[name] for name in raw.astype(str).tolist()], dtype=np.int64), classes
    if raw.min() < 0 or raw.max() >= len(classes):
        raise InputError("a label outside the list of classes", where=where, remedy=_LAYOUT)
    return raw.astype(np.int64), classes
