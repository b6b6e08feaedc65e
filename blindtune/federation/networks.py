"""Any timm network trained end to end at a site: images in, a vector of parameters out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import FederationError
from blindtune.federation.agreement import Local
from blindtune.federation.learner import Scores, Values, class_weights, local_batches
from blindtune.models.networks import Norm, from_vector, shared_names, to_vector

if TYPE_CHECKING:
    import torch

EVALUATED = 64
"""Images at a time when nothing is learned."""


@dataclass(frozen=True)
class Images:
    """A site's images.

    Args:
        pixels: shape (n, channels, side, side), 8 bit.
        labels: class numbers, shape (n,).

    Raises:
        FederationError: shapes that do not fit.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.labels.shape != self.pixels.shape[:1]:
            raise FederationError(
                f"images of shape {self.pixels.shape} with labels of shape {self.labels.shape}", where="site"
            )


@dataclass(frozen=True)
class Recipe:
    """How images become batches.

    Attributes:
        mean, std: of the confederation's pixels in [0, 1], by channel.
        turn: degrees of random rotation.
        shift: share of the side of random translation.
        zoom: share of random scaling.
        flip: probability of a mirror image; 0 where left and right tell something.
        contrast: share of random contrast and brightness.
        mixup: alpha of MixUp (Zhang et al. 2018); 0 for none.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    turn: float = 10.0
    shift: float = 0.05
    zoom: float = 0.1
    flip: float = 0.0
    contrast: float = 0.1
    mixup: float = 0.0

    def augmentation(self) -> Any:
        """What happens to an image before it is learned from."""
        from torchvision.transforms import v2

        return v2.Compose(
            [
                v2.RandomAffine(
                    self.turn,
                    translate=(self.shift, self.shift),
                    scale=(1 - self.zoom, 1 + self.zoom),
                    interpolation=v2.InterpolationMode.BILINEAR,
                ),
                v2.RandomHorizontalFlip(self.flip),
                v2.ColorJitter(brightness=self.contrast, contrast=self.contrast),
            ]
        )

    def mixing(self, classes: int) -> Any:
        """What mixes the images of a batch; None without."""
        from torchvision.transforms import v2

        return v2.MixUp(alpha=self.mixup, num_classes=classes) if self.mixup else None


class NetworkLearner:
    """A network and a site's images.

    Args:
        model: from :func:`blindtune.models.networks.build_network`.
        training, validation: this site's images.
        classes: how many.
        local: what is done between two syncs.
        recipe: how images become batches.
        norm: as the network was built with.

    Attributes:
        start: the network's values as it was given.
    """

    def __init__(
        self,
        model: Any,
        training: Images,
        validation: Images,
        classes: int,
        local: Local,
        recipe: Recipe,
        norm: Norm = "group",
    ) -> None:
        self._model, self._names = model, shared_names(model, norm)
        self._training, self._validation, self._classes = training, validation, classes
        self._local, self._recipe = local, recipe
        self.start: Values = to_vector(model, self._names)
        self._change = recipe.augmentation()
        self._mix = recipe.mixing(classes)

    def counts(self) -> NDArray[np.int64]:
        """Training images by class."""
        return np.bincount(self._training.labels, minlength=self._classes).astype(np.int64)

    def train(self, values: Values, totals: NDArray[np.int64]) -> Values:
        """Local steps of SGD with augmentation."""
        import torch

        local, model = self._local, self._model
        from_vector(model, self._names, values)
        model.train()
        named = dict(model.named_parameters())
        before = {n: named[n].detach().clone() for n in self._names} if local.proximal else {}
        weights = torch.tensor(class_weights(totals) if local.class_weights else np.ones(self._classes))
        loss = torch.nn.CrossEntropyLoss(weight=weights.float())
        optimiser = torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad],
            lr=local.rate,
            momentum=local.momentum,
            weight_decay=local.decay,
        )
        for rows in local_batches(len(self._training.labels), local, lambda n: torch.randperm(n).numpy()):
            optimiser.zero_grad()
            x, y = self._batch(rows)
            value = loss(model(x), y)
            for name, old in before.items():
                value = value + local.proximal / 2 * (named[name] - old).square().sum()
            value.backward()
            optimiser.step()
        return to_vector(model, self._names)

    def evaluate(self, values: Values) -> Scores:
        """Confusion and mean cross-entropy on the validation images."""
        import torch

        k, cases = self._classes, self._validation
        confusion, loss = np.zeros((k, k), np.int64), 0.0
        from_vector(self._model, self._names, values)
        self._model.eval()
        for start in range(0, len(cases.labels), EVALUATED):
            labels = cases.labels[start : start + EVALUATED]
            with torch.inference_mode():
                logits = self._model(self._normal(cases.pixels[start : start + EVALUATED]))
                y = torch.from_numpy(labels)
                loss += float(torch.nn.functional.cross_entropy(logits, y, reduction="sum"))
            np.add.at(confusion, (labels, logits.argmax(dim=1).numpy()), 1)
        return Scores(confusion, loss / max(1, len(cases.labels)))

    def _batch(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        pixels = np.stack([self._change(torch.from_numpy(self._training.pixels[r])).numpy() for r in rows])
        x, y = self._normal(pixels), torch.from_numpy(self._training.labels[rows])
        if self._mix and len(rows) > 1:
            mixed: tuple[torch.Tensor, torch.Tensor] = self._mix(x, y)
            return mixed
        return x, y

    def _normal(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        import torch

        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self._recipe.mean, self._recipe.std))
        return (torch.from_numpy(pixels).float() / 255 - mean) / std
