"""Residues below a prime of b bits in b bits each instead of 64, checked on the way in and out.

A polynomial of N residues is seen as 64 rows of N / 64; each column packs into b words, so that all
columns shift by the same amounts and the processor handles many at a time.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

ROWS = 64

_U = np.uint64


def packed_words(primes: NDArray[np.uint64], n: int) -> int:
    """Words that a residue polynomial of n coefficients packs into, all limbs together."""
    return sum(int(q).bit_length() for q in primes) * n // ROWS


def pack(residues: NDArray[np.uint64], primes: NDArray[np.uint64], out: NDArray[np.uint64]) -> bool:
    """Pack residues (limbs, N); False if one of them is not below its prime. Needs no interpreter lock."""
    bits = np.array([int(q).bit_length() for q in primes], np.int64)
    if residues.shape[1] % ROWS or len(out) != packed_words(primes, residues.shape[1]):
        raise ValueError("packed residues of another size")
    return bool(_pack(residues, primes, bits, out))


def unpack(packed: NDArray[np.uint64], primes: NDArray[np.uint64], out: NDArray[np.uint64]) -> bool:
    """What :func:`pack` packed; False if a residue is not below its prime. Needs no interpreter lock."""
    bits = np.array([int(q).bit_length() for q in primes], np.int64)
    if out.shape[1] % ROWS or len(packed) != packed_words(primes, out.shape[1]):
        raise ValueError("packed residues of another size")
    return bool(_unpack(packed, primes, bits, out))


@nb.njit(nogil=True, cache=True)
def _pack(
    residues: NDArray[np.uint64], primes: NDArray[np.uint64], bits: NDArray[np.int64], out: NDArray[np.uint64]
) -> bool:
    limbs, n = residues.shape
    width = n // ROWS
    start, bad = 0, False
    for limb in range(limbs):
        b, q = bits[limb], primes[limb]
        for row in range(ROWS):
            word, shift = row * b // 64, row * b % 64
            source = residues[limb, row * width : (row + 1) * width]
            low = out[start + word * width : start + (word + 1) * width]
            over = _U(0)
            if shift == 0:
                for c in range(width):
                    over |= _U(source[c] >= q)
                    low[c] = source[c]
            else:
                for c in range(width):
                    over |= _U(source[c] >= q)
                    low[c] |= source[c] << _U(shift)
            bad |= over != 0
            if shift + b > 64:
                high = out[start + (word + 1) * width : start + (word + 2) * width]
                for c in range(width):
                    high[c] = source[c] >> _U(64 - shift)
        start += b * width
    return not bad


@nb.njit(nogil=True, cache=True)
def _unpack(
    packed: NDArray[np.uint64], primes: NDArray[np.uint64], bits: NDArray[np.int64], out: NDArray[np.uint64]
) -> bool:
    limbs, n = out.shape
    width = n // ROWS
    start, bad = 0, False
    for limb in range(limbs):
        b, q = bits[limb], primes[limb]
        mask = (_U(1) << _U(b)) - _U(1)
        for row in range(ROWS):
            word, shift = row * b // 64, row * b % 64
            target = out[limb, row * width : (row + 1) * width]
            low = packed[start + word * width : start + (word + 1) * width]
            over = _U(0)
            if shift + b > 64:
                high = packed[start + (word + 1) * width : start + (word + 2) * width]
                for c in range(width):
                    x = ((low[c] >> _U(shift)) | (high[c] << _U(64 - shift))) & mask
                    over |= _U(x >= q)
                    target[c] = x
            else:
                for c in range(width):
                    x = (low[c] >> _U(shift)) & mask
                    over |= _U(x >= q)
                    target[c] = x
            bad |= over != 0
        start += b * width
    return not bad
