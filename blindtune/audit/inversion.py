"""Gradient inversion: images whose gradient is the one that was seen.

Geiping et al. 2020: cosine distance of gradients, total variation, signed Adam, restarts. Before that comes
what later work added, where it helps: labels are read off the classifier's bias (iDLG, Zhao et al. 2020;
counts for batches after Wainakh et al. 2022); patches of vision transformers follow in closed form from the
gradients of patch and position embedding (after APRIL, Lu et al. 2022). The classifier's gradient holds what
it was given of one image, exactly: a linear map that public images teach makes a first image of that (Wu et
al. 2023 learn one from whole gradients). From there a first search stays in the span of public images'
principal components, the simplest of image priors (Jeon et al. 2021 use a generator). Distances are taken
by layer, as in Yin et al. 2021, so that no layer drowns the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blindtune.audit.decoder import Linear
from blindtune.audit.embedding import revealed
from blindtune.audit.observed import Gradient, Network

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Strength:
    """How hard an attacker tries.

    Attributes:
        iterations: of each search, half of them within the prior; without any, the first image counts.
        restarts: searches from other starts; the one with the least distance counts.
        coarse: rate of Adam within the prior, in standard deviations of its components.
        rate: of signed Adam, in pixels' units.
        variation: weight of total variation.
        components: principal components of public images that the first search stays within.
    """

    iterations: int = 100
    restarts: int = 1
    coarse: float = 0.1
    rate: float = 0.003
    variation: float = 1.0
    components: int = 100


FARTHEST = 3.0
"""Standard deviations of a principal component that a first image is within: noise decodes to anything."""


class Prior:
    """What an attacker knows of such images: public ones, and what the network makes of them.

    Args:
        public: shape (n, side, side) in [0, 1].
        components: of them, how many at most.
        network: that is attacked.
    """

    def __init__(self, public: NDArray[np.float32], components: int, network: Network) -> None:
        import torch

        flat = public.reshape(len(public), -1).astype(np.float64)
        self.mean = flat.mean(axis=0).reshape(public.shape[1:]).astype(np.float32)
        _, values, axes = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
        kept = min(components, len(public) - 1)
        basis = axes[:kept] * values[:kept, None] / np.sqrt(len(public))
        self.basis = torch.from_numpy(basis).float()
        self._public, self._network = public, network
        self._decoders: dict[bool, Linear] = {}

    def first(self, seen: Gradient, statistics: NDArray[np.float32] | None = None) -> torch.Tensor:
        """Coefficients (components,) of the image that the classifier's gradient decodes to.

        Args:
            statistics: of the batch, if they are seen.
        """
        import torch

        told = [classified(seen)] if statistics is None else [classified(seen), statistics]
        decoder = self._decoder(statistics is not None)
        decoded = torch.from_numpy(decoder(np.concatenate(told)[None])[0] - self.mean).flatten()
        found = self.basis @ decoded / self.basis.square().sum(dim=1).clamp_min(1e-12)
        return found.clamp(-FARTHEST, FARTHEST)

    def _decoder(self, statistics: bool) -> Linear:
        """A map from what is seen of one image to the image, of public ones; made once."""
        import torch

        if statistics not in self._decoders:
            rows = []
            # One at a time: a batch's own statistics are those of one image.
            for image in torch.from_numpy(self._public)[:, None, None]:
                with torch.no_grad():
                    seen = self._network.features(image)[0]
                rows.append(torch.cat([seen, self._network.statistics(image)]) if statistics else seen)
            self._decoders[statistics] = Linear(torch.stack(rows).numpy(), self._public)
        return self._decoders[statistics]

    def images(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Images of whitened coefficients (n, components): shape (n, 1, side, side)."""
        import torch

        flat = torch.from_numpy(self.mean).flatten() + coefficients @ self.basis
        return flat.view(-1, 1, *self.mean.shape)


def classified(seen: Gradient) -> NDArray[np.float32]:
    """What the classifier was given, shape (d,): exact for one image, a weighted mean for several."""
    told = np.concatenate([part.detach().double().numpy().ravel() for part in seen[-2:]])
    return revealed(told, len(seen[-1])).astype(np.float32)


def recovered_labels(network: Network, seen: Gradient, images: int, prior: Prior) -> NDArray[np.int64]:
    """The labels in a batch, from the gradient by the classifier's bias alone.

    Softmax and cross-entropy give ``mean(p) - counts / images``: one image's label is the only negative
    entry; of a batch ``p`` is taken to be what the network says of the mean public image.

    Returns:
        shape (images,), sorted.
    """
    import torch

    classes = len(seen[-1])
    with torch.no_grad():
        told = network.outputs(prior.images(torch.zeros(images, len(prior.basis)))).softmax(dim=1)[0]
    share = told - seen[-1] if images > 1 else -seen[-1]
    found: list[int] = []
    for _ in range(images):
        found.append(int(share.argmax()))
        share[found[-1]] -= 1 / images if images > 1 else np.inf
    assert max(found) < classes
    return np.sort(np.array(found, np.int64))


