"""A tiny random timm model in place of a real backbone, and images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

ARCHITECTURE = "test_resnet"
SHARED = Path(__file__).parents[2].parent / "shared"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the smallest convolutional network that timm has, classifier included."""
    import timm
    import torch

    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(timm.create_model(ARCHITECTURE, num_classes=1000).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """37 files, of which the last has the same bytes as the first."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(11)
    paths = []
    for index in range(36):
        paths.append(folder / f"patient-{index}.npy")
        np.save(paths[-1], rng.random((20, 24), dtype=np.float32))
    paths.append(folder / "copy.npy")
    paths[-1].write_bytes(paths[0].read_bytes())
    return paths
