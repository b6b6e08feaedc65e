"""Linear heads: logits, probabilities, files, and as the classifier of a timm model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from blindtune.errors import InputError, ModelError
from blindtune.models.linear import LinearHead, attach_head

RNG = np.random.default_rng(0)
THREE = LinearHead(
    RNG.normal(size=(3, 8)), RNG.normal(size=3), ("a", "b", "c"), "multiclass", {"name": "x"}, {"steps": 3}
)
BINARY = LinearHead(RNG.normal(size=(1, 8)), RNG.normal(size=1), ("no", "yes"), "binary")
X = RNG.normal(size=(20, 8))


def test_logits_and_probabilities() -> None:
    z = THREE.logits(X)
    np.testing.assert_allclose(z[4], THREE.weight @ X[4] + THREE.bias)
    p = THREE.probabilities(X)
    np.testing.assert_allclose(p, np.exp(z) / np.exp(z).sum(axis=1, keepdims=True))
    q = BINARY.probabilities(X)
    np.testing.assert_allclose(q[:, 1], 1 / (1 + np.exp(-BINARY.logits(X)[:, 0])))
    np.testing.assert_allclose(q.sum(axis=1), 1)
    labels = LinearHead(THREE.weight, THREE.bias, THREE.classes, "multilabel").probabilities(X)
    np.testing.assert_allclose(labels, 1 / (1 + np.exp(-z)))


def test_extreme_logits_stay_finite() -> None:
    for head in (THREE, BINARY):
        p = head.probabilities(X * 1e4)
        assert np.isfinite(p).all()
        assert ((p >= 0) & (p <= 1)).all()


@pytest.mark.parametrize("shape", [(3, 7), (8,), (2, 2, 8)])
def test_embeddings_of_another_dimension(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="the head takes 8 features"):
        THREE.logits(np.zeros(shape))


@pytest.mark.parametrize("head", [THREE, BINARY])
def test_save_and_load(tmp_path: Path, head: LinearHead) -> None:
    head.save(tmp_path / "head")
    again = LinearHead.load(tmp_path / "head")
    np.testing.assert_allclose(again.weight, head.weight, rtol=1e-6)
    np.testing.assert_allclose(again.bias, head.bias, rtol=1e-6)
    assert (again.classes, again.kind) == (head.classes, head.kind)
    assert (again.backbone, again.provenance) == (head.backbone, head.provenance)
    assert sorted(p.name for p in (tmp_path / "head").iterdir()) == ["head.json", "head.safetensors"]


def edit(directory: Path, **changes: object) -> None:
    path = directory / "head.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def weights(directory: Path, **tensors: np.ndarray) -> None:
    save_file(tensors, directory / "head.safetensors")


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: (d / "head.json").write_text("{"),
        lambda d: (d / "head.json").write_text("[]"),
        lambda d: (d / "head.json").write_bytes(b"\xff\xfe"),
        lambda d: (d / "head.json").write_bytes(b" " * (1 << 21)),
        lambda d: (d / "head.json").write_text("[" * 100_000),
        lambda d: edit(d, classes=["a", "b"]),
        lambda d: edit(d, classes=7),
        lambda d: edit(d, kind="binary"),
        lambda d: edit(d, backbone=None),
        lambda d: (d / "head.safetensors").write_bytes(b"junk"),
        lambda d: (d / "head.safetensors").write_bytes((d / "head.safetensors").read_bytes()[:-4]),
        lambda d: weights(d, weight=np.zeros((3, 8))),
        lambda d: weights(d, weight=np.zeros(8), bias=np.zeros(3)),
        lambda d: weights(d, weight=np.zeros((3, 8)), bias=np.zeros(2)),
        lambda d: weights(d, weight=np.full((3, 8), np.nan), bias=np.zeros(3)),
        lambda d: weights(d, weight=np.zeros((3, 8)), bias=np.full(3, np.inf)),
    ],
)
def test_damage_is_refused(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    THREE.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError, match="damaged"):
        LinearHead.load(tmp_path)


def test_a_missing_head(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no head here"):
        LinearHead.load(tmp_path)
    THREE.save(tmp_path)
    (tmp_path / "head.safetensors").unlink()
    with pytest.raises(ModelError, match="no head here"):
        LinearHead.load(tmp_path)


def test_as_the_classifier_of_a_timm_model(tmp_path: Path) -> None:
    import torch
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=2, num_classes=5
    ).eval()
    images = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        features = model.forward_head(model.forward_features(images), pre_logits=True).numpy()
        for head in (THREE, BINARY):
            head.save(tmp_path / head.kind)
            assert attach_head(model, tmp_path / head.kind) is model
            np.testing.assert_allclose(model(images).numpy(), head.logits(features), atol=1e-5)


def test_a_model_of_another_width(tmp_path: Path) -> None:
    from timm.models.vision_transformer import VisionTransformer

    THREE.save(tmp_path)
    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2)
    with pytest.raises(ModelError, match="does not take 8 features"):
        attach_head(model, tmp_path)
