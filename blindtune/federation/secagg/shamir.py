"""Shamir's secret sharing (1979) over the prime field of 2^521 - 1, for secrets of 32 bytes.

Written here because `cryptography` has none, and the one of PyCryptodome shares 16 bytes, fewer than a key.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

PRIME = (1 << 521) - 1
SECRET_BYTES = 32
SHARE_BYTES = 66


def split(secret: bytes, threshold: int, numbers: Sequence[int]) -> dict[int, bytes]:
    """Shares of a secret: any ``threshold`` of them give it back, fewer say nothing about it.

    Args:
        secret: 32 bytes.
        numbers: who gets a share: distinct, positive.

    Raises:
        ValueError: a secret of another length, a threshold that cannot be met, or bad numbers.
    """
    distinct = len(set(numbers)) == len(numbers) and all(0 < n < PRIME for n in numbers)
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= len(numbers) or not distinct:
        raise ValueError("secret, threshold and numbers do not fit together")
    coefficients = [int.from_bytes(secret, "big")]
    coefficients += [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    return {n: _at(coefficients, n).to_bytes(SHARE_BYTES, "big") for n in numbers}


def recover(shares: Mapping[int, bytes]) -> bytes | None:
    """The secret of exactly as many shares as the threshold; None if they are not shares of one.

    Wrong shares mostly give a number of more than 32 bytes, but need not: callers check the secret against a
    commitment.
    """
    value = interpolate(shares, 0)
    return value.to_bytes(SECRET_BYTES, "big") if value >> (8 * SECRET_BYTES) == 0 else None


def interpolate(shares: Mapping[int, bytes], at: int) -> int:
    """The value at ``at`` of the polynomial of least degree through the shares (Lagrange)."""
    total = 0
    for i, share in shares.items():
        above, below = 1, 1
        for j in shares:
            if j != i:
                above = above * (at - j) % PRIME
                below = below * (i - j) % PRIME
        total += int.from_bytes(share, "big") * above * pow(below, -1, PRIME)
    return total % PRIME


def _at(coefficients: Sequence[int], x: int) -> int:
    value = 0
    for c in reversed(coefficients):
        value = (value * x + c) % PRIME
    return value
