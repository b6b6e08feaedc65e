"""Networks that are trained end to end, as federated training needs them: one vector in, one vector out.

Normalisation with batch statistics does not fit data that differs between sites, and is unsound under
differential privacy. It is replaced by group normalisation (Wu and He 2018), or its parameters and
statistics stay at the site (Li et al. 2021, "FedBN").
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import ModelError
from blindtune.models.weights_file import read_weights

if TYPE_CHECKING:
    import torch

Norm = Literal["group", "local"]

GROUPS = 32
"""Most groups of a normalisation; the largest divisor of its channels up to it is taken."""


def build_network(
    name: str,
    classes: int,
    *,
    channels: int = 3,
    weights: Path | None = None,
    norm: Norm = "group",
    size: int | None = None,
) -> Any:
    """A timm network for so many classes.

    Args:
        name: in timm's registry.
        channels: of the images, 1 or 3; weights for three are summed for one.
        weights: a safetensors file of the network's pretrained weights; its head is left out. None for
            random weights.
        norm: what becomes of normalisation with batch statistics.
        size: side of the images in pixels, for networks that need to know.

    Returns:
        The torch module, in training mode.

    Raises:
        ModelError: an unknown network, or weights of another one.
    """
    import timm

    if name not in timm.list_models():
        raise ModelError("no network of this name", where=name, remedy="timm.list_models() lists them.")
    if channels not in (1, 3):
        raise ModelError(f"{channels} channels", where=name, remedy="Images have 1 or 3.")
    options = {"img_size": size} if size and "patch" in name else {}
    model = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels, **options)
    if weights is not None:
        _load(model, read_weights(weights), name)
    if norm == "group":
        _replace(model)
    return model.train()


def shared_names(model: Any, norm: Norm = "group") -> list[str]:
    """Parameters that sites average, in order: all, but those of normalisations that stay at the site."""
    kept = {
        f"{name}.{own}" if name else own
        for name, part in model.named_modules()
        if norm == "local" and _has_statistics(part)
        for own, _ in part.named_parameters(recurse=False)
    }
    return [name for name, p in model.named_parameters() if p.requires_grad and name not in kept]


def to_vector(model: Any, names: list[str]) -> NDArray[np.float32]:
    """The named parameters, one after the other."""
    found = dict(model.named_parameters())
    pieces = [found[n].detach().float().cpu().numpy().ravel() for n in names]
    return np.concatenate(pieces).astype(np.float32)


def from_vector(model: Any, names: list[str], values: NDArray[np.float32]) -> None:
    """Put a vector into the named parameters.

    Raises:
        ModelError: a vector of another length.
    """
    import torch

    found = dict(model.named_parameters())
    sizes = [found[n].numel() for n in names]
    if values.shape != (sum(sizes),):
        raise ModelError(f"{values.size:,} values for a network of {sum(sizes):,}", where="network")
    with torch.no_grad():
        for name, piece in zip(names, np.split(values, np.cumsum(sizes)[:-1]), strict=True):
            found[name].copy_(torch.from_numpy(np.array(piece)).view_as(found[name]))


def save_kept(model: Any, names: list[str], path: Path) -> None:
    """Write what of a network is not in ``names``: parameters and statistics that stay at a site."""
    from safetensors.torch import save_file

    save_file({n: v.contiguous() for n, v in model.state_dict().items() if n not in names}, path)


def load_kept(model: Any, names: list[str], path: Path) -> None:
    """Read what :func:`save_kept` wrote.

    Raises:
        ModelError: of another network.
    """
    found = read_weights(path)
    if found.keys() != model.state_dict().keys() - set(names):
        raise ModelError("what was kept is of another network", where=path.name, remedy="Remove the file.")
    model.load_state_dict(found, strict=False)


def _has_statistics(part: Any) -> bool:
    from torch import nn

    return isinstance(part, nn.modules.batchnorm._BatchNorm)


def _replace(model: Any) -> None:
    from torch import nn

    for parent in model.modules():
        for name, part in parent.named_children():
            if not _has_statistics(part):
                continue
            channels = part.num_features
            groups = next(g for g in range(min(GROUPS, channels), 0, -1) if channels % g == 0)
            group = nn.GroupNorm(groups, channels, eps=part.eps, affine=part.affine)
            if part.affine:
                group.load_state_dict({"weight": part.weight.data, "bias": part.bias.data})
            # timm's normalisations carry the activation that follows them.
            after = [
                getattr(part, x) for x in ("drop", "act") if isinstance(getattr(part, x, None), nn.Module)
            ]
            setattr(parent, name, nn.Sequential(group, *after) if after else group)


def _load(model: Any, found: dict[str, torch.Tensor], name: str) -> None:
    own = model.state_dict()
    usable = {}
    for key, value in found.items():
        if key not in own:
            continue
        if value.ndim == 4 and value.shape[1] == 3 and own[key].shape[1] == 1:
            value = value.sum(dim=1, keepdim=True)
        if value.shape == own[key].shape:
            usable[key] = value.float()
    head = {k for k in own if k.startswith(tuple(model.pretrained_cfg.get("classifier", "head").split(",")))}
    missing = own.keys() - usable.keys() - head - {k for k in own if k.endswith("num_batches_tracked")}
    if missing:
        raise ModelError(
            f"the weights lack {len(missing)} of the network's arrays",
            where=name,
            remedy="Give the file of this network and image size.",
        )
    model.load_state_dict({k: v for k, v in usable.items() if k not in head}, strict=False)
