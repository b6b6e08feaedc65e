"""Planning for a release, and releasing, at the terminal."""

from __future__ import annotations

import json

import numpy as np
import pytest


@pytest.fixture
def embeddings(tmp_path):
    """A small set of embeddings in two classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    x = rng.normal(size=(120, 6)) + 1.5 * labels[:, None]
    splits = np.array(["train", "train", "train", "val", "test"])[np.arange(120) // 2 % 5]
    path = tmp_path / "embeddings.npz"
    np.savez(
        path, embeddings=x.astype(np.float32), labels=labels, classes=np.array(["a", "b"]), splits=splits
    )
    return path


def test_a_study_is_planned_trained_and_released(blindtune, embeddings, tmp_path):
    from blindtune.client.study import StudyDirectory
    from blindtune.wire.study import train_here

    study = StudyDirectory(tmp_path / "study")
    # One step: SEAL itself evaluates at these parameters, and takes its time.
    options = "--release", "--steps", 1, "--directions", 5, "--json"
    ran = blindtune("encrypt", embeddings, "--out", study.root, *options)
    assert ran.code == 0, ran.err
    assert "unknown" in json.loads(ran.out)["predicted_training"]
    train_here(study.keys_bundle, [study.data_bundle], study.encrypted_head)
    first = blindtune("release", study.root, "--json")
    told = json.loads(first.out)
    assert told["bits_of_precision"] > 8
    assert told["error_checked_on_this_head"]
    assert json.loads(blindtune("release", study.root, "--json").out) == told
    assert "bits of precision" in blindtune("release", study.root).out


def test_a_key_for_several_studies_serves_no_release(blindtune, embeddings, tmp_path):
    assert blindtune("keygen", "--out", tmp_path / "keys", "--steps", 1).code == 0
    key = tmp_path / "keys" / "secret.key"
    ran = blindtune("encrypt", embeddings, "--out", tmp_path / "study", "--release", "--key", key)
    ran.refused("--key", "may serve other studies")
    assert not (tmp_path / "study").exists()
