"""Any timm network trained end to end at a site: images in, a vector of parameters out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import FederationError
from blindtune.federation.agreement import Local, NetworkModel
from blindtune.federation.heads import patients_of
from blindtune.federation.learner import Totals, Values, class_weights, local_batches
from blindtune.files import whole_file
from blindtune.models.networks import from_vector, load_kept, save_kept, shared_names, to_vector

if TYPE_CHECKING:
    import torch

EVALUATED = 64
"""Images at a time when nothing is learned."""

DARKEST = 1 / 255
"""Least standard deviation of pixels: images that are all alike have none."""


@dataclass(frozen=True)
class Images:
    """A site's images.

    Args:
        pixels: shape (n, channels, side, side), 8 bit.
        labels: class numbers, shape (n,).
        patients: patient numbers, shape (n,); every image is a patient's only one if left out.

    Raises:
        FederationError: shapes that do not fit.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    patients: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        object.__setattr__(self, "patients", patients_of(self.labels, self.patients))
        if self.pixels.ndim != 4 or self.labels.shape != self.pixels.shape[:1]:
            raise FederationError(
                f"images of shape {self.pixels.shape} with labels of shape {self.labels.shape}", where="site"
            )


def augmentation(model: NetworkModel) -> Any:
    """What happens to an image before it is learned from."""
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.RandomAffine(
                model.turn,
                translate=(model.shift, model.shift),
                scale=(1 - model.zoom, 1 + model.zoom),
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.RandomHorizontalFlip(model.flip),
            v2.ColorJitter(brightness=model.contrast, contrast=model.contrast),
        ]
    )


class NetworkLearner:
    """A network and a site's images.

    Args:
        network: from :func:`blindtune.models.networks.build_network`.
        model: what the plan says of it.
        training, validation: this site's images.
        classes: how many.
        local: what is done between two syncs.
        memory: file that keeps normalisations that stay at the site, for its next process.

    Attributes:
        training, validation: as given.
        start: the network's values as it was given.

    Raises:
        FederationError: images of another size than the plan's.
    """

    def __init__(
        self,
        network: Any,
        model: NetworkModel,
        training: Images,
        validation: Images,
        classes: int,
        local: Local,
        memory: Path | None = None,
    ) -> None:
        from torchvision.transforms import v2

        for images in (training, validation):
            if images.pixels.shape[1:] != (model.channels, model.side, model.side):
                raise FederationError(
                    f"images of shape {images.pixels.shape[1:]}, the plan has {model.channels} channels and "
                    f"side {model.side}",
                    where="site",
                )
        self.training, self.validation = training, validation
        self._network, self._names = network, shared_names(network, model.norm)
        self._plan, self._classes, self._local = model, classes, local
        self.start: Values = to_vector(network, self._names)
        self._change = augmentation(model)
        self._mix = v2.MixUp(alpha=model.mixup, num_classes=classes) if model.mixup else None
        self._mean, self._std = np.array(model.mean), np.array(model.std)
        self._weights = np.ones(classes)
        self._memory = memory if model.norm == "local" else None
        if self._memory and self._memory.is_file():
            load_kept(network, self._names, self._memory)

    def summands(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
        """Mean and mean square of single images, by channel."""
        for row in rows:
            pixels = self.training.pixels[row].astype(np.float64) / 255
            yield np.concatenate([pixels.mean(axis=(1, 2)), (pixels**2).mean(axis=(1, 2))])[None]

    def begin(self, totals: Totals) -> None:
        """Take mean and standard deviation of the confederation's pixels, and its class counts."""
        if not self._plan.mean:
            first, second = np.split(totals["pixels"] / max(1.0, float(totals["rows"][0])), 2)
            self._mean, self._std = first, np.sqrt(np.maximum(second - first**2, DARKEST**2))
        if self._local.class_weights:
            self._weights = class_weights(totals["images"])

    def train(self, values: Values) -> Values:
        """Local steps of SGD with augmentation."""
        import torch

        local, model = self._local, self._network
        from_vector(model, self._names, values)
        model.train()
        named = dict(model.named_parameters())
        before = {n: named[n].detach().clone() for n in self._names} if local.proximal else {}
        loss = torch.nn.CrossEntropyLoss(weight=torch.tensor(self._weights).float())
        optimiser = torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad],
            lr=local.rate,
            momentum=local.momentum,
            weight_decay=local.decay,
        )
        for rows in local_batches(len(self.training.labels), local, lambda n: torch.randperm(n).numpy()):
            optimiser.zero_grad()
            x, y = self._batch(rows)
            value = loss(model(x), y)
            for name, old in before.items():
                value = value + local.proximal / 2 * (named[name] - old).square().sum()
            value.backward()
            optimiser.step()
        if self._memory:
            with whole_file(self._memory) as path:
                save_kept(model, self._names, path)
        return to_vector(model, self._names)

    def slopes(self, values: Values, rows: NDArray[np.int64]) -> Iterator[NDArray[np.floating]]:
        """Gradients of single images, one at a time: on a CPU as fast as in batches, for any network."""
        import torch

        from_vector(self._network, self._names, values)
        self._network.train()
        named = dict(self._network.named_parameters())
        shared = [named[n] for n in self._names]
        for row in rows:
            x, y = self._batch(np.array([row]))
            value = torch.nn.functional.cross_entropy(self._network(x), y)
            found = torch.autograd.grad(value, shared, allow_unused=True)
            pieces = [
                np.zeros(p.numel(), np.float32) if g is None else g.numpy().ravel()
                for p, g in zip(shared, found, strict=True)
            ]
            yield np.concatenate(pieces)[None]

    def predict(self, values: Values) -> NDArray[np.float64]:
        """Probabilities of the validation images."""
        import torch

        from_vector(self._network, self._names, values)
        self._network.eval()
        found = [np.empty((0, self._classes))]
        for start in range(0, len(self.validation.labels), EVALUATED):
            with torch.inference_mode():
                logits = self._network(self._normal(self.validation.pixels[start : start + EVALUATED]))
                found.append(logits.double().softmax(dim=1).numpy())
        return np.concatenate(found)

    def _batch(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        pixels = np.stack([self._change(torch.from_numpy(self.training.pixels[r])).numpy() for r in rows])
        x, y = self._normal(pixels), torch.from_numpy(self.training.labels[rows])
        if self._mix and len(rows) > 1:
            mixed: tuple[torch.Tensor, torch.Tensor] = self._mix(x, y)
            return mixed
        return x, y

    def _normal(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        import torch

        mean, std = (torch.tensor(v).float().view(1, -1, 1, 1) for v in (self._mean, self._std))
        return (torch.from_numpy(pixels).float() / 255 - mean) / std
