"""A small study under insecure parameters, trained here as a server would."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindtune.client.encrypt import encrypt_study
from blindtune.client.keyfile import read_key, write_key
from blindtune.client.prepare import prepare
from blindtune.client.study import StudyDirectory
from blindtune.he.secret import SecretKey
from blindtune.imaging import Embeddings
from blindtune.models.builtin import head_for
from blindtune.models.heads import Head
from blindtune.models.softmax import softmax
from blindtune.plan import insecure_test_parameters
from blindtune.wire.bundle import Bundle
from blindtune.wire.study import check_study, dumped, load_engine, load_trainer, write_head


def draw(rows: int = 100, classes: int = 3, seed: int = 0, separation: float = 1.5) -> Embeddings:
    """Classes that overlap a little, in six features; patients have two rows each."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) // 2 % classes
    features = rng.normal(size=(rows, 6)) + separation * rng.normal(size=(classes, 6))[labels]
    splits = np.array(["train", "train", "train", "val", "test"])[np.arange(rows) // 2 // classes % 5]
    patients = tuple(f"patient {i // 2}" for i in range(rows))
    names = tuple(f"class {k}" for k in range(classes))
    return Embeddings(features.astype(np.float32), labels, names, patients, splits)


@pytest.fixture(scope="session")
def draw_embeddings() -> Callable[..., Embeddings]:
    """:func:`draw`."""
    return draw


def run_training(keys: Path, data: Sequence[Path], head: Path, **changed: Any) -> None:
    """What the server does; ``changed`` fields of the program are its own idea."""
    from dataclasses import replace

    opened = [Bundle(path, insecure=True) for path in (keys, *data)]
    layout = check_study(opened[0].manifest, [b.manifest for b in opened[1:]])
    engine = load_engine(opened[0])
    manifest = opened[0].manifest
    program = replace(manifest.checked_program, **changed)
    trainer = load_trainer(engine, layout, opened[1:])
    write_head(head, manifest, dumped(trainer, trainer.train(program)))


@pytest.fixture(scope="session")
def train_bundles() -> Callable[..., None]:
    """:func:`run_training`."""
    return run_training


def encrypt_small(directory: StudyDirectory, head: Head | None = None, **given: Any) -> SecretKey:
    """Encrypt a study, of three classes unless given others, with a key of its own."""
    head = head or head_for("logistic", 3, learning_rates=(4.0, 4.0), degree=3)
    key = SecretKey.generate(insecure_test_parameters(head.program.levels))
    prepared = prepare(
        *(given.pop("data", draw()),),
        **{"head": head, "directions": [5], "parameters": key.parameters, **given},
    )
    directory.create()
    write_key(directory.key_file, key)
    encrypt_study(prepared, key, directory)
    return key


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = StudyDirectory(tmp_path_factory.mktemp("studies") / "study")
    encrypt_small(directory)
    run_training(directory.keys_bundle, [directory.data_bundle], directory.encrypted_head)
    return directory.root


@pytest.fixture(scope="session")
def _trained_softmax(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = StudyDirectory(tmp_path_factory.mktemp("studies") / "softmax")
    data = draw(400, 5, separation=1.0)
    # Half a class far out: the discriminant in clear is not the last word.
    data.features[(data.labels == 4) & (np.arange(400) // 10 % 2 == 0)] += 3
    encrypt_small(directory, softmax(), data=data, directions=[6])
    run_training(directory.keys_bundle, [directory.data_bundle], directory.encrypted_head)
    return directory.root


@pytest.fixture
def started(_trained_softmax: Path, tmp_path: Path) -> StudyDirectory:
    """A study of five classes under the softmax head, which starts in clear; its encrypted head came back."""
    return StudyDirectory(Path(shutil.copytree(_trained_softmax, tmp_path / "started")))


@pytest.fixture
def directory(_trained: Path, tmp_path: Path) -> StudyDirectory:
    """A study whose encrypted head came back."""
    return StudyDirectory(Path(shutil.copytree(_trained, tmp_path / "study")))


@pytest.fixture
def key(directory: StudyDirectory) -> SecretKey:
    """Its key."""
    return read_key(directory.key_file)


@pytest.fixture(scope="session")
def encrypt_to() -> Callable[..., SecretKey]:
    """:func:`encrypt_small`."""
    return encrypt_small
