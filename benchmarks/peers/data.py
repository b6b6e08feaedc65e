"""The tables that every peer gets: 400 training rows, columns standardised by them, and a test split."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TRAINING_ROWS = 400
COMPONENTS = 30


@dataclass(frozen=True)
class Table:
    """A two-class table, written where the peers read it.

    Attributes:
        name: of the case.
        path: .npz with train_x, train_y, test_x, test_y; labels are 0 and 1.
        rows: training rows.
        features: columns.
        test_y: labels of the test rows.
        baseline: accuracy and auc of converged plaintext logistic regression.
    """

    name: str
    path: Path
    rows: int
    features: int
    test_y: np.ndarray
    baseline: dict[str, float]


def figures(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Accuracy at a threshold of zero and the area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        return {"accuracy": float("nan"), "auc": float("nan")}
    return {
        "accuracy": float(((scores > 0) == (labels > 0)).mean()),
        "auc": float(roc_auc_score(labels, scores)),
    }


def converged(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> dict[str, float]:
    """Plaintext logistic regression, C chosen by five-fold cross-validation on the training rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(
        LogisticRegression(max_iter=10000),
        {"C": np.logspace(-4, 2, 13).tolist()},
        scoring="neg_log_loss",
        cv=5,
    )
    return figures(test_y, search.fit(x, y).decision_function(test_x))


def _half(x: np.ndarray, y: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """So many rows as indices, stratified, and the others."""
    from sklearn.model_selection import train_test_split

    first, second = train_test_split(np.arange(len(x)), train_size=rows, stratify=y, random_state=0)
    return first, second


def breast(work: Path, embeddings: Callable[[], Path]) -> tuple[np.ndarray, ...]:
    """scikit-learn's breast cancer table: 30 columns, 400 rows to train and 169 to test."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    y = 1 - y  # 1 is malignant
    train, test = _half(x, y, TRAINING_ROWS)
    return x[train], y[train], x[test], y[test]


def xrays(work: Path, embeddings: Callable[[], Path]) -> tuple[np.ndarray, ...]:
    """Normal against pneumonia: 400 of the training X-rays, all 192 features of DeiT-tiny."""
    from blindtune.imaging.arrays import load_embeddings

    found = load_embeddings(embeddings())
    x, y = found.features.astype(np.float64), np.array([found.classes[i] != "normal" for i in found.labels])
    train, test = found.indices("train"), found.indices("test")
    train = train[_half(x[train], y[train], TRAINING_ROWS)[0]]
    return x[train], y[train].astype(np.int64), x[test], y[test].astype(np.int64)


def xrays_components(work: Path, embeddings: Callable[[], Path]) -> tuple[np.ndarray, ...]:
    """The same rows on the first 30 principal directions of the training rows."""
    x, y, test_x, test_y = xrays(work, embeddings)
    mean = x.mean(axis=0)
    directions = np.linalg.svd(x - mean, full_matrices=False)[2][:COMPONENTS].T
    return (x - mean) @ directions, y, (test_x - mean) @ directions, test_y


CASES: dict[str, Callable[[Path, Callable[[], Path]], tuple[np.ndarray, ...]]] = {
    "breast": breast,
    "xrays": xrays_components,
    "xrays-192": xrays,
}


def table(name: str, work: Path, embeddings: Callable[[], Path]) -> Table:
    """Make a case's file in the work directory, once."""
    path = work / f"{name}.npz"
    if not path.is_file():
        x, y, test_x, test_y = CASES[name](work, embeddings)
        mean, spread = x.mean(axis=0), x.std(axis=0)
        x, test_x = (x - mean) / spread, (test_x - mean) / spread
        np.savez(path, train_x=x, train_y=y, test_x=test_x, test_y=test_y)
    with np.load(path, allow_pickle=False) as found:
        x, y, test_x, test_y = (found[k] for k in ("train_x", "train_y", "test_x", "test_y"))
    return Table(name, path, *x.shape, test_y, converged(x, y, test_x, test_y))


def embeddings_of(shared: Path, work: Path, blindtune: Callable[..., dict[str, Any]]) -> Path:
    """Embeddings of the X-rays, made by ``blindtune encrypt`` from the images."""
    study, folder = work / "embeddings-study", work / "images"
    kept = study / "private" / "embeddings.npz"
    if not kept.is_file():
        if not folder.is_dir():
            with zipfile.ZipFile(shared / "data" / "kermany_pcxr_256.zip") as archive:
                archive.extractall(folder)
        labels = next(folder.rglob("labels.csv"))
        weights = shared / "weights" / "deit_tiny_patch16_224.fp16.safetensors"
        options = ["--labels", str(labels), "--weights", str(weights), "--out", str(study)]
        blindtune("encrypt", str(labels.parent), *options)
    return kept
