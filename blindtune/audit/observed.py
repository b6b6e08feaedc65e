"""What an attacker sees of images: gradients of one, of a site's step, of a secure sum, and with noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import ModelError
from blindtune.models.networks import Norm, build_network, shared_names
from blindtune.privacy.mechanism import Mechanism

if TYPE_CHECKING:
    import torch

Mode = Literal["training", "evaluation"]
Gradient = list["torch.Tensor"]
"""One tensor for each array of parameters that the attack looks at."""

LARGEST = 150_000
"""Values of the largest arrays that the attack compares: those beyond are deep in a network, where little of
the place of a pixel is left, and cost most of the time."""


@dataclass(frozen=True)
class Sight:
    """What an attacker sees: the sum of so many sites' steps over so many images, and the noise in it.

    Attributes:
        name: of the protection.
        images: of each site in the step.
        sites: in the sum; 1 without secure aggregation.
        clip: length that each image's gradient is cut to; 0 for none.
        noise: standard deviation of the noise over the clip.
        statistics: whether the batch's own statistics are seen beside the gradient, as they are where sites
            average them; blindtune's sites keep them.
    """

    name: str
    images: int = 1
    sites: int = 1
    clip: float = 0.0
    noise: float = 0.0
    statistics: bool = False

    @property
    def together(self) -> int:
        """Images in what is seen."""
        return self.images * self.sites


class Network:
    """A network in training, as the coordinator and every site know it.

    Args:
        name: in timm's registry.
        classes: how many.
        side: of the images in pixels.
        norm: see :class:`~blindtune.federation.agreement.NetworkModel`.
        mode: whether normalisation uses a batch's statistics or those that the network keeps.
        seed: of its weights, which are random; residual branches are open, as they are in training.

    Attributes:
        module: the torch module, in the mode.
        mean, std: that are taken out of pixels in [0, 1].
        shared: names of the parameters that sites send.
        looked_at: names of those that the attack compares.

    Raises:
        ModelError: an unknown network, or one that cannot learn from a single image of this side.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        side: int,
        *,
        norm: Norm = "group",
        mode: Mode = "training",
        seed: int = 0,
    ) -> None:
        import torch

        self.name, self.side, self.mean, self.std = name, side, 0.5, 0.25
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module: Any = build_network(name, classes, channels=1, norm=norm, size=side)
        self.module.train(mode == "training")
        parameters = dict(self.module.named_parameters())
        self.shared = shared_names(self.module, norm)
        self.looked_at = [n for n in self.shared if parameters[n].numel() <= LARGEST]
        for part in self.module.modules():
            # timm starts residual branches shut: their layers have no gradient until training opens them.
            if hasattr(part, "zero_init_last"):
                _open(part)
            # The fused kernel has no second derivative, which the attack needs.
            if hasattr(part, "fused_attn"):
                part.fused_attn = False
            # An image that is looked at twice must not change the network's own statistics.
            if hasattr(part, "momentum") and hasattr(part, "running_mean"):
                part.momentum = 0.0
        try:
            self.gradient(torch.zeros(1, 1, side, side), torch.zeros(1, dtype=torch.long))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ModelError(
                f"it cannot learn from one image of {side} px ({str(error)[:100]})",
                where=name,
                remedy="Choose another side, or evaluation mode.",
            ) from None

    def gradient(
        self, pixels: torch.Tensor, labels: torch.Tensor, *, sites: int = 1, differentiable: bool = False
    ) -> Gradient:
        """Mean gradient of the loss over the sites' steps, by the parameters that the attack looks at.

        Args:
            pixels: in [0, 1], shape (sites * images, 1, side, side).
            labels: shape (sites * images,).
            sites: whose batches are normalised apart.
            differentiable: by the pixels, for the attack.
        """
        return self._gradient(pixels, labels, self.looked_at, sites, differentiable)

    def sight(
        self, pixels: torch.Tensor, labels: torch.Tensor, what: Sight, seed: int | None = None
    ) -> Gradient:
        """What the attacker sees of these images; clipped and with noise as a site of the federation does it.

        The noise of coordinates that the attack does not look at is not drawn: they are independent.
        """
        if not what.clip:
            return self.gradient(pixels, labels, sites=what.sites)
        length = sum(p.numel() for n, p in self.module.named_parameters() if n in self.shared)
        mechanism = Mechanism(length, what.clip, what.noise or 1e-6)
        looked_at = set(self.looked_at)
        total: NDArray[np.int64] = np.zeros(0, np.int64)
        shapes = []
        for image, label in zip(pixels[:, None], labels[:, None], strict=True):
            found = self._gradient(image, label, self.shared, 1, False)
            whole = mechanism.whole(np.concatenate([g.numpy().ravel() for g in found])[None])[0]
            ends = np.cumsum([g.numel() for g in found])[:-1]
            pieces = [p for n, p in zip(self.shared, np.split(whole, ends), strict=True) if n in looked_at]
            shapes = [g.shape for n, g in zip(self.shared, found, strict=True) if n in looked_at]
            one = np.concatenate(pieces)
            total = total + one if len(total) else one
        if what.noise:
            # Nothing of this is released, and from 64 steps on both distributions are one; an exact draw of
            # millions takes minutes.
            draw = np.random.default_rng(seed).normal(0, mechanism.scale, len(total))
            total = total + np.rint(draw).astype(np.int64)
        return _parts(total * mechanism.step / len(pixels), shapes)

    def outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of images in [0, 1], shape (n, classes)."""
        found: torch.Tensor = self.module((pixels - self.mean) / self.std)
        return found

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the classifier is given of images in [0, 1], shape (n, d)."""
        inner = self.module.forward_features((pixels - self.mean) / self.std)
        found: torch.Tensor = self.module.forward_head(inner, pre_logits=True)
        return found

    def statistics(self, pixels: torch.Tensor) -> torch.Tensor:
        """Means and logarithms of variances that batch normalisations find in these images, shape (d,)."""
        import torch

        found: list[torch.Tensor] = []

        def keep(_part: Any, given: tuple[torch.Tensor, ...]) -> None:
            variance, mean = torch.var_mean(given[0], dim=(0, 2, 3), correction=0)
            found.extend((mean, variance.clamp_min(1e-9).log()))

        parts = [p for p in self.module.modules() if isinstance(p, torch.nn.modules.batchnorm._BatchNorm)]
        hooks = [p.register_forward_pre_hook(keep) for p in parts]
        try:
            with torch.no_grad():
                self.outputs(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat(found) if found else torch.zeros(0)

    def _gradient(
        self,
        pixels: torch.Tensor,
        labels: torch.Tensor,
        names: Sequence[str],
        sites: int,
        differentiable: bool,
    ) -> Gradient:
        import torch

        parameters = dict(self.module.named_parameters())
        loss = torch.zeros(())
        for x, y in zip(pixels.chunk(sites), labels.chunk(sites), strict=True):
            loss = loss + torch.nn.functional.cross_entropy(self.outputs(x), y) / sites
        wanted = [parameters[n] for n in names]
        found = torch.autograd.grad(loss, wanted, create_graph=differentiable, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(wanted, found, strict=True)]


def _open(block: Any) -> None:
    import torch

    last = next(p for n in ("bn3", "bn2") if (p := getattr(block, n, None)) is not None)
    for name, weight in last.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.ones_(weight)


def _parts(values: NDArray[np.float64], shapes: Sequence[torch.Size]) -> Gradient:
    import torch

    pieces = np.split(values.astype(np.float32), np.cumsum([s.numel() for s in shapes])[:-1])
    return [torch.from_numpy(p).view(s) for p, s in zip(pieces, shapes, strict=True)]
