"""Floats to integers modulo 2^32 and back: a sum over all members cannot overflow, its error is bounded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import FederationError

WORD_BITS = 32
CHUNK = 1 << 20
"""Values at a time: temporaries stay small beside the vector."""

Words = NDArray[np.uint32]


@dataclass(frozen=True)
class Quantiser:
    """Values of at most ``clip`` in size on a grid, such that ``members`` of them can be summed.

    With ``top = 2^(31 - ceil(log2 members)) - 1`` and ``step = clip / top``, a value becomes an integer of at
    most ``top`` in size. ``members * top < 2^31``, so the sum, read as a signed word, is exact. Rounding
    moves each value by at most ``step / 2``, hence a sum of ``m`` values by at most ``m * step / 2``
    (:meth:`error`).

    Args:
        clip: values beyond are cut to it.
        members: of the study, whoever drops out.

    Raises:
        FederationError: a clip that is not a positive number, or a number of members out of range.
    """

    clip: float
    members: int

    def __post_init__(self) -> None:
        if not (np.isfinite(self.clip) and self.clip > 0) or not 1 <= self.members <= 1 << 16:
            raise FederationError(
                f"values up to {self.clip} of {self.members} members",
                where="quantiser",
                remedy="Give a positive clip and at most 65,536 members.",
            )

    @property
    def top(self) -> int:
        """The largest integer of one member."""
        return int((1 << (WORD_BITS - 1 - (self.members - 1).bit_length())) - 1)

    @property
    def step(self) -> float:
        """Distance of two neighbouring values."""
        return self.clip / self.top

    def error(self, summed: int) -> float:
        """Largest error of a sum of so many members' values that are within the clip."""
        # Beside the rounding, float64 carries 2^-52 relative through encode and decode.
        return summed * (self.step / 2 + self.clip * 2**-50)

    def encode(self, values: NDArray[np.floating]) -> Words:
        """Words of a vector.

        Args:
            values: shape (n,).

        Raises:
            FederationError: not a vector, or a value that is not a number.
        """
        if values.ndim != 1:
            raise FederationError(f"an array of shape {values.shape}", where="update", remedy="Flatten it.")
        words = np.empty(values.size, np.uint32)
        for start in range(0, values.size, CHUNK):
            piece = values[start : start + CHUNK].astype(np.float64)
            if not np.isfinite(piece).all():
                raise FederationError(
                    "the update holds a value that is not a number",
                    where="update",
                    remedy="Lower the learning rate; nothing was sent.",
                )
            np.clip(piece, -self.clip, self.clip, out=piece)
            whole = np.rint(piece * (self.top / self.clip)).astype(np.int64)
            words[start : start + CHUNK] = (whole & 0xFFFFFFFF).astype(np.uint32)
        return words

    def decode(self, words: Words) -> NDArray[np.float64]:
        """The sum that words stand for.

        Args:
            words: a sum modulo 2^32 of at most ``members`` encoded vectors, shape (n,).
        """
        return words.view(np.int32).astype(np.float64) * self.step
