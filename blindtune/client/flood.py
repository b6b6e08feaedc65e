"""What a study needs so that its head can be released: parameters, the error's bound, the bits that stay.

See :mod:`blindtune.he.flooding` for why. The error of a decrypted head has been measured and is bounded by
at least four times what was found; where one hospital has all rows, the bound is checked on the head itself
before anything is told, against the same steps in clear (:func:`expected`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blindtune.client.encoding import Scaling, decode, encode, encode_weights
from blindtune.errors import PlanError
from blindtune.he.clear import ClearEngine
from blindtune.he.flooding import coefficients, deviation, slots
from blindtune.kernels.blocks import Blocks, DataPart, ResidualPart
from blindtune.kernels.layout import Layout
from blindtune.kernels.packing import Slots
from blindtune.kernels.training import Trainer
from blindtune.models.heads import Encoded, Head
from blindtune.params import Parameters
from blindtune.plan import smallest_parameters
from blindtune.privacy.noise import discrete_gaussian

Floats = NDArray[np.float64]

SCALE_BITS, FIRST_BITS, SPECIAL_BITS = 54, 58, 59
"""The noise takes some forty bits of the scale. Primes of more than 50 bits are beyond the accelerators:
SEAL itself evaluates."""

LEAST_BITS = 8.0
"""Bits of a weight that must stay, against the largest one."""

ERROR, OTHER_ROWS = 128.0, 1000
"""Bound of a decrypted slot's error in root mean square, in units of the scale's last digit, over
``sqrt((rows + 1000) · slots)``. The most that was found is 18 (``benchmarks.releases``)."""


@dataclass(frozen=True)
class Flood:
    """Noise that a head is released under.

    Attributes:
        length: bound of the error's Euclidean length over all coefficients that are told.
        largest: largest rehearsed weight, as it lies in the slots.
        furthest: largest coefficient of the rehearsed weights, over the scale.
        releases: under the study's key, over all its members.
        noise: standard deviation of a slot's noise, in the same unit as ``largest``, in the noisiest vector.
    """

    length: float
    largest: float
    furthest: float
    releases: int
    noise: float

    @property
    def deviation(self) -> float:
        """σ of every coefficient."""
        return deviation(self.length, self.releases)

    def noisy(self, exact: NDArray[np.int64]) -> NDArray[np.int64]:
        """What may be told of exact coefficients: keep it before it is shown, and never draw again."""
        return exact + discrete_gaussian(self.deviation, len(exact))

    @property
    def bits(self) -> float:
        """Bits of precision that stay: the largest weight over the noise of a weight."""
        return math.log2(self.largest / self.noise) if self.largest > 0 else 0.0


def flood(
    parameters: Parameters, layout: Layout, scaling: Scaling, rehearsed: Floats, members: int = 1
) -> Flood:
    """The noise that hides the error of a head under these parameters.

    Args:
        rehearsed: the weights of the same steps in clear, on whitened features.
        members: each may release the head once.
    """
    length = error_length(layout, scaling.rows)
    noise = deviation(length, members) * math.sqrt(max(layout.widths) * layout.lanes) / parameters.scale
    packed = encode_weights(rehearsed, layout, scaling)
    furthest = float(np.abs(of_head(packed, layout, parameters.scale)).max()) / parameters.scale
    largest = float(np.abs(rehearsed).max()) / scaling.weight_factor
    return Flood(length, largest, furthest, members, noise)


def error_length(layout: Layout, rows: int) -> float:
    """Bound of the Euclidean length of a head's error over all coefficients that are told, for so many rows
    under a single owner's key."""
    vectors = len(layout.widths) * layout.weight_blocks
    # A slot is a sum of 2w coefficients, half of it real: sqrt(w) times as large as one of them.
    return ERROR * math.sqrt((rows + OTHER_ROWS) * layout.slots * 2 * vectors)


def refuse_imprecise(planned: Flood, parameters: Parameters) -> None:
    """Refuse a release that would leave too little, or a head that its primes may not hold.

    Raises:
        PlanError: with the bits that would be left.
    """
    if planned.bits < LEAST_BITS:
        raise PlanError(
            f"noise that hides the key would leave {planned.bits:.1f} bits of the weights, "
            f"{LEAST_BITS:g} are the least",
            remedy="Encrypt with --release, which plans for it; with fewer classes, rows or directions.",
        )
    room = parameters.primes[0] / parameters.scale / 2
    if 2 * planned.furthest > room:
        raise PlanError(
            f"coefficients of up to {planned.furthest:.1f} and as much in reserve, {room:.1f} fit",
            remedy="Raise epsilon or lower the learning rate.",
        )


def release_parameters(levels: int, security: int) -> Parameters:
    """Parameters of a study that is to be released: the smallest ring that holds its levels at a large scale.

    Raises:
        PlanError: no ring holds so many levels.
        ParametersError: no such security level.
    """
    return smallest_parameters(levels, security, [(SCALE_BITS, FIRST_BITS, SPECIAL_BITS)])


def expected(
    features: Floats, encoded: Encoded, head: Head, layout: Layout, scaling: Scaling, parameters: Parameters
) -> Floats:
    """The weights (columns, K) that exactly this packing and these primes give without any noise.

    :func:`blindtune.models.rehearsal.rehearse` does not know how the scales drift: its weights differ from
    decrypted ones in the tenth digit, where those under noise begin to.

    Args:
        features: whitened, bias last: (n, columns).
    """
    engine = ClearEngine(parameters, layout.keys())
    blocks = Blocks(engine, layout, {}, {})
    for name, vectors in encode(features, encoded, head, layout, scaling):
        kind, *at = name.split("-")
        place = [int(n) for n in at]
        part = DataPart(*place) if kind == "data" else ResidualPart(*place)
        blocks.put(part, [engine.encrypt(v) for v in vectors])
    weights = Trainer(blocks).train(head.program)
    found: list[Slots] = [engine.decrypt(c) for block in weights for c in block]
    return decode(found, layout, scaling, features.shape[1], encoded.targets.shape[1])


def _periods(layout: Layout) -> list[int]:
    """Slots after which each of the head's vectors repeats."""
    return [width * layout.lanes for width in layout.widths] * layout.weight_blocks


def of_head(vectors: Sequence[Slots], layout: Layout, scale: float) -> NDArray[np.int64]:
    """Coefficients of all vectors, one after the other; the mean over periods is the part in the subring."""
    periods = zip(vectors, _periods(layout), strict=True)
    return np.concatenate([coefficients(v.reshape(-1, w).mean(axis=0), scale) for v, w in periods])


def vectors_of(values: NDArray[np.int64], layout: Layout, scale: float) -> list[Slots]:
    """Slot vectors of :func:`of_head`'s coefficients."""
    ends = np.cumsum([2 * w for w in _periods(layout)])
    parts = np.split(values, ends[:-1])
    return [np.tile(slots(part, scale), layout.slots * 2 // len(part)) for part in parts]
