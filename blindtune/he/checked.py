"""The bookkeeping that every engine shares.

:class:`CheckedEngine` keeps levels and scales once, refuses what the library would answer with an obscure
error, and keeps the ledger of operations; an engine adds the arithmetic.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from blindtune.errors import EngineError
from blindtune.he.engine import Ciphertext, KeySet, Ledger
from blindtune.params import Parameters

T = TypeVar("T")


class CheckedEngine(ABC):
    """The :class:`Engine` bookkeeping; subclasses implement the arithmetic in the ``_`` methods."""

    def __init__(self, parameters: Parameters, keys: KeySet) -> None:
        self.parameters, self.keys, self.ledger = parameters, keys, Ledger()

    def add(self, a: Ciphertext, b: Ciphertext) -> Ciphertext:
        _same(a, b)
        return self._as(a, self._timed("add", a.level, self._add, a.raw, b.raw))

    def subtract(self, a: Ciphertext, b: Ciphertext) -> Ciphertext:
        _same(a, b)
        return self._as(a, self._timed("add", a.level, self._subtract, a.raw, b.raw))

    def reserve(self, size: int) -> None:  # noqa: B027 (engines whose library manages memory need nothing)
        """Nothing: memory comes as it is needed."""

    def multiply_accumulate(
        self,
        lefts: Sequence[Sequence[Ciphertext]],
        rights: Sequence[Sequence[Ciphertext]],
        onto: Sequence[Ciphertext] | None = None,
    ) -> list[Ciphertext]:
        lengths = [[len(row) for row in rows] for rows in (lefts, rights)]
        if not lefts or not rights or not lefts[0] or len({n for rows in lengths for n in rows}) > 1:
            raise EngineError(f"product sums of {lengths[0]} by {lengths[1]} ciphertexts")
        first = lefts[0][0]
        for row in (*lefts, *rights):
            for c in row:
                _same(first, c)
        if first.product or first.size != 2:
            raise EngineError("a product of unrescaled or unrelinearised ciphertexts")
        if first.level < 1:
            raise EngineError("no level left for a product", remedy="Plan fewer steps or a larger ring.")
        count = len(lefts) * len(rights)
        if onto is not None and len(onto) != count:
            raise EngineError(f"{count} product sums onto {len(onto)} ciphertexts")
        for c in onto or ():
            if c.level != first.level or not c.product or c.size != 3:
                raise EngineError("a product sum onto a ciphertext of another level or scale")
        raws = self._timed(
            "multiply",
            first.level,
            self._multiply_accumulate,
            [_raws(row) for row in lefts],
            [_raws(row) for row in rights],
            None if onto is None else _raws(onto),
            count=count * len(lefts[0]),
            calls=len(lefts) * len(lefts[0]),
        )
        return [Ciphertext(raw, first.level, product=True, size=3) for raw in raws]

    def relinearise(self, batch: Sequence[Ciphertext]) -> list[Ciphertext]:
        first = _alike(batch)
        if first.size != 3:
            raise EngineError("nothing to relinearise")
        found = self._timed("relinearise", first.level, self._relinearise, _raws(batch), count=len(batch))
        return [Ciphertext(raw, first.level, first.product, size=2) for raw in found]

    def rescale(self, batch: Sequence[Ciphertext]) -> list[Ciphertext]:
        first = _alike(batch)
        if not first.product:
            raise EngineError("nothing to rescale")
        found = self._timed(
            "rescale", first.level, self._rescale, _raws(batch), first.level, count=len(batch)
        )
        return [Ciphertext(raw, first.level - 1, product=False, size=first.size) for raw in found]

    def multiply_scalar(self, a: Ciphertext, factor: float) -> Ciphertext:
        if a.product or a.size != 2 or a.level < 1:
            raise EngineError("a scalar product of an unrescaled ciphertext, or without a level left")
        if abs(factor) * self.parameters.scale < 1e3:
            raise EngineError(f"the factor {factor:g} lies below the scale's resolution")
        raw = self._timed("multiply_scalar", a.level, self._multiply_scalar, a.raw, factor, a.level)
        return Ciphertext(raw, a.level - 1)

    def rotate(
        self, batch: Sequence[Ciphertext], steps: int, onto: Sequence[Ciphertext] | None = None
    ) -> list[Ciphertext]:
        steps %= self.parameters.slots
        if steps == 0 and onto is None:
            return list(batch)
        if steps not in self.keys.rotations:
            raise EngineError(f"no key for a rotation by {steps}", remedy="Make keys from this study's plan.")
        return self._switched(batch, onto, self._rotate, steps)

    def conjugate(
        self, batch: Sequence[Ciphertext], onto: Sequence[Ciphertext] | None = None
    ) -> list[Ciphertext]:
        return self._switched(batch, onto, self._conjugate)

    def _switched(
        self,
        batch: Sequence[Ciphertext],
        onto: Sequence[Ciphertext] | None,
        switch: Callable[..., list[Any]],
        *arguments: int,
    ) -> list[Ciphertext]:
        """Rotations, or conjugations, and what they are added to."""
        first = _alike(batch)
        if first.size != 2:
            raise EngineError("a rotation or conjugation before relinearisation")
        name = "rotate"
        if onto is not None:
            other = _alike(onto)
            if len(onto) != len(batch) or (other.level, other.product) != (first.level, first.product):
                raise EngineError("a rotation onto a ciphertext of another level or scale, or too few")
            if other.size == 3:
                name = "rotate_relinearise"
        raws = self._timed(
            name,
            first.level,
            switch,
            _raws(batch),
            *arguments,
            None if onto is None else _raws(onto),
            count=len(batch),
        )
        return [self._as(first, raw) for raw in raws]

    def at_level(self, a: Ciphertext, level: int) -> Ciphertext:
        if level == a.level:
            return a
        if not 0 <= level < a.level or a.product:
            raise EngineError(f"level {a.level} cannot become level {level}")
        return Ciphertext(self._timed("switch", a.level, self._at_level, a.raw, level), level, size=a.size)

    def refresh(self, batch: Sequence[Ciphertext]) -> list[Ciphertext]:
        for c in batch:
            if c.product or c.size != 2:
                raise EngineError("a refresh of an unrescaled or unrelinearised ciphertext")
        # Older weights sit higher: what is refreshed together need not be alike.
        lowest = min((c.level for c in batch), default=0)
        raws = self._timed("refresh", lowest, self._refresh, _raws(batch), count=len(batch))
        return [Ciphertext(raw, self.parameters.levels) for raw in raws]

    def dump(self, a: Ciphertext) -> bytes:
        return self._timed("dump", a.level, self._dump, a)

    def load(self, data: bytes) -> Ciphertext:
        start = time.perf_counter()
        found = self._load(data)
        self._record("load", found.level, start, 1, 1)
        return found

    def _as(self, a: Ciphertext, raw: Any) -> Ciphertext:
        return Ciphertext(raw, a.level, a.product, a.size)

    def _timed(
        self, name: str, level: int, f: Callable[..., T], *args: Any, count: int = 1, calls: int = 1
    ) -> T:
        start = time.perf_counter()
        result = f(*args)
        self._record(name, level, start, count, calls)
        return result

    def _record(self, name: str, level: int, start: float, count: int, calls: int) -> None:
        self.ledger.seconds[name, level] += time.perf_counter() - start
        self.ledger.counts[name, level] += count
        self.ledger.calls[name, level] += calls

    def _refresh(self, batch: list[Any]) -> list[Any]:
        raise EngineError(
            "this engine cannot make ciphertexts fresh", remedy="Plan fewer steps, or a study of joint keys."
        )

    @abstractmethod
    def _dump(self, a: Ciphertext) -> bytes: ...
    @abstractmethod
    def _load(self, data: bytes) -> Ciphertext: ...
    @abstractmethod
    def _add(self, a: Any, b: Any) -> Any: ...
    @abstractmethod
    def _subtract(self, a: Any, b: Any) -> Any: ...
    @abstractmethod
    def _multiply_accumulate(
        self, lefts: list[list[Any]], rights: list[list[Any]], onto: list[Any] | None
    ) -> list[Any]: ...
    @abstractmethod
    def _relinearise(self, batch: list[Any]) -> list[Any]: ...
    @abstractmethod
    def _rescale(self, batch: list[Any], level: int) -> list[Any]: ...
    @abstractmethod
    def _multiply_scalar(self, a: Any, factor: float, level: int) -> Any: ...
    @abstractmethod
    def _rotate(self, batch: list[Any], steps: int, onto: list[Any] | None) -> list[Any]: ...
    @abstractmethod
    def _conjugate(self, batch: list[Any], onto: list[Any] | None) -> list[Any]: ...
    @abstractmethod
    def _at_level(self, a: Any, level: int) -> Any: ...


def _raws(batch: Sequence[Ciphertext]) -> list[Any]:
    return [c.raw for c in batch]


def _alike(batch: Sequence[Ciphertext]) -> Ciphertext:
    """The first of a batch, which must agree in level, scale and size."""
    if not batch:
        raise EngineError("an operation on no ciphertext")
    for c in batch:
        _same(batch[0], c)
    return batch[0]


def _same(a: Ciphertext, b: Ciphertext) -> None:
    if (a.level, a.product, a.size) != (b.level, b.product, b.size):
        raise EngineError(
            f"ciphertexts differ: levels {a.level} and {b.level}, products {a.product} and {b.product}, "
            f"sizes {a.size} and {b.size}"
        )
