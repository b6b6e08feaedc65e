"""What the kernels ask of an encryption library, and the bookkeeping that every engine shares.

An :class:`Engine` evaluates on ciphertexts and holds public material only. Levels count the rescales
that are left; every ciphertext carries the nominal scale, or its square between a product and the
rescale after it. :class:`CheckedEngine` does that bookkeeping once, refuses what the library would
answer with an obscure error, and keeps the ledger of operations; an engine adds the arithmetic.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from blindtune.errors import EngineError
from blindtune.params import Parameters

T = TypeVar("T")


@dataclass(frozen=True)
class Ciphertext:
    """An engine's ciphertext with its bookkeeping.

    Attributes:
        raw: the library's own object.
        level: rescales left.
        product: True between a product and its rescale (the scale is squared).
        size: polynomials: 2, or 3 between a product and its relinearisation.
    """

    raw: Any
    level: int
    product: bool = False
    size: int = 2


@dataclass(frozen=True)
class KeySet:
    """The evaluation keys that a study needs, besides relinearisation and conjugation.

    Attributes:
        rotations: left rotations in slots, each in ``1 .. slots - 1``, sorted.
    """

    rotations: tuple[int, ...]


@dataclass
class Ledger:
    """Operations done: counts and seconds by (operation, level)."""

    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: defaultdict[tuple[str, int], float] = field(default_factory=lambda: defaultdict(float))

    def add(self, other: Ledger) -> None:
        """Add another ledger to this one."""
        self.counts.update(other.counts)
        for key, seconds in other.seconds.items():
            self.seconds[key] += seconds

    @property
    def total_seconds(self) -> float:
        """Seconds inside engine operations."""
        return sum(self.seconds.values())


class Engine(Protocol):
    """CKKS evaluation on slot vectors of ``parameters.slots`` complex numbers."""

    parameters: Parameters
    keys: KeySet
    ledger: Ledger

    def add(self, a: Ciphertext, b: Ciphertext) -> Ciphertext:
        """``a + b``; both at one level and scale."""

    def subtract(self, a: Ciphertext, b: Ciphertext) -> Ciphertext:
        """``a - b``; both at one level and scale."""

    def multiply_accumulate(
        self, lefts: Sequence[Ciphertext], rights: Sequence[Ciphertext], onto: Ciphertext | None = None
    ) -> Ciphertext:
        """``onto + Σ lefts[i] · rights[i]``, neither relinearised nor rescaled."""

    def relinearise(self, a: Ciphertext) -> Ciphertext:
        """Back to two polynomials."""

    def rescale(self, a: Ciphertext) -> Ciphertext:
        """Divide a product by its level's prime: one level down, nominal scale."""

    def multiply_scalar(self, a: Ciphertext, factor: float) -> Ciphertext:
        """``factor · a`` for a public real number, rescaled: one level down."""

    def rotate(self, a: Ciphertext, steps: int) -> Ciphertext:
        """Slot ``s`` of the result is slot ``s + steps`` of ``a``, cyclically; needs that key."""

    def conjugate(self, a: Ciphertext) -> Ciphertext:
        """Complex conjugate of every slot."""

    def at_level(self, a: Ciphertext, level: int) -> Ciphertext:
        """The same values at a lower level."""

    def lower(self, a: Ciphertext, level: int) -> Ciphertext:
        """:meth:`at_level` in the memory of ``a``, which must not be used again."""

    def dump(self, a: Ciphertext) -> bytes:
        """Serialise, for another process or the wire."""

    def load(self, data: bytes) -> Ciphertext:
        """Read what :meth:`dump` or the key owner wrote; everything in it is checked."""


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

    def multiply_accumulate(
        self, lefts: Sequence[Ciphertext], rights: Sequence[Ciphertext], onto: Ciphertext | None = None
    ) -> Ciphertext:
        if not lefts or len(lefts) != len(rights):
            raise EngineError(f"a product sum of {len(lefts)} by {len(rights)} ciphertexts")
        first = lefts[0]
        for c in (*lefts, *rights):
            _same(first, c)
        if first.product or first.size != 2:
            raise EngineError("a product of unrescaled or unrelinearised ciphertexts")
        if first.level < 1:
            raise EngineError("no level left for a product", remedy="Plan fewer steps or a larger ring.")
        if onto is not None and (onto.level != first.level or not onto.product or onto.size != 3):
            raise EngineError("a product sum onto a ciphertext of another level or scale")
        raw = self._timed(
            "multiply",
            first.level,
            self._multiply_accumulate,
            [c.raw for c in lefts],
            [c.raw for c in rights],
            None if onto is None else onto.raw,
            count=len(lefts),
        )
        return Ciphertext(raw, first.level, product=True, size=3)

    def relinearise(self, a: Ciphertext) -> Ciphertext:
        if a.size != 3:
            raise EngineError("nothing to relinearise")
        raw = self._timed("relinearise", a.level, self._relinearise, a.raw)
        return Ciphertext(raw, a.level, a.product, size=2)

    def rescale(self, a: Ciphertext) -> Ciphertext:
        if not a.product:
            raise EngineError("nothing to rescale")
        raw = self._timed("rescale", a.level, self._rescale, a.raw, a.level)
        return Ciphertext(raw, a.level - 1, product=False, size=a.size)

    def multiply_scalar(self, a: Ciphertext, factor: float) -> Ciphertext:
        if a.product or a.size != 2 or a.level < 1:
            raise EngineError("a scalar product of an unrescaled ciphertext, or without a level left")
        if abs(factor) * self.parameters.scale < 1e3:
            raise EngineError(f"the factor {factor:g} lies below the scale's resolution")
        raw = self._timed("multiply_scalar", a.level, self._multiply_scalar, a.raw, factor, a.level)
        return Ciphertext(raw, a.level - 1)

    def rotate(self, a: Ciphertext, steps: int) -> Ciphertext:
        steps %= self.parameters.slots
        if steps == 0:
            return a
        if steps not in self.keys.rotations:
            raise EngineError(f"no key for a rotation by {steps}", remedy="Make keys from this study's plan.")
        if a.size != 2:
            raise EngineError("a rotation before relinearisation")
        return self._as(a, self._timed("rotate", a.level, self._rotate, a.raw, steps))

    def conjugate(self, a: Ciphertext) -> Ciphertext:
        if a.size != 2:
            raise EngineError("a conjugation before relinearisation")
        return self._as(a, self._timed("rotate", a.level, self._conjugate, a.raw))

    def at_level(self, a: Ciphertext, level: int) -> Ciphertext:
        return self._switched(a, level, self._at_level)

    def lower(self, a: Ciphertext, level: int) -> Ciphertext:
        return self._switched(a, level, self._lower)

    def _switched(self, a: Ciphertext, level: int, switch: Callable[[Any, int], Any]) -> Ciphertext:
        if level == a.level:
            return a
        if not 0 <= level < a.level or a.product:
            raise EngineError(f"level {a.level} cannot become level {level}")
        return Ciphertext(self._timed("switch", a.level, switch, a.raw, level), level, size=a.size)

    def dump(self, a: Ciphertext) -> bytes:
        return self._timed("dump", a.level, self._dump, a)

    def load(self, data: bytes) -> Ciphertext:
        start = time.perf_counter()
        found = self._load(data)
        self._record("load", found.level, start, 1)
        return found

    def _as(self, a: Ciphertext, raw: Any) -> Ciphertext:
        return Ciphertext(raw, a.level, a.product, a.size)

    def _timed(self, name: str, level: int, f: Callable[..., T], *args: Any, count: int = 1) -> T:
        start = time.perf_counter()
        result = f(*args)
        self._record(name, level, start, count)
        return result

    def _record(self, name: str, level: int, start: float, count: int) -> None:
        self.ledger.seconds[name, level] += time.perf_counter() - start
        self.ledger.counts[name, level] += count

    @abstractmethod
    def _dump(self, a: Ciphertext) -> bytes: ...
    @abstractmethod
    def _load(self, data: bytes) -> Ciphertext: ...
    @abstractmethod
    def _add(self, a: Any, b: Any) -> Any: ...
    @abstractmethod
    def _subtract(self, a: Any, b: Any) -> Any: ...
    @abstractmethod
    def _multiply_accumulate(self, lefts: list[Any], rights: list[Any], onto: Any | None) -> Any: ...
    @abstractmethod
    def _relinearise(self, a: Any) -> Any: ...
    @abstractmethod
    def _rescale(self, a: Any, level: int) -> Any: ...
    @abstractmethod
    def _multiply_scalar(self, a: Any, factor: float, level: int) -> Any: ...
    @abstractmethod
    def _rotate(self, a: Any, steps: int) -> Any: ...
    @abstractmethod
    def _conjugate(self, a: Any) -> Any: ...
    @abstractmethod
    def _at_level(self, a: Any, level: int) -> Any: ...
    @abstractmethod
    def _lower(self, a: Any, level: int) -> Any: ...


def _same(a: Ciphertext, b: Ciphertext) -> None:
    if (a.level, a.product, a.size) != (b.level, b.product, b.size):
        raise EngineError(
            f"ciphertexts differ: levels {a.level} and {b.level}, products {a.product} and {b.product}, "
            f"sizes {a.size} and {b.size}"
        )
