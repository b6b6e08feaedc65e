"""Prediction with a decrypted head, at the hospital, in clear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.client.features import load_scan
from blindtune.errors import InputError
from blindtune.imaging import list_scans
from blindtune.imaging.arrays import load_embeddings, load_features
from blindtune.imaging.splits import split_name
from blindtune.models.linear import LinearHead
from blindtune.report import Predictions


def predict_scans(
    head: LinearHead,
    scans: Path,
    weights: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Classify a scan or every scan of a folder.

    Returns:
        For each scan ``file``, ``prediction`` and ``probabilities`` by class.

    Raises:
        InputError: no scans, an unreadable one, or a backbone other than the head's.
        ModelError: the backbone's weights cannot be had.
    """
    from blindtune.models import extract, load_backbone

    if not head.backbone:
        raise InputError(
            "this head was trained on ready embeddings, so no backbone is known",
            remedy="Give an .npz of embeddings of the same kind instead of scans.",
        )
    network = load_backbone(str(head.backbone["name"]), weights)
    if network.fingerprint != head.backbone["fingerprint"]:
        raise InputError(
            "these backbone weights are not the ones that the head was trained on",
            remedy="Give the same --weights as blindtune encrypt had.",
        )
    files = [scans] if scans.is_file() else list_scans(scans)
    features = extract(network, files, load=load_scan, cache=None, progress=progress)
    names = [str(path.relative_to(scans) if scans.is_dir() else path.name) for path in files]
    return _told(head, "file", names, features)


def predict_rows(head: LinearHead, embeddings: Path) -> list[dict[str, Any]]:
    """Classify the rows of an .npz file, which need no labels.

    Returns:
        For each row ``case`` (``row 0`` and so on), ``prediction`` and ``probabilities`` by class.

    Raises:
        InputError: not such a file, or rows of another number of features.
    """
    features = load_features(embeddings)
    return _told(head, "case", [row_name(i) for i in range(len(features))], features)


def predict_split(head: LinearHead, embeddings: Path, split: str) -> Predictions:
    """Classify the rows of a split of an .npz file, for comparison with their labels.

    Args:
        split: train, val or test.

    Raises:
        InputError: not such a file, an unknown or empty split, a class that the head has not.
    """
    data, wanted = load_embeddings(embeddings, shard=True), split_name(split)
    rows = data.indices(wanted or "")
    if not len(rows):
        raise InputError(
            f"no row is in the split '{split}'",
            where=embeddings.name,
            remedy="Splits are train, val and test.",
        )
    return Predictions(
        head.classes,
        tuple(row_name(i) for i in rows),
        tuple(data.patients[i] for i in rows),
        data.labels_of(head.classes)[rows],
        head.probabilities(data.features[rows]),
    )


def row_name(row: int) -> str:
    """What tables of predictions call a row of embeddings."""
    return f"row {row}"


def _told(
    head: LinearHead, key: str, names: Sequence[str], features: NDArray[np.float32]
) -> list[dict[str, Any]]:
    """What a head says of each row of features."""
    probabilities = head.probabilities(features)
    return [
        {
            key: name,
            "prediction": head.classes[k],
            "probabilities": dict(zip(head.classes, map(float, p), strict=True)),
        }
        for name, k, p in zip(names, np.argmax(probabilities, axis=1), probabilities, strict=True)
    ]
