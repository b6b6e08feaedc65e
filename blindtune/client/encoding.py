"""Matrices to the slot vectors of a study's parts, and decrypted slot vectors back to weights.

Scaling spends no level (design document, section 3): with ``α = sqrt(lr / (2·P·rows))`` the data are
``α·X``, the weights ``w / (2·P·α)``; then the forward product gives ``u = z / P`` in [-1, 1] and the
backward product the step itself. Coefficients are ``weight_i · c_k · P^k``, all of order one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import InputError
from blindtune.kernels.layout import Layout
from blindtune.kernels.packing import Slots, pack_block, pack_lanes, pack_weights, unpack_weights
from blindtune.models.heads import Encoded, Head

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scaling:
    """How a study's numbers are scaled; the same for all its members, never on the wire.

    Attributes:
        interval: P, the polynomial's interval.
        rate: the first learning rate; the others enter through their coefficient sets.
        rows: training rows of all members.
        stretch: c, a further factor on the data. Weights then lie at ``1 / c`` and residuals at ``1 / c²``
            of their size, and the steps stay the same.
    """

    interval: float
    rate: float
    rows: int
    stretch: float = 1.0

    @classmethod
    def balanced(cls, interval: float, rate: float, rows: int) -> Scaling:
        """Data and residuals (of a half) at one size: where a fresh ciphertext's error is large, as under a
        joint key, the gradient then has least of it."""
        plain = cls(interval, rate, rows)
        return replace(plain, stretch=(0.5 / plain.alpha) ** (1 / 3))

    @property
    def alpha(self) -> float:
        """The factor on the data."""
        return self.stretch * math.sqrt(self.rate / (2 * self.interval * self.rows))

    @property
    def weight_factor(self) -> float:
        """Decrypted weights times this are the weights on whitened features."""
        return 2 * self.interval * self.alpha


def encode(
    features: Floats, encoded: Encoded, head: Head, layout: Layout, scaling: Scaling
) -> Iterator[tuple[str, list[Slots]]]:
    """The slot vectors of every part of a data bundle, in the bundle's order.

    Args:
        features: whitened, bias last: (n, columns).
        encoded: what the head encrypts of each row and output, with ``K ≤ lanes · weight_blocks``.
        layout: with this member's row blocks.

    Raises:
        InputError: shapes that do not fit the layout, or values that are not finite.
    """
    n, outputs = encoded.targets.shape
    if features.shape[0] != n or encoded.coefficients.shape[1:] != (n, outputs):
        raise InputError("features, targets and coefficients differ in rows or outputs")
    if n > layout.rows * layout.row_blocks or outputs > layout.lanes * layout.weight_blocks:
        raise InputError(f"{n} rows and {outputs} outputs do not fit the layout")
    if not all(np.isfinite(a).all() for a in (features, encoded.targets, encoded.coefficients)):
        raise InputError("features, targets or weights that are not finite", remedy="Check the embeddings.")
    scaled = scaling.alpha * features
    for i in range(layout.row_blocks):
        rows = slice(i * layout.rows, (i + 1) * layout.rows)
        parts: dict[int, list[Slots]] = {}
        for (j, _, _), slots in pack_block(scaled[rows], layout):
            parts.setdefault(j, []).append(slots)
        for j, vectors in parts.items():
            yield f"data-{i}-{j}", vectors
    powers = scaling.interval ** np.arange(1, head.degree + 1, 2)
    terms = [encoded.targets, *(c * power for c, power in zip(encoded.coefficients, powers, strict=True))]
    for s, rate in enumerate(head.rates):
        for k in range(layout.weight_blocks):
            lanes = slice(k * layout.lanes, (k + 1) * layout.lanes)
            for i in range(layout.row_blocks):
                rows = slice(i * layout.rows, (i + 1) * layout.rows)
                factor = rate / scaling.rate / scaling.stretch**2
                used = terms[: head.program.terms]
                yield f"residual-{s}-{k}-{i}", [pack_lanes(factor * t[rows, lanes], layout) for t in used]


def encode_weights(weights: Floats, layout: Layout, scaling: Scaling) -> list[Slots]:
    """Weights on whitened features (columns, K) to the slot vectors of a start bundle; see :func:`decode`.

    Raises:
        InputError: weights that do not fit the layout, or are not finite.
    """
    columns, outputs = weights.shape
    if columns > layout.columns or outputs > layout.lanes * layout.weight_blocks:
        raise InputError(f"weights of shape {weights.shape} do not fit the layout")
    if not np.isfinite(weights).all():
        raise InputError("weights that are not finite", remedy="Lower the learning rate.")
    scaled = weights / scaling.weight_factor
    blocks = [scaled[:, k * layout.lanes : (k + 1) * layout.lanes] for k in range(layout.weight_blocks)]
    return [slots for block in blocks for slots in pack_weights(block, layout)]


def decode(slots: list[Slots], layout: Layout, scaling: Scaling, columns: int, outputs: int) -> Floats:
    """Decrypted slot vectors of a head bundle to weights on whitened features (columns, K)."""
    per_block = len(layout.widths)
    blocks = [
        unpack_weights(slots[k * per_block : (k + 1) * per_block], layout)
        for k in range(layout.weight_blocks)
    ]
    return np.concatenate(blocks, axis=1)[:columns, :outputs] * scaling.weight_factor
