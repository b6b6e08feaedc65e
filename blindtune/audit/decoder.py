"""From an embedding back to a scan: a linear map, and a small convolutional network on top of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blindtune.audit.scans import Pixels

if TYPE_CHECKING:
    import torch

Rows = NDArray[np.floating]
COMPONENTS = 128
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Penalties that are tried, relative to the number of rows."""

HELD = 8
"""One row in so many of the attacker's own chooses penalty and epoch."""

BATCH = 32
CHANNELS = (48, 32, 16, 8)


class Linear:
    """Ridge regression from standardised embeddings to the principal components of images.

    Args:
        rows: embeddings of public scans, shape (n, d).
        pixels: those scans, shape (n, side, side).
    """

    def __init__(self, rows: Rows, pixels: Pixels) -> None:
        self._mean, self._std = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-9)
        flat = pixels.reshape(len(pixels), -1).astype(np.float64)
        self._centre, self._side = flat.mean(axis=0), pixels.shape[1]
        axes = np.linalg.svd(flat - self._centre, full_matrices=False)[2][:COMPONENTS]
        x, y = self.standard(rows).astype(np.float64), (flat - self._centre) @ axes.T
        held = np.arange(len(rows)) % HELD == 0

        def fitted(chosen: NDArray[np.bool_], ridge: float) -> NDArray[np.float64]:
            rows, penalty = x[chosen], ridge * chosen.sum()
            if len(rows) < rows.shape[1]:
                return np.asarray(
                    rows.T @ np.linalg.solve(rows @ rows.T + penalty * np.eye(len(rows)), y[chosen])
                )
            gram = rows.T @ rows + penalty * np.eye(rows.shape[1])
            return np.asarray(np.linalg.solve(gram, rows.T @ y[chosen]))

        errors = [float(((x[held] @ fitted(~held, r) - y[held]) ** 2).sum()) for r in RIDGES]
        self._map = fitted(np.ones(len(x), bool), RIDGES[int(np.argmin(errors))]) @ axes

    def standard(self, rows: Rows) -> NDArray[np.float32]:
        """Embeddings with the public ones' mean and deviation taken out."""
        return np.asarray((rows - self._mean) / self._std, np.float32)

    def __call__(self, rows: Rows) -> Pixels:
        """Scans of embeddings, shape (n, side, side)."""
        flat = self._centre + self.standard(rows) @ self._map
        return np.asarray(np.clip(flat, 0, 1).reshape(-1, self._side, self._side), np.float32)


class Convolutional:
    """What a network adds to :class:`Linear`: trained with the squared error of pixels.

    Args:
        rows, pixels: public scans, as for :class:`Linear`; the side a multiple of 8.
        epochs: the one with the least error on rows that it was not trained on counts.
        progress: called after each epoch.
    """

    def __init__(
        self,
        rows: Rows,
        pixels: Pixels,
        epochs: int,
        seed: int = 0,
        progress: Callable[[], None] | None = None,
    ) -> None:
        import torch

        # The map is fitted without the rows that choose the epoch, or its own error would look too small.
        held = np.arange(len(rows)) % HELD == 0
        self._base = Linear(rows[~held], pixels[~held])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = _network(rows.shape[1], pixels.shape[1])
            x = torch.from_numpy(self._base.standard(rows))
            wanted = torch.from_numpy(pixels - self._base(rows))[:, None]
            train, test = torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))
            adam = torch.optim.AdamW(self._network.parameters(), lr=2e-3, weight_decay=1e-2)
            best, kept = float(wanted[test].square().mean()), None
            for _ in range(epochs):
                self._network.train()
                for part in torch.chunk(train[torch.randperm(len(train))], -(-len(train) // BATCH)):
                    noisy = x[part] + 0.1 * torch.randn(len(part), x.shape[1])
                    adam.zero_grad()
                    (self._network(noisy) - wanted[part]).square().mean().backward()
                    adam.step()
                error = float((self._apply(x[test]) - wanted[test]).square().mean())
                if error < best:
                    best = error
                    kept = {n: v.clone() for n, v in self._network.state_dict().items()}
                if progress:
                    progress()
            self._useful = kept is not None
            if kept is not None:
                self._network.load_state_dict(kept)

    def __call__(self, rows: Rows) -> Pixels:
        """Scans of embeddings, shape (n, side, side)."""
        import torch

        found = self._base(rows)
        if self._useful:
            found = found + self._apply(torch.from_numpy(self._base.standard(rows))).numpy()[:, 0]
        return np.asarray(np.clip(found, 0, 1), np.float32)

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        import torch

        self._network.eval()
        with torch.no_grad():
            found: torch.Tensor = self._network(x)
        return found


def _network(features: int, side: int) -> Any:
    from torch import nn

    start = side // 8
    layers: list[Any] = [
        nn.Linear(features, CHANNELS[0] * start * start),
        nn.Unflatten(1, (CHANNELS[0], start, start)),
    ]
    for before, after in pairwise(CHANNELS):
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1)]
        layers += [nn.GroupNorm(4, after), nn.SiLU()]
    last = nn.Conv2d(CHANNELS[-1], 1, 3, padding=1)
    nn.init.zeros_(last.weight)
    return nn.Sequential(*layers, last)
