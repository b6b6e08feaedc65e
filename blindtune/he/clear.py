"""Reference engines without encryption: one computes on clear slots, one only counts.

Both share the bookkeeping of :class:`~blindtune.he.checked.CheckedEngine`, so what they accept, a real
engine accepts. :class:`ClearEngine` also reproduces the scale drift of nominal scales, so a real
engine differs from it by noise alone. Neither protects anything.
"""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import EngineError
from blindtune.he.checked import CheckedEngine
from blindtune.he.engine import Ciphertext

Slots = NDArray[np.complex128]


class ClearEngine(CheckedEngine):
    """Slot vectors in the clear, with the levels, scales and key checks of a real engine."""

    def encrypt(self, values: NDArray[Any]) -> Ciphertext:
        """Wrap ``values`` (slots,) at the top level."""
        return Ciphertext(np.asarray(values, np.complex128).copy(), self.parameters.levels)

    def decrypt(self, a: Ciphertext) -> Slots:
        """The slot values (slots,)."""
        return np.asarray(a.raw, np.complex128)

    def _dump(self, a: Ciphertext) -> bytes:
        head = json.dumps([a.level, a.product, a.size]).encode()
        return len(head).to_bytes(4, "little") + head + self.decrypt(a).tobytes()

    def _load(self, data: bytes) -> Ciphertext:
        n = int.from_bytes(data[:4], "little")
        try:
            level, product, size = _books(data[4 : 4 + n], self.parameters.levels)
            values = np.frombuffer(data[4 + n :], np.complex128)
        except ValueError as error:
            raise EngineError("clear slots do not load: damaged") from error
        if len(values) != self.parameters.slots:
            raise EngineError(f"{len(values)} slots instead of {self.parameters.slots}")
        return Ciphertext(values, level, product, size)

    def _add(self, a: Slots, b: Slots) -> Slots:
        return a + b

    def _subtract(self, a: Slots, b: Slots) -> Slots:
        return a - b

    def _multiply_accumulate(
        self, lefts: list[list[Slots]], rights: list[list[Slots]], onto: list[Slots] | None
    ) -> list[Slots]:
        zero = np.zeros(self.parameters.slots, np.complex128)
        sums = [
            sum((a * b for a, b in zip(left, right, strict=True)), zero)
            for left, right in product(lefts, rights)
        ]
        return _onto(sums, onto)

    def _relinearise(self, batch: list[Slots]) -> list[Slots]:
        return batch

    def _rescale(self, batch: list[Slots], level: int) -> list[Slots]:
        return [a * self.parameters.drift(level) for a in batch]

    def _multiply_scalar(self, a: Slots, factor: float, level: int) -> Slots:
        return a * factor

    def _rotate(self, batch: list[Slots], steps: int, onto: list[Slots] | None) -> list[Slots]:
        return _onto([np.roll(a, -steps) for a in batch], onto)

    def _conjugate(self, batch: list[Slots], onto: list[Slots] | None) -> list[Slots]:
        return _onto([np.conj(a) for a in batch], onto)

    def _at_level(self, a: Slots, level: int) -> Slots:
        return a

    def _refresh(self, batch: list[Slots]) -> list[Slots]:
        return batch


class CountingEngine(CheckedEngine):
    """Does nothing but count: the planner runs a study's training on it for exact operation counts."""

    def encrypt(self) -> Ciphertext:
        """A placeholder at the top level."""
        return Ciphertext(None, self.parameters.levels)

    def _dump(self, a: Ciphertext) -> bytes:
        return json.dumps([a.level, a.product, a.size]).encode()

    def _load(self, data: bytes) -> Ciphertext:
        try:
            return Ciphertext(None, *_books(data, self.parameters.levels))
        except ValueError as error:
            raise EngineError("a placeholder does not load: damaged") from error

    def _add(self, a: Any, b: Any) -> Any: ...
    def _subtract(self, a: Any, b: Any) -> Any: ...
    def _multiply_scalar(self, a: Any, factor: float, level: int) -> Any: ...
    def _at_level(self, a: Any, level: int) -> Any: ...

    def _multiply_accumulate(
        self, lefts: list[list[Any]], rights: list[list[Any]], onto: list[Any] | None
    ) -> list[Any]:
        return [None] * (len(lefts) * len(rights))

    def _relinearise(self, batch: list[Any]) -> list[Any]:
        return batch

    def _refresh(self, batch: list[Any]) -> list[Any]:
        return batch

    def _rescale(self, batch: list[Any], level: int) -> list[Any]:
        return batch

    def _rotate(self, batch: list[Any], steps: int, onto: list[Any] | None) -> list[Any]:
        return batch

    def _conjugate(self, batch: list[Any], onto: list[Any] | None) -> list[Any]:
        return batch


def _onto(batch: list[Slots], onto: list[Slots] | None) -> list[Slots]:
    return batch if onto is None else [a + b for a, b in zip(batch, onto, strict=True)]


def _books(data: bytes, levels: int) -> tuple[int, bool, int]:
    """Level, product and size as they were dumped; ValueError where they are not."""
    found = json.loads(data)
    if not isinstance(found, list) or len(found) != 3:
        raise ValueError("not three numbers")
    level, product, size = found
    if type(level) is not int or not 0 <= level <= levels or type(product) is not bool or size not in (2, 3):
        raise ValueError("numbers out of range")
    return level, product, size