def patches(network: Network, seen: Gradient) -> NDArray[np.float32] | None:
    """The image behind the gradients of a transformer's patches and positions; None for other networks.

    A position's gradient is that of its token, and the patch weights' gradient is the sum over tokens of that
    times the patch: linear equations, with one solution as long as there are fewer tokens than features. Of a
    batch it gives a mixture.

    Returns:
        shape (1, side, side).
    """
    at = dict(zip(network.looked_at, seen, strict=True))
    if "pos_embed" not in at or "patch_embed.proj.weight" not in at:
        return None
    weight = at["patch_embed.proj.weight"]
    side = weight.shape[-1]
    across, rest = divmod(network.side, side)
    if rest:
        return None
    tokens = at["pos_embed"][0, -across * across :].double()
    rows = np.linalg.lstsq(tokens.T.numpy(), weight.flatten(1).double().numpy(), rcond=1e-10)[0]
    image = rows.reshape(across, across, side, side).transpose(0, 2, 1, 3).reshape(network.side, network.side)
    return np.asarray(np.clip(image * network.std + network.mean, 0, 1)[None], np.float32)


def invert(
    network: Network,
    seen: Gradient,
    images: int,
    sites: int,
    prior: Prior,
    strength: Strength,
    seed: int = 0,
    statistics: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64], float]:
    """Images whose gradient is like the one that was seen.

    Args:
        images, sites: in what was seen.
        statistics: of the batch, if they are seen beside its gradient.

    Returns:
        images, shape (images, side, side); the labels that they were searched with; and the distance that was
        reached.
    """
    import torch

    labels = torch.from_numpy(recovered_labels(network, seen, images, prior))
    told = torch.from_numpy(classified(seen))[None]

    def distance(pixels: torch.Tensor) -> torch.Tensor:
        found = layers_distance(network.gradient(pixels, labels, sites=sites, differentiable=True), seen)
        if images > 1:
            return found
        return found + cosine_distance([network.features(pixels)], [told])

    if images == 1 and (exact := patches(network, seen)) is not None:
        reached = float(distance(torch.from_numpy(exact)[None]).detach())
        # With noise it is the least squares' answer, and no search does better from there.
        return exact, labels.numpy(), reached
    best: tuple[float, torch.Tensor] | None = None
    for restart in range(strength.restarts):
        start = prior.first(seen, statistics).repeat(images, 1)
        if images > 1 or restart:
            draw = torch.Generator().manual_seed(seed + restart)
            start += 0.1 * torch.randn(start.shape, generator=draw)
        pixels = _search(distance, start, prior, strength)
        reached = float(distance(pixels).detach())
        if best is None or reached < best[0]:
            best = reached, pixels
    assert best is not None
    return best[1].numpy()[:, 0], labels.numpy(), best[0]


def cosine_distance(first: Gradient, second: Gradient) -> torch.Tensor:
    """One minus the cosine of the angle between two gradients."""
    import torch

    product = torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()
    one, other = (torch.stack([g.square().sum() for g in parts]).sum() for parts in (first, second))
    return 1 - product / (one * other).clamp_min(1e-30).sqrt()


NOTHING = 1e-6
"""Share of the whole gradient's length below which a layer's is rounding."""


def layers_distance(found: Gradient, seen: Gradient) -> torch.Tensor:
    """Mean cosine distance of the layers."""
    import torch

    lengths = torch.stack([g.norm() for g in seen])
    least = NOTHING * lengths.square().sum().sqrt()
    apart = [cosine_distance([a], [b]) for a, b, n in zip(found, seen, lengths, strict=True) if n > least]
    return torch.stack(apart).mean()


def variation(pixels: torch.Tensor) -> torch.Tensor:
    """Mean total variation of images."""
    down = (pixels[..., 1:, :] - pixels[..., :-1, :]).abs().mean()
    return down + (pixels[..., :, 1:] - pixels[..., :, :-1]).abs().mean()


def _search(
    distance: Callable[[torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    prior: Prior,
    strength: Strength,
) -> torch.Tensor:
    """Adam within the prior, then signed Adam on pixels with total variation."""
    import torch

    first = strength.iterations // 2
    coefficients = start.requires_grad_(True)
    for _ in _steps(coefficients, strength.coarse, first):
        cost = distance(prior.images(coefficients)) + 1e-3 * coefficients.square().mean()
        (coefficients.grad,) = torch.autograd.grad(cost, coefficients)
    pixels = prior.images(coefficients.detach()).clamp(0, 1).requires_grad_(True)
    for _ in _steps(pixels, strength.rate, strength.iterations - first):
        cost = distance(pixels) + strength.variation * variation(pixels)
        (slope,) = torch.autograd.grad(cost, pixels)
        pixels.grad = slope.sign()
    return pixels.detach().clamp(0, 1)


def _steps(values: torch.Tensor, rate: float, count: int) -> Any:
    """Steps of Adam: the block sets the gradient. The rate falls threefold at 3/8, 5/8 and 7/8."""
    import torch

    adam = torch.optim.Adam([values], lr=rate)
    marks = [count * k // 8 for k in (3, 5, 7)]
    falls = torch.optim.lr_scheduler.MultiStepLR(adam, marks, gamma=0.3)
    for step in range(count):
        yield step
        adam.step()
        falls.step()
