"""Frozen networks that turn an image into a feature vector: any timm model, or the one in this package.

Weights come from safetensors files only: nothing here unpickles. torch and timm take seconds to
import, so they are imported by the calls that need them.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blindtune.errors import ModelError
from blindtune.models.registry import DEFAULT_BACKBONE, EMBEDDED, EmbeddedModel, embedded_weights
from blindtune.models.weights_file import read_weights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

__all__ = ["Backbone", "load_backbone"]

HUB_TIMEOUT_S = 4.0


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network with its preparation.

    Attributes:
        name: timm's name, or that of an embedded model.
        size: side of the square input, pixels.
        mean, std: normalisation of the three channels, for pixels in [0, 1].
        dimension: number of features, d.
        fingerprint: 64 hex digits, SHA-256 of name, size, normalisation and every weight. Features of two
            backbones with the same fingerprint are interchangeable, up to rounding.
        device: where the network runs, in torch's words.
        model: the torch module, in evaluation mode, without gradients.
    """

    name: str
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dimension: int
    fingerprint: str
    device: str
    model: Any

    def embed(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Features (n, d) of greyscale images (n, size, size) in [0, 1], grey repeated to three channels."""
        import torch

        with torch.inference_mode():
            grey = torch.from_numpy(images).to(self.device).unsqueeze(1)
            out: torch.Tensor = self.model((grey - _channels(self.mean, grey)) / _channels(self.std, grey))
            return out.float().cpu().numpy()


def load_backbone(
    name: str = DEFAULT_BACKBONE, weights: str | Path | None = None, device: str = "cpu"
) -> Backbone:
    """Load a frozen backbone.

    Args:
        name: an embedded model (``blindtune_deit_96``, needs no network) or any name in timm's registry.
        weights: a safetensors file; without it the package, the Hugging Face cache or the hub is asked.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...

    Raises:
        ModelError: unknown name or device; weights out of reach, damaged, of another model, or not finite;
            a network that does not take square three-channel images or gives no feature vector.
    """
    import torch

    target = _checked_device(device)
    if name in EMBEDDED:
        model, config = _build(EMBEDDED[name].architecture, EMBEDDED[name])
    else:
        model, config = _build(name, None)
    size = _square_size(name, config)
    if weights is not None:
        state = read_weights(Path(weights))
    elif name in EMBEDDED:
        with embedded_weights(name) as path:
            state = read_weights(path)
    else:
        state = read_weights(_hub_weights(name, config))
    where = name if weights is None else Path(weights).name
    _load_strictly(model, state, config.get("classifier") or (), where)
    model.eval().requires_grad_(False)
    mean, std = tuple(config["mean"]), tuple(config["std"])
    fingerprint = _fingerprint(name, size, mean, std, model.state_dict())
    model.to(target)
    with torch.inference_mode():
        probe = model(torch.zeros(1, 3, size, size, device=target))
    if not isinstance(probe, torch.Tensor) or probe.ndim != 2:
        raise ModelError(
            "gives no feature vector", where=name, remedy="Choose an image classifier from timm's list."
        )
    return Backbone(name, size, mean, std, int(probe.shape[1]), fingerprint, str(target), model)


def _channels(values: tuple[float, float, float], like: torch.Tensor) -> torch.Tensor:
    return like.new_tensor(values).view(1, 3, 1, 1)


def _checked_device(device: str) -> torch.device:
    import torch

    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            "torch cannot compute on this device", where=f"device {device}", remedy="Use --device cpu."
        ) from error
    return target


def _build(architecture: str, embedded: EmbeddedModel | None) -> tuple[Any, dict[str, Any]]:
    """The network without classifier and with untrained weights, and timm's configuration of it."""
    import timm

    if not timm.is_model(architecture):
        names = [*EMBEDDED, *timm.list_models()]
        longer = [known for known in names if known.startswith(architecture)]
        close = longer[:3] or difflib.get_close_matches(architecture, names, n=3)
        hint = f"Did you mean {' or '.join(close)}?" if close else "timm.list_models() shows the names."
        raise ModelError("timm knows no such model", where=architecture, remedy=hint)
    arguments = {} if embedded is None else dict(embedded.arguments)
    try:
        model = timm.create_model(architecture, pretrained=False, num_classes=0, **arguments)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise ModelError(
            f"timm cannot build it as a feature extractor ({_first_line(error)})",
            where=architecture,
            remedy="Choose an image classifier from timm's list.",
        ) from error
    config = dict(model.pretrained_cfg)
    if embedded is not None:
        side = embedded.arguments["img_size"]
        config |= {"input_size": (3, side, side), "mean": embedded.mean, "std": embedded.std}
    return model, config


def _square_size(name: str, config: Mapping[str, Any]) -> int:
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        raise ModelError(
            f"takes {channels}×{height}×{width} input, not three square channels",
            where=name,
            remedy="Choose another backbone.",
        )
    return int(height)


def _hub_weights(name: str, config: Mapping[str, Any]) -> Path:
    """Path of the model's safetensors file in the Hugging Face cache, fetched if the hub answers."""
    import httpx
    import huggingface_hub as hub

    remedy = "Give --weights PATH to a safetensors file, or choose blindtune_deit_96, which needs none."
    repository, _, revision = str(config.get("hf_hub_id") or "").partition("@")
    if not repository:
        raise ModelError("its weights are not on the Hugging Face hub", where=name, remedy=remedy)
    file = "model.safetensors"
    cached = hub.try_to_load_from_cache(repository, file, revision=revision or None)
    if isinstance(cached, str):
        return Path(cached)
    where = f"{name} ({repository}/{file})"
    if hub.constants.HF_HUB_OFFLINE:
        raise ModelError("weights are not in the cache and HF_HUB_OFFLINE is set", where=where, remedy=remedy)
    try:
        # The hub's client retries for half a minute before it admits that there is no network.
        httpx.head(hub.constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
        return Path(hub.hf_hub_download(repository, file, revision=revision or None))
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"weights are not in the cache and cannot be downloaded ({type(error).__name__})",
            where=where,
            remedy=remedy,
        ) from error


def _load_strictly(
    model: Any, state: dict[str, torch.Tensor], classifier: str | tuple[str, ...], where: str
) -> None:
    """Copy ``state`` into the model; every tensor must fit, only a classifier may be left over."""
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    wanted = model.state_dict()
    given = {
        key: value
        for key, value in state.items()
        if key in wanted or not any(key.startswith(f"{head}.") for head in heads)
    }
    remedy = "These are the weights of another model, or of another version of it."
    missing, surplus = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or surplus:
        problem = f"lack {missing[0]}" if missing else f"hold {surplus[0]}, which the model has not"
        raise ModelError(
            f"the weights {problem} ({len(missing)} missing, {len(surplus)} surplus)",
            where=where,
            remedy=remedy,
        )
    for key, value in given.items():
        if value.shape != wanted[key].shape:
            shapes = f"{tuple(value.shape)} instead of {tuple(wanted[key].shape)}"
            raise ModelError(f"{key} has the shape {shapes}", where=where, remedy=remedy)
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ModelError(f"{key} holds NaN or infinity", where=where, remedy="Get the file again.")
    model.load_state_dict(given, strict=True)


def _fingerprint(
    name: str,
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    state: Mapping[str, torch.Tensor],
) -> str:
    digest = hashlib.sha256(repr((name, size, mean, std)).encode())
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(repr((key, str(value.dtype), tuple(value.shape))).encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:120] if lines else type(error).__name__
