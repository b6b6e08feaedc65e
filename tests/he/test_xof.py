"""Seeds to residues: against SEAL's own generator, word by word, refused words included."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.he.codec import sealapi
from blindtune.he.xof import uniform


def words(seed: bytes) -> Iterator[int]:
    """SEAL's own generator, which draws 32 bits at a time."""
    generator = sealapi().Blake2xbPRNG(list(struct.unpack("<8Q", seed)))
    while True:
        yield generator.generate() | generator.generate() << 32


def reference(seed: bytes, primes: list[int], n: int) -> list[list[int]]:
    """SEAL's sample_poly_uniform."""
    stream = words(seed)
    drawn = [[next(stream) for _ in range(n)] for _ in primes]
    found = []
    for q, row in zip(primes, drawn, strict=True):
        limit = 2**64 - 1 - (2**64 - 1) % q - 1
        residues = []
        for x in row:
            while x >= limit:
                x = next(stream)
            residues.append(x % q)
        found.append(residues)
    return found


def expanded(seed: bytes, primes: list[int], n: int) -> list[list[int]]:
    out = np.empty((len(primes), n), np.uint64)
    uniform(seed, np.array(primes, np.uint64), out)
    return [[int(x) for x in row] for row in out]


@given(
    st.binary(min_size=64, max_size=64),
    st.lists(st.integers(2**19, 2**60 - 1), min_size=1, max_size=5),
    st.sampled_from([64, 512, 1024]),
)
def test_equals_the_definition(seed: bytes, primes: list[int], n: int) -> None:
    assert expanded(seed, primes, n) == reference(seed, primes, n)


def test_many_refused_words() -> None:
    """A modulus just above 2^63 refuses half of all words, so the stream goes on for several buffers."""
    seed, primes = os.urandom(64), [2**63 + 29, 2**30 + 3, 2**63 + 29, 2**63 - 25]
    assert expanded(seed, primes, 1024) == reference(seed, primes, 1024)


@pytest.mark.parametrize(("seed", "shape"), [(64, (2, 64)), (63, (1, 64)), (64, (1, 96))])
def test_refusals(seed: int, shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"64|multiple"):
        uniform(bytes(seed), np.array([2**30 + 3], np.uint64), np.empty(shape, np.uint64))
