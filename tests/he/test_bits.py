"""Packed residues: round trips of any primes, and what is not below its prime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.he.bits import pack, packed_words, unpack

odd = st.integers(2**19, 2**60 - 1).map(lambda q: q | 1)


@given(st.lists(odd, min_size=1, max_size=4), st.sampled_from([64, 128, 1024]), st.integers(0, 2**32))
def test_round_trip(primes: list[int], n: int, seed: int) -> None:
    moduli = np.array(primes, np.uint64)
    residues = np.random.default_rng(seed).integers(0, moduli[:, None], (len(primes), n), np.uint64)
    residues[:, 0], residues[:, -1] = 0, moduli - np.uint64(1)
    # What was there before does not matter.
    packed = np.full(packed_words(moduli, n), 2**64 - 1, np.uint64)
    assert pack(residues, moduli, packed)
    assert packed.nbytes == sum(q.bit_length() for q in primes) * n // 8
    found = np.full_like(residues, 7)
    assert unpack(packed, moduli, found)
    np.testing.assert_array_equal(found, residues)


@given(odd, st.integers(0, 127), st.integers(0, 2**64 - 1))
def test_too_large(q: int, place: int, value: int) -> None:
    moduli = np.array([q], np.uint64)
    residues = np.zeros((1, 128), np.uint64)
    residues[0, place] = value
    packed = np.empty(packed_words(moduli, 128), np.uint64)
    assert pack(residues, moduli, packed) == (value < q)
    # All residues of b ones are at least q.
    packed[:] = 2**64 - 1
    assert not unpack(packed, moduli, residues)


def test_other_sizes() -> None:
    moduli, residues = np.array([2**30 + 1], np.uint64), np.zeros((1, 128), np.uint64)
    for call in (pack, unpack):
        with pytest.raises(ValueError, match="another size"):
            call(*((residues, moduli, np.zeros(61, np.uint64))[:: 1 if call is pack else -1]))
