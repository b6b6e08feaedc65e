"""Which backbones exist under which name, and where the weights of the embedded ones lie."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from blindtune.errors import ModelError

__all__ = ["DEFAULT_BACKBONE", "EMBEDDED", "EmbeddedModel", "embedded_weights"]

DEFAULT_BACKBONE = "deit_tiny_patch16_224"


@dataclass(frozen=True)
class EmbeddedModel:
    """A timm architecture with other arguments, whose weights ship inside this package.

    Attributes:
        architecture: name in timm's registry.
        arguments: what ``timm.create_model`` gets beside the name.
        mean, std: normalisation of the three channels, for pixels in [0, 1].
        weights: file name under ``blindtune/models/weights``.
        summary: one line for a list of models.
    """

    architecture: str
    weights: str
    summary: str
    arguments: Mapping[str, int] = field(default_factory=dict)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


EMBEDDED: Mapping[str, EmbeddedModel] = MappingProxyType(
    {
        "blindtune_deit_96": EmbeddedModel(
            architecture="deit_tiny_patch16_224",
            arguments=MappingProxyType({"img_size": 96, "patch_size": 12, "depth": 6}),
            weights="blindtune_deit_96.safetensors",
            summary="DeiT-tiny halved and distilled on chest X-rays, 96 pixels, 192 features, in the package",
        ),
    }
)


def embedded_weights(name: str) -> AbstractContextManager[Path]:
    """A context that yields the path of an embedded model's safetensors file, unpacked if need be.

    Raises:
        ModelError: no embedded model has this name, or the installation lacks the file.
    """
    if name not in EMBEDDED:
        raise ModelError(
            "no embedded model has this name",
            where=name,
            remedy=f"Choose one of {', '.join(sorted(EMBEDDED))}",
        )
    file = importlib.resources.files("blindtune.models") / "weights" / EMBEDDED[name].weights
    if not file.is_file():
        raise ModelError(
            "the installed package lacks its weights",
            where=EMBEDDED[name].weights,
            remedy="Reinstall blindtune",
        )
    return importlib.resources.as_file(file)
