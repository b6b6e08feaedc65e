"""What the kernels ask of an encryption library.

An :class:`Engine` evaluates on ciphertexts and holds public material only. Levels count the rescales
that are left; every ciphertext carries the nominal scale, or its square between a product and the
rescale after it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from blindtune.params import Parameters


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
    """Operations done, by (operation, level).

    Attributes:
        counts: ciphertexts, or products.
        calls: calls on batches of them; for products the left-hand ciphertexts, which are read once a call.
        seconds: inside them.
    """

    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    calls: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: defaultdict[tuple[str, int], float] = field(
        default_factory=lambda: defaultdict(float), compare=False
    )

    def add(self, other: Ledger) -> None:
        """Add another ledger to this one."""
        self.counts.update(other.counts)
        self.calls.update(other.calls)
        for key, seconds in other.seconds.items():
            self.seconds[key] += seconds

    @property
    def totals(self) -> dict[str, int]:
        """Counts by operation over all levels."""
        out: dict[str, int] = {}
        for (name, _), count in sorted(self.counts.items()):
            out[name] = out.get(name, 0) + count
        return out

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
        self,
        lefts: Sequence[Sequence[Ciphertext]],
        rights: Sequence[Sequence[Ciphertext]],
        onto: Sequence[Ciphertext] | None = None,
    ) -> list[Ciphertext]:
        """``Σ_i lefts[m][i] · rights[k][i]`` for every m and, within, every k; added to ``onto`` if given.

        A matrix product whose sums are neither relinearised nor rescaled.
        """

    def relinearise(self, batch: Sequence[Ciphertext]) -> list[Ciphertext]:
        """Back to two polynomials."""

    def rescale(self, batch: Sequence[Ciphertext]) -> list[Ciphertext]:
        """Divide products by their level's prime: one level down, nominal scale."""

    def multiply_scalar(self, a: Ciphertext, factor: float) -> Ciphertext:
        """``factor · a`` for a public real number, rescaled: one level down."""

    def rotate(
        self, batch: Sequence[Ciphertext], steps: int, onto: Sequence[Ciphertext] | None = None
    ) -> list[Ciphertext]:
        """Slot ``s`` of a result is slot ``s + steps``, cyclically; needs that key.

        Args:
            onto: added to the rotated ciphertexts, relinearised if they are not: both key switches
                then share one division by the special prime.
        """

    def conjugate(
        self, batch: Sequence[Ciphertext], onto: Sequence[Ciphertext] | None = None
    ) -> list[Ciphertext]:
        """Complex conjugate of every slot, added to ``onto`` as in :meth:`rotate`."""

    def at_level(self, a: Ciphertext, level: int) -> Ciphertext:
        """The same values at a lower level."""

    def refresh(self, batch: Sequence[Ciphertext]) -> list[Ciphertext]:
        """The same values with all levels.

        Raises:
            EngineError: most engines cannot; those of joint keys ask the hospitals.
        """

    def reserve(self, size: int) -> None:
        """Take so many bytes of working memory ahead, where an engine manages its own.

        Raises:
            MemoryError: the system has not so much.
        """

    def dump(self, a: Ciphertext) -> bytes:
        """Serialise, for another process or the wire."""

    def load(self, data: bytes) -> Ciphertext:
        """Read what :meth:`dump` or the key owner wrote; everything in it is checked."""
