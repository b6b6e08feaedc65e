"""Constants and roots of unity of each modulus, in the order that SEAL's transforms use."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.he.fast.storage import aligned

Words = NDArray[np.uint64]

MAX_MODULUS = 1 << 50
"""Moduli stay below: lazy residues reach 4q, and the multiplier takes 52 bits."""

NARROW = 1 << 32
"""Residues of a modulus below take four bytes."""

LAZY = 1 << 44
"""Below, forward transforms need no reductions on the way: see :mod:`.transform`."""

LAZY_MODULI = 70
"""A lazy transform adds less than so many moduli: 2 log2(N) twice, a half and a rounding, N <= 2^16."""

# Columns of a modulus' row of constants. Q .. TWO104_RATIO serve the reduction of a sum.
Q, RATIO, TWO52, TWO52_RATIO, TWO104, TWO104_RATIO, HALF = range(7)
# Addresses of the tables of roots, forward and inverse, each with its Shoup ratios.
ROOTS, ROOT_RATIOS, INVERSE_ROOTS, INVERSE_ROOT_RATIOS = range(7, 11)
# Byte offset of the modulus' row in a polynomial; whether its residues are narrow, its transforms lazy.
OFFSET, IS_NARROW, IS_LAZY = range(11, 14)
# The row's own address: emitted code reads constants by address.
SELF = 14
COLUMNS = 16

# Columns for dividing by one modulus under another: inverse, its ratio, minus half the divisor, a multiple
# of the modulus above what a lazy transform of the divisor's residues yields, and the row's own address.
INVERSE, INVERSE_RATIO, MINUS_HALF, ABOVE, DIVISION_SELF = range(5)
DIVISION_COLUMNS = 8


class Chain:
    """The constants of a chain of moduli.

    Attributes:
        degree: N.
        moduli: the data moduli, then the special one.
        constants: (moduli, COLUMNS).
        divisions: (divisor, modulus, DIVISION_COLUMNS).
        stride: bytes of a polynomial over all moduli.
    """

    def __init__(self, degree: int, moduli: tuple[int, ...]) -> None:
        self.degree, self.moduli = degree, moduli
        count = len(moduli)
        self.constants = aligned((count, COLUMNS), np.int64)
        self.divisions = aligned((count, count, DIVISION_COLUMNS), np.int64)
        # Held here, as only addresses are used: a table that is computed twice at once, or long ago, is not
        # the one that the cache keeps.
        self._roots = [roots(q, degree) for q in moduli]
        offset = 0
        for j, (q, tables) in enumerate(zip(moduli, self._roots, strict=True)):
            wide = 4 if q < NARROW else 8
            c, d = (1 << 52) % q, (1 << 104) % q
            row = [q, (1 << 52) // q, c, (c << 52) // q, d, (d << 52) // q, q >> 1]
            row += [table.ctypes.data for table in tables]
            row += [offset, int(wide == 4), int(q < LAZY), self.constants[j].ctypes.data]
            self.constants[j, : len(row)] = row
            offset += degree * wide
            for i, divisor in enumerate(moduli):
                if i != j:
                    inverse = pow(divisor, -1, q)
                    row = [
                        inverse,
                        (inverse << 52) // q,
                        q - (divisor >> 1) % q,
                        q * (divisor // q + LAZY_MODULI),
                        self.divisions[i, j].ctypes.data,
                    ]
                    self.divisions[i, j, : len(row)] = row
        self.stride = offset

    def bytes_of(self, limbs: int) -> int:
        """Bytes of a polynomial over the first ``limbs`` moduli."""
        return self.stride if limbs == len(self.moduli) else int(self.constants[limbs, OFFSET])


@lru_cache(maxsize=256)
def roots(q: int, degree: int) -> tuple[Words, Words, Words, Words]:
    """Powers of the least primitive 2N-th root in bit-reversed order, their ratios, and the inverses'.

    The inverse's first entries, which no butterfly needs, hold 1/N and its product with the last root.
    """
    exponent, base = (q - 1) // (2 * degree), 2
    while pow(pow(base, exponent, q), degree, q) != q - 1:
        base += 1
    any_root = pow(base, exponent, q)
    odd = _product(_powers(any_root * any_root % q, degree, q), np.uint64(any_root), q)
    powers = _powers(int(odd.min()), degree, q)
    negated = np.empty_like(powers)
    negated[0], negated[1:] = 1, np.uint64(q) - powers[:0:-1]
    order = reversed_bits(degree)
    forward, inverse = powers[order], negated[order]
    whole = pow(degree, -1, q)
    inverse[0], inverse[1] = whole, int(inverse[1]) * whole % q
    return tuple(
        _aligned_copy(table) for table in (forward, _ratios(forward, q), inverse, _ratios(inverse, q))
    )


def reversed_bits(count: int) -> NDArray[np.int64]:
    """The numbers below a power of two with their bits reversed."""
    order = np.zeros(1, np.int64)
    while len(order) < count:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order


@lru_cache(maxsize=256)
def automorphism(element: int, degree: int) -> NDArray[np.int32]:
    """Where each residue of a transformed polynomial comes from under X -> X^element."""
    exponents = 2 * reversed_bits(degree) + 1
    order = reversed_bits(degree)
    table: NDArray[np.int32] = _aligned_copy(order[element * exponents % (2 * degree) >> 1].astype(np.int32))
    return table


def _powers(base: int, count: int, q: int) -> Words:
    powers, step = np.ones(1, np.uint64), base
    while len(powers) < count:
        powers, step = np.concatenate([powers, _product(powers, np.uint64(step), q)]), step * step % q
    return powers


def _product(a: Words, b: np.uint64, q: int) -> Words:
    """``a·b mod q``: the quotient in doubles is wrong by one at most, as q < 2^50."""
    quotient = (a.astype(np.float64) * float(b) / q).astype(np.uint64)
    rest = (a * b - quotient * np.uint64(q)).astype(np.int64)
    rest += np.where(rest < 0, q, 0)
    return (rest - np.where(rest >= q, q, 0)).astype(np.uint64)


def _ratios(w: Words, q: int) -> Words:
    """floor(2^52 w / q)."""
    quotient = (w.astype(np.float64) * (2.0**52 / q)).astype(np.int64)
    rest = ((w << np.uint64(52)) - quotient.astype(np.uint64) * np.uint64(q)).astype(np.int64)
    return (quotient + rest // q).astype(np.uint64)


def _aligned_copy(array: NDArray[Any]) -> Any:
    copy = aligned(array.shape, array.dtype)
    copy[...] = array
    return copy
