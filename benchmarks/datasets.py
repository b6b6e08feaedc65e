"""What the cases train on: real embeddings of shared images, and synthetic features of published shapes.

Embeddings are made once into the work directory; nothing of the data is kept in the repository.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


APART = 3.5
"""Standard deviations between two classes' centres, whatever the features: heads reach 85 to 95 %."""


def weights_of(shared: Path) -> Path:
    """DeiT-tiny."""
    return shared / "weights" / "deit_tiny_patch16_224.fp16.safetensors"


def xrays(shared: Path, work: Path) -> list[str]:
    """The paediatric chest X-rays, from the images, DeiT-tiny at 224 px: arguments of ``encrypt``."""
    folder = work / "xrays"
    if not folder.is_dir():
        with zipfile.ZipFile(shared / "data" / "kermany_pcxr_256.zip") as archive:
            archive.extractall(folder)
    table = next(folder.rglob("labels.csv"))
    return [str(table.parent), "--labels", str(table), "--weights", str(weights_of(shared))]


def pneumoniamnist(shared: Path, work: Path) -> list[str]:
    """PneumoniaMNIST's 28-pixel images, DeiT-tiny at 224 px."""
    return [str(embeddings(shared, work, "pneumoniamnist", "pneumoniamnist_28.npz", 224, _splits))]


def mnist(shared: Path, work: Path) -> list[str]:
    """All of MNIST as HETAL splits it, 52,500 / 7,500 / 10,000, DeiT-tiny at 96 px."""
    return [str(embeddings(shared, work, "mnist_full", "mnist.npz", 96, _mnist))]


def synthetic(work: Path, rows: int, features: int, classes: int) -> list[str]:
    """Gaussian classes that overlap, of any size; the seed depends on the size alone."""
    path = work / f"synthetic-{rows}-{features}-{classes}.npz"
    if not path.is_file():
        rng = np.random.default_rng([rows, features, classes])
        # Spectra of embeddings fall off, and neighbouring classes overlap by some percent.
        spread = np.arange(1, features + 1) ** -0.5
        centres = rng.normal(size=(classes, features)) * spread * APART * 2.5 / np.sqrt(2 * features)
        held = max(500, min(2000, rows // 5))
        columns: dict[str, np.ndarray] = {}
        for split, n in (("train", rows), ("val", held), ("test", held)):
            y = rng.permutation(np.arange(n) % classes)
            noise = rng.normal(size=(n, features)) * spread * 2.5
            columns[f"{split}_x"], columns[f"{split}_y"] = (centres[y] + noise).astype(np.float32), y
        np.savez(path, **columns)
    return [str(path)]


def embeddings(
    shared: Path, work: Path, name: str, file: str, size: int, read: Callable[[Any], Arrays]
) -> Path:
    """Embeddings of small images given as arrays, made once in the work directory."""
    target = work / f"{name}.npz"
    if target.is_file():
        return target
    import timm
    import torch
    from PIL import Image

    network = timm.create_model(
        "deit_tiny_patch16_224",
        pretrained=True,
        num_classes=0,
        img_size=size,
        pretrained_cfg_overlay={"file": str(weights_of(shared))},
    ).eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    columns: dict[str, np.ndarray] = {}
    for split, (images, labels) in read(np.load(shared / "data" / file)).items():
        out = []
        for start in range(0, len(images), 64):
            resized = [
                np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BICUBIC), np.float32)
                / 255
                for i in images[start : start + 64]
            ]
            with torch.inference_mode():
                grey = torch.from_numpy(np.stack(resized)).unsqueeze(1)
                out.append(network((grey - mean) / std).numpy())
        columns[f"{split}_x"], columns[f"{split}_y"] = np.concatenate(out), labels
    np.savez(target, **columns)
    return target


def _splits(found: Any) -> Arrays:
    return {s: (found[f"{s}_images"], found[f"{s}_labels"].ravel()) for s in ("train", "val", "test")}


def _mnist(found: Any) -> Arrays:
    order = np.random.default_rng(0).permutation(60000)
    train, held = order[:52500], order[52500:]
    x, y = found["x_train"], found["y_train"]
    return {
        "train": (x[train], y[train]),
        "val": (x[held], y[held]),
        "test": (found["x_test"], found["y_test"]),
    }
