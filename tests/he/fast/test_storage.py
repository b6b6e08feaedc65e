"""Buffers are aligned, apart, and used again once forgotten."""

from __future__ import annotations

import numpy as np

from blindtune.he.fast.storage import Pool, aligned, view


def test_buffers_are_aligned_and_apart() -> None:
    pool = Pool()
    buffers = [pool.take(size) for size in (1, 20_000, 1 << 26, 100)]
    assert all(b.address % 64 == 0 for b in buffers)
    for i, b in enumerate(buffers):
        view(b.address, (b.size,), np.uint8)[:] = i
    assert all((view(b.address, (b.size,), np.uint8) == i).all() for i, b in enumerate(buffers))


def test_a_forgotten_buffer_is_used_again() -> None:
    pool = Pool()
    first = pool.take(50_000)
    address = first.address
    del first
    assert pool.take(50_000).address == address
    assert pool.take(50_000).address == address


def test_the_same_row_of_neighbours_falls_on_other_sets_of_a_cache() -> None:
    pool, way = Pool(), 1 << 17
    buffers = [pool.take(1 << 20) for _ in range(64)]
    assert len({b.address % way // 64 for b in buffers}) == 64


def test_what_was_reserved_is_handed_out_and_no_more_is_asked_for() -> None:
    pool = Pool()
    pool.reserve(100 << 20)
    pages = [(slab.ctypes.data, slab.nbytes) for slab in pool._spare]
    assert sum(size for _, size in pages) >= 100 << 20
    taken = [pool.take(10 << 20) for _ in range(8)]
    assert all(any(start <= b.address < start + size for start, size in pages) for b in taken)
    assert pool.take(1 << 27).size >= 1 << 27


def test_aligned_arrays_are_zero() -> None:
    a = aligned((3, 5), np.int64)
    assert a.ctypes.data % 64 == 0
    assert a.shape == (3, 5)
    assert not a.any()
