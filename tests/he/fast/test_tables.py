"""Roots against their definition."""

from __future__ import annotations

import gc
import time
import weakref

import numpy as np
import pytest

from blindtune.he.fast import tables
from blindtune.he.fast.tables import Chain, automorphism, reversed_bits, roots
from blindtune.params import ParametersLiteral


@pytest.mark.parametrize("bits", [28, 31, 43, 49])
def test_roots_are_powers_of_the_least_root_with_their_ratios(bits: int) -> None:
    n = 1024
    q = ParametersLiteral(n, 1, 30, 50, bits, security=0).checked().primes[-1]
    forward, ratios, inverse, inverse_ratios = (table.tolist() for table in roots(q, n))
    root = forward[n // 2]
    assert pow(root, n, q) == q - 1
    assert root == min(pow(root, e, q) for e in range(1, 2 * n, 2))
    order = reversed_bits(n).tolist()
    assert forward == [pow(root, e, q) for e in order]
    assert ratios == [(w << 52) // q for w in forward]
    assert inverse[2:] == [pow(root, -e, q) for e in order[2:]]
    assert inverse[0] == pow(n, -1, q)
    assert inverse[1] == pow(root, -(n // 2), q) * inverse[0] % q
    assert inverse_ratios == [(w << 52) // q for w in inverse]


def test_reversed_bits() -> None:
    assert reversed_bits(8).tolist() == [0, 4, 2, 6, 1, 5, 3, 7]


@pytest.mark.parametrize("element", [3, 25, 2047])
def test_an_automorphism_takes_aligned_runs_to_aligned_runs(element: int) -> None:
    table = automorphism(element, 1024)
    assert sorted(table.tolist()) == list(range(1024))
    runs = table.reshape(-1, 8) >> 3
    assert (runs == runs[:, :1]).all()


def test_rows_take_four_bytes_below_two_to_the_32() -> None:
    chain = Chain(1024, ParametersLiteral(1024, 3, security=0).checked().primes)
    assert chain.constants[:, tables.IS_NARROW].tolist() == [0, 1, 1, 1, 0]
    assert chain.constants[:, tables.IS_LAZY].tolist() == [1, 1, 1, 1, 0]
    assert chain.constants[:, tables.OFFSET].tolist() == [0, 8192, 12288, 16384, 20480]
    assert (chain.bytes_of(2), chain.bytes_of(5), chain.stride) == (12288, 28672, 28672)


def test_tables_whose_addresses_are_used_outlive_the_cache() -> None:
    moduli = ParametersLiteral(1024, 3, security=0).checked().primes
    chain = Chain(1024, moduli)
    table = weakref.ref(roots(moduli[0], 1024)[0])
    roots.cache_clear()
    gc.collect()
    assert table() is not None
    del chain
    gc.collect()
    assert table() is None


def test_tables_of_a_long_chain_are_quick() -> None:
    parameters = ParametersLiteral(32768, 26, 30, security=0).checked()
    roots.cache_clear()
    start = time.process_time()
    Chain(32768, parameters.primes)
    assert time.process_time() - start < 3, "aimed at: 1 s on a quiet machine"
    assert np.all(Chain(32768, parameters.primes).divisions >= 0)
