"""Memory for ciphertexts and keys: huge pages, handed out and taken back without the system's help.

A fresh megabyte from the system costs a page fault every four kilobytes, which is a tenth of a key
switch. So buffers come from slabs and go back to a list of their size when nothing refers to them.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

ALIGNMENT = 64
_HUGE = 1 << 21
_SLAB = 1 << 25
_PAGE = 1 << 12
# Buffers are rounded up to this, so that a level more or less often finds a used one.
_STEP = 1 << 14
# Rows are a power of two long: without a shift from buffer to buffer, the same coefficients of all
# ciphertexts would fall on a few sets of a cache, and push each other out of it.
_SHIFT, _WAY = 1536, 1 << 17


class Buffer:
    """Bytes at an address, given back when it is forgotten."""

    __slots__ = ("_pool", "address", "size")

    def __init__(self, pool: Pool, address: int, size: int) -> None:
        self._pool, self.address, self.size = pool, address, size

    def __del__(self) -> None:
        self._pool.free[self.size].append(self.address)


class Pool:
    """Hands out buffers; threads may share it."""

    def __init__(self) -> None:
        self.free: defaultdict[int, list[int]] = defaultdict(list)
        self._slabs: list[NDArray[np.uint8]] = []
        self._spare: deque[NDArray[np.uint8]] = deque()
        self._used = 0
        self._lock = threading.Lock()

    def reserve(self, size: int) -> None:
        """Take memory from the system ahead: what is touched for the first time in an operation delays it.

        Raises:
            MemoryError: the system has not so much.
        """
        for _ in range(-(-size // _SLAB)):
            slab = _pages(_SLAB)
            slab[::_PAGE] = 0
            self._spare.append(slab)

    def take(self, size: int) -> Buffer:
        """A buffer of at least ``size`` bytes, aligned, its contents undefined."""
        size = -(-size // _STEP) * _STEP + _SHIFT
        # Levels fall, so larger buffers of higher ones would never be used again: the next larger one is
        # taken. Without the lock, which a buffer forgotten in the middle of this could not take.
        for found in (size, *sorted(n for n in list(self.free) if n > size)):
            try:
                return Buffer(self, self.free[found].pop(), found)
            except IndexError:
                continue
        with self._lock:
            if not self._slabs or self._used + size > self._slabs[-1].nbytes:
                self._used %= _WAY
                self._slabs.append(self._slab(self._used + size))
            address = self._slabs[-1].ctypes.data + self._used
            self._used += size
        return Buffer(self, address, size)

    def _slab(self, size: int) -> NDArray[np.uint8]:
        if size <= _SLAB and self._spare:
            return self._spare.popleft()
        return _pages(max(size, _SLAB))


@dataclass(frozen=True, slots=True)
class Rows:
    """A ciphertext: rows of residues, one for each polynomial and modulus.

    Attributes:
        address: of the first polynomial.
        stride: bytes from one polynomial to the next; more than ``limbs`` need, at a lowered level.
        size: polynomials.
        limbs: moduli in use.
        owner: keeps the memory.
    """

    address: int
    stride: int
    size: int
    limbs: int
    owner: Any

    def polynomial(self, k: int) -> int:
        """The address of polynomial k."""
        return self.address + k * self.stride


def aligned(shape: Sequence[int], kind: DTypeLike) -> NDArray[Any]:
    """A zeroed array on a cache line's border."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(kind).reshape(shape)


def view(address: int, shape: Sequence[int], kind: DTypeLike) -> NDArray[Any]:
    """An array at an address; whoever owns the memory must outlive it."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    memory: Any = (ctypes.c_uint8 * size).from_address(address)
    found: NDArray[Any] = np.frombuffer(memory, np.uint8).view(kind)
    return found.reshape(shape)


def _pages(size: int) -> NDArray[np.uint8]:
    """Zeroed memory from the system, on a huge page's border, in huge pages where it grants them."""
    # Private: the memory of shared mappings gets no huge pages.
    pages = mmap.mmap(-1, size + _HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    raw = np.frombuffer(pages, np.uint8)
    start = -raw.ctypes.data % _HUGE
    return raw[start : start + size]
