"""Prediction with a decrypted head, at the hospital, in clear."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from blindtune.client.features import load_scan
from blindtune.errors import InputError
from blindtune.imaging import list_scans
from blindtune.models.linear import LinearHead


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
            remedy="Use LinearHead.probabilities on embeddings of the same kind.",
        )
    network = load_backbone(str(head.backbone["name"]), weights)
    if network.fingerprint != head.backbone["fingerprint"]:
        raise InputError(
            "these backbone weights are not the ones that the head was trained on",
            remedy="Give the same --weights as blindtune encrypt had.",
        )
    files = [scans] if scans.is_file() else list_scans(scans)
    features = extract(network, files, load=load_scan, cache=None, progress=progress)
    probabilities = head.probabilities(features)
    best = np.argmax(probabilities, axis=1)
    return [
        {
            "file": str(path.relative_to(scans) if scans.is_dir() else path.name),
            "prediction": head.classes[k],
            "probabilities": dict(zip(head.classes, map(float, p), strict=True)),
        }
        for path, k, p in zip(files, best, probabilities, strict=True)
    ]
