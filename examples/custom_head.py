"""A head of your own in a few lines: a cauchit regression, trained on ciphertexts.

The provider learns the polynomial's degree and the number of steps; the activation, the learning rate
and the class weights stay inside ciphertexts. Run with ``python examples/custom_head.py``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import blindtune as bt


def cauchit(z: np.ndarray) -> np.ndarray:
    """The Cauchy distribution function less a half: wrong labels pull less than under a logistic."""
    return np.arctan(z) / np.pi


head = bt.Head(
    name="cauchit",
    kind="binary",
    activation=cauchit,
    targets=lambda labels, outputs: labels.reshape(-1, 1) - 0.5,
    degree=3,
    interval=10.0,
    learning_rates=(4.0, 4.0, 4.0),
)


def main(directory: Path) -> float:
    """Train on the breast-cancer table that scikit-learn ships; returns the test accuracy."""
    table = load_breast_cancer()
    splits = np.full(len(table.target), "train")
    rest, test = train_test_split(
        np.arange(len(splits)), test_size=0.25, random_state=0, stratify=table.target
    )
    splits[test], splits[rest[::8]] = "test", "val"
    scaled = (table.data - table.data.mean(axis=0)) / table.data.std(axis=0)
    data = bt.Embeddings(
        features=scaled.astype(np.float32),
        labels=table.target.astype(np.int64),
        classes=tuple(table.target_names),
        patients=tuple(map(str, range(len(splits)))),
        splits=splits,
    )

    # At the hospital: rehearse in clear, plan, encrypt.
    prepared = bt.prepare(data, head=head)
    key = bt.SecretKey.generate(prepared.plan.parameters)
    study = bt.StudyDirectory(directory)
    bt.encrypt_study(prepared, key, study)

    # At the provider: `blindtune serve` does this; here it runs on the spot, without the secret key.
    bt.train_here(study.keys_bundle, [study.data_bundle], study.encrypted_head, cores=2)

    # Back at the hospital.
    opened = bt.open_head(study, key)
    predicted = opened.head.logits(data.features[data.indices("test")])[:, 0] > 0
    accuracy = float((predicted == data.labels[data.indices("test")]).mean())
    print(f"test accuracy {accuracy:.3f}; weights differ from clear by {100 * opened.deviation:.2f} %")
    return accuracy


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch) / "study")
