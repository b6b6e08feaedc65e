"""One vector for a secure sum, from named parts of different sizes: an update, counts, losses.

Each part has a bound that its values never exceed; the vector holds them relative to it, so that one grid
serves all (:class:`blindtune.federation.secagg.quantise.Quantiser` with a clip of 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blindtune.errors import FederationError

COUNT_BOUND = float(1 << 17)
"""Images, patients or cases of one site: with it sums of counts over 50 sites are exact after rounding."""


@dataclass(frozen=True)
class Part:
    """Values of one kind.

    Args:
        name: what they are.
        length: how many.
        bound: largest size of one site's value; what is larger is refused.
        count: whether they are whole numbers.
    """

    name: str
    length: int
    bound: float = COUNT_BOUND
    count: bool = False


@dataclass(frozen=True)
class Parcel:
    """Parts in order.

    Args:
        parts: with distinct names.
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        names = [p.name for p in self.parts]
        fine = all(p.length >= 1 and np.isfinite(p.bound) and p.bound > 0 for p in self.parts)
        if not names or len(set(names)) < len(names) or not fine:
            raise FederationError("parts that cannot be", where="parcel")

    @property
    def length(self) -> int:
        """Values of the whole vector."""
        return sum(p.length for p in self.parts)

    def pack(self, values: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """A site's vector, each value in [-1, 1].

        Raises:
            FederationError: a part that is missing, of another length, not a number, or out of bounds.
        """
        if values.keys() != {p.name for p in self.parts}:
            raise FederationError("parts that were not agreed on", where="parcel")
        out = np.empty(self.length, np.float64)
        at = 0
        for part in self.parts:
            given = np.asarray(values[part.name], np.float64)
            if given.shape != (part.length,):
                raise FederationError(f"{part.name} of shape {given.shape}", where="parcel")
            if not np.isfinite(given).all():
                raise FederationError(
                    f"{part.name} holds a value that is not a number",
                    where="parcel",
                    remedy="Lower the learning rate; nothing was sent.",
                )
            if (np.abs(given) > part.bound).any() or (part.count and (given != np.rint(given)).any()):
                raise FederationError(
                    f"{part.name} holds a value beyond {part.bound:,g}",
                    where="parcel",
                    remedy="Lower the learning rate, or agree on a larger bound; nothing was sent.",
                )
            out[at : at + part.length] = given / part.bound
            at += part.length
        return out

    def unpack(self, total: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """The parts of a sum."""
        found, at = {}, 0
        for part in self.parts:
            values = total[at : at + part.length] * part.bound
            found[part.name] = np.rint(values) if part.count else values
            at += part.length
        return found
