"""Loading: what comes out, and one line for each thing that goes wrong."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from blindtune.errors import ModelError
from blindtune.models import EMBEDDED, load_backbone
from blindtune.models.registry import embedded_weights

from .conftest import ARCHITECTURE, SHARED

DEIT = SHARED / "weights" / "deit_tiny_patch16_224.fp16.safetensors"
EMBEDDED_LIMIT_BYTES = 6_000_000


def refused(name: str, weights: Path | None = None, device: str = "cpu") -> str:
    with pytest.raises(ModelError) as caught:
        load_backbone(name, weights, device)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return str(caught.value)


def test_backbone_describes_the_network(weights: Path) -> None:
    backbone = load_backbone(ARCHITECTURE, weights)
    assert (backbone.name, backbone.device) == (ARCHITECTURE, "cpu")
    assert backbone.size == backbone.model.pretrained_cfg["input_size"][1]
    assert backbone.mean == tuple(backbone.model.pretrained_cfg["mean"])
    assert backbone.dimension == backbone.model.num_features
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())


def test_embed_is_the_normalised_network_of_three_equal_channels(weights: Path) -> None:
    backbone = load_backbone(ARCHITECTURE, weights)
    grey = np.random.default_rng(1).random((2, backbone.size, backbone.size), dtype=np.float32)
    for image, features in zip(grey, backbone.embed(grey), strict=True):
        channels = [(image - m) / s for m, s in zip(backbone.mean, backbone.std, strict=True)]
        expected = backbone.model(torch.tensor(np.stack(channels)[None])).detach().numpy()[0]
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_fingerprint_follows_name_and_weights(weights: Path, tmp_path: Path) -> None:
    first = load_backbone(ARCHITECTURE, weights).fingerprint
    assert len(first) == 64
    assert first == load_backbone(ARCHITECTURE, str(weights)).fingerprint
    state = load_file(weights)
    key = next(name for name, value in state.items() if value.is_floating_point())
    state[key].view(-1)[0] += 1e-3
    save_file(state, tmp_path / "other.safetensors")
    assert first != load_backbone(ARCHITECTURE, tmp_path / "other.safetensors").fingerprint


def test_truncated_weights(weights: Path, tmp_path: Path) -> None:
    content = weights.read_bytes()
    for size in (0, 5, 200, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.safetensors").write_bytes(content[:size])
        assert "truncated or damaged" in refused(ARCHITECTURE, tmp_path / "cut.safetensors")


def test_pickled_checkpoint_is_not_opened(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "model.pth")
    assert "pickled" in refused(ARCHITECTURE, tmp_path / "model.pth")


def test_missing_file(tmp_path: Path) -> None:
    assert "No such file" in refused(ARCHITECTURE, tmp_path / "absent.safetensors")


@pytest.mark.parametrize("fault", ["shape", "missing", "surplus", "nan"])
def test_weights_that_do_not_fit(weights: Path, tmp_path: Path, fault: str) -> None:
    state = load_file(weights)
    key = next(name for name, value in state.items() if value.ndim == 4)
    if fault == "shape":
        state[key] = state[key][:, :, :1].contiguous()
    elif fault == "missing":
        del state[key]
    elif fault == "surplus":
        state["elsewhere.weight"] = torch.zeros(1)
    else:
        state[key].view(-1)[3] = torch.nan
    save_file(state, tmp_path / "bad.safetensors")
    words = {"shape": "shape", "missing": "1 missing", "surplus": "1 surplus", "nan": "NaN"}
    assert words[fault] in refused(ARCHITECTURE, tmp_path / "bad.safetensors")


def test_unknown_names_and_devices(weights: Path) -> None:
    assert "deit_tiny_patch16_224" in refused("deit_tiny_patch")
    assert "knows no such model" in refused("hf-hub:somebody/model")
    assert "device nonsense" in refused(ARCHITECTURE, weights, "nonsense")


def test_offline_without_weights_fails_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import httpx
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)

    def no_network(*_: object, **__: object) -> None:
        raise httpx.ConnectError("Name or service not known")

    monkeypatch.setattr(httpx, "head", no_network)
    started = time.monotonic()
    assert "--weights PATH" in refused("deit_tiny_patch16_224")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused("deit_tiny_patch16_224")
    assert time.monotonic() - started < 5


def test_cached_hub_weights_need_no_network(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(weights))
    assert load_backbone(ARCHITECTURE).fingerprint == load_backbone(ARCHITECTURE, weights).fingerprint


@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_embedded_model_loads_offline(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def no_socket(*_: object, **__: object) -> None:
        raise AssertionError("an embedded model must not reach for the network")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(socket, "create_connection", no_socket)
    with embedded_weights(name) as path:
        assert path.stat().st_size <= EMBEDDED_LIMIT_BYTES
    backbone = load_backbone(name)
    grey = np.random.default_rng(2).random((3, backbone.size, backbone.size), dtype=np.float32)
    features = backbone.embed(grey)
    assert features.shape == (3, 192)
    assert np.isfinite(features).all()
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_shared_deit_tiny_loads() -> None:
    if not DEIT.is_file():
        pytest.skip(f"the shared weights are absent: {DEIT}")
    backbone = load_backbone("deit_tiny_patch16_224", DEIT)
    assert (backbone.size, backbone.dimension) == (224, 192)
    assert np.isfinite(backbone.embed(np.full((1, 224, 224), 0.5, np.float32))).all()


def test_import_is_light() -> None:
    code = "import sys, blindtune.models; print(sorted({'torch', 'timm', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
