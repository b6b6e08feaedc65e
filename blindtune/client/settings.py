"""A study's private settings: what decryption needs to know beside the key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.client.encoding import Scaling
from blindtune.models.grid import split

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """A study's private settings, saved as ``private/study.json``.

    Attributes:
        study: random identifier.
        member: this hospital; ``members``: all of them.
        key: identifier of the key.
        kind, classes: of the labels.
        backbone: name, fingerprint and input size of the backbone; empty for ready embeddings.
        head: name, degree, interval, learning rates, decay, balance.
        interval, rate, rows: the scaling.
        columns, outputs: of the weights of one setting.
        release: the noise that the head may be released under, if the study was planned for that:
            fields of :class:`blindtune.client.flood.Flood`.
        grid: what tells settings apart that are trained side by side; empty for a single one.
    """

    study: str
    member: str
    members: tuple[str, ...]
    key: str
    kind: str
    classes: tuple[str, ...]
    backbone: dict[str, Any]
    head: dict[str, Any]
    interval: float
    rate: float
    rows: int
    columns: int
    outputs: int
    security: str
    notes: tuple[str, ...] = ()
    release: dict[str, Any] | None = None
    grid: tuple[dict[str, Any], ...] = ()

    @property
    def heads(self) -> int:
        """Outputs of all settings."""
        return self.outputs * max(1, len(self.grid))

    def split(self, weights: Floats) -> list[Floats]:
        """Weights of all settings (columns, G · K) to each one's own (columns, K)."""
        return split(weights, max(1, len(self.grid)))

    @property
    def scaling(self) -> Scaling:
        """The scaling of the study's numbers."""
        return Scaling(self.interval, self.rate, self.rows)
