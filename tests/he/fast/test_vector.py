"""Both lowerings of the multiply-add against Python's integers."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.he.fast.emitted import emitted
from blindtune.he.fast.vector import Lanes, Variant
from tests.he.fast.pairs import VARIANTS


def _probe(v: Lanes, c: Any, x: Any, y: Any, low: Any, high: Any) -> None:
    arguments = [v.load(a) for a in (c, x, y)]
    v.store(v.low(*arguments), low)
    v.store(v.high(*arguments), high)


_emitted = emitted(_probe)


@numba.njit
def _run(variant: Any, c: int, x: int, y: int, low: int, high: int) -> None:
    _emitted(variant, c, x, y, low, high)


@pytest.mark.parametrize("variant", VARIANTS)
@given(
    c=st.lists(st.integers(0, 2**63), min_size=8, max_size=8),
    x=st.lists(st.integers(0, 2**64 - 1), min_size=8, max_size=8),
    y=st.lists(st.integers(0, 2**64 - 1), min_size=8, max_size=8),
)
def test_multiply_add(variant: Variant, c: list[int], x: list[int], y: list[int]) -> None:
    arrays = [np.array(values, np.uint64) for values in (c, x, y)]
    low, high = np.zeros(8, np.uint64), np.zeros(8, np.uint64)
    _run(variant.tag, *(int(a.ctypes.data) for a in (*arrays, low, high)))
    mask = 2**52 - 1
    products = [(a & mask) * (b & mask) for a, b in zip(x, y, strict=True)]
    assert low.tolist() == [(a + (p & mask)) % 2**64 for a, p in zip(c, products, strict=True)]
    assert high.tolist() == [(a + (p >> 52)) % 2**64 for a, p in zip(c, products, strict=True)]
