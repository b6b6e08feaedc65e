"""Objects with their residues cut out."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from blindtune.errors import EngineError
from blindtune.he.openfhe.mould import Mould, residues_of

N, PRIMES = 8, (97, 113, 97)


def serialised(rows: np.ndarray) -> bytes:
    """Rows between bytes that look like the beginning of one."""
    data = b"head" + struct.pack("<QQ", N, 5)
    for row, q in zip(rows, PRIMES, strict=True):
        data += b"\x01" + struct.pack("<Q", N) + row.astype("<u8").tobytes() + struct.pack("<Q", q)
    return data + b"tail"


def draw(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 97, (3, N)).astype(np.uint64)


def test_what_is_filled_in_is_what_would_have_been_written() -> None:
    first, second = draw(0), draw(1)
    mould = Mould(serialised(first), PRIMES, N)
    assert mould.fill(second) == serialised(second)
    assert (residues_of(serialised(second), PRIMES, N) == second).all()


def test_a_row_that_holds_what_looks_like_a_row() -> None:
    rows = draw(0)
    rows[0, 0] = N
    assert (residues_of(serialised(rows), PRIMES, N) == rows).all()


def test_other_rows_are_refused() -> None:
    data = serialised(draw(0))
    for primes, n in (((97, 97, 97), N), ((*PRIMES, 97), N), ((97, 97), N), (PRIMES, 16)):
        with pytest.raises(EngineError, match="another way"):
            Mould(data, primes, n)
