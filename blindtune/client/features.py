"""Scans to labelled embeddings: the cohort through the backbone, cached in the study's private directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.imaging import Cohort, Embeddings, prepare, read_image
from blindtune.models import extract, load_backbone


def load_scan(path: Path, size: int) -> NDArray[np.float32]:
    """A scan as the backbone wants it: centre crop, never squashed; (size, size) in [0, 1]."""
    return prepare(read_image(path), size)


def embed_cohort(
    cohort: Cohort,
    backbone: str,
    weights: Path | None,
    cache: Path,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Embeddings, dict[str, Any]]:
    """Embed every scan of a cohort.

    Returns:
        The embeddings, and the backbone's name, fingerprint and input size for the head's provenance.

    Raises:
        ModelError: no weights, or weights that do not fit.
        InputError: an unreadable scan.
    """
    network = load_backbone(backbone, weights)
    features = extract(network, cohort.files, load=load_scan, cache=cache, progress=progress)
    origin = {"name": network.name, "fingerprint": network.fingerprint, "size": network.size}
    return Embeddings(features, cohort.labels, cohort.classes, cohort.patients, cohort.splits), origin
