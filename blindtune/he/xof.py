"""SEAL's public seeds to residues: BLAKE2Xb in eight lanes, equal to SEAL's own expansion word by word.

SEAL 4 sends the second polynomial of a fresh ciphertext or key as a seed of 64 bytes. Its generator hashes
the seed and a counter (BLAKE2Xb, 4096 bytes each time); the words of the stream, modulus after modulus,
are reduced, and words at the upper end, which would favour small residues, are replaced afterwards by
further words of the stream. Everything here is public.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

_LANES = 8
_helpers: Any = cgutils
_I64 = ir.IntType(64)
_VECTOR = ir.VectorType(_I64, _LANES)
_U = np.uint64
_BUFFER = 512
"""Words in one call of the hash: SEAL's buffer of 4096 bytes."""
_ONES = 2**64 - 1
_INITIAL = (
    0x6A09E667F3BCC908,
    0xBB67AE8584CAA73B,
    0x3C6EF372FE94F82B,
    0xA54FF53A5F1D36F1,
    0x510E527FADE682D1,
    0x9B05688C2B3E6C1F,
    0x1F83D9ABFB41BD6B,
    0x5BE0CD19137E2179,
)
_SIGMA = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
    (11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4),
    (7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
    (9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13),
    (2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
    (12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11),
    (13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
    (6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5),
    (10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
)
_MIXES = (
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
)


def _block(*parameters: int) -> NDArray[np.uint64]:
    """The state that BLAKE2b starts from under a parameter block."""
    return np.array([x ^ y for x, y in zip(_INITIAL, (*parameters, 0, 0, 0, 0, 0), strict=True)], np.uint64)


_OFFSET_WORD = (_BUFFER * 8) << 32
"""Length of the whole output; the lower half counts the output's blocks."""
_ROOT = _block(64 | 64 << 8 | 1 << 16 | 1 << 24, _OFFSET_WORD, 0)
_LEAF = _block(64 | 64 << 32, _OFFSET_WORD, 64 << 8)


def _compression(context: Any, state: Any, message: Any, count: Any, last: Any) -> Any:
    """BLAKE2b's compression, lane by lane.

    Args:
        state: address of 8 rows of lanes, read and written.
        message: address of 16 rows of lanes.
        count: bytes so far.
        last: all ones in the last block, else zero.
    """

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        state, message, count, last = arguments

        def at(address: Any, row: int) -> Any:
            offset = builder.add(address, ir.Constant(_I64, row * _LANES * 8))
            return builder.inttoptr(offset, _VECTOR.as_pointer())

        def load(address: Any, row: int) -> Any:
            loaded = builder.load(at(address, row))
            loaded.align = 8
            return loaded

        def constant(value: int) -> Any:
            return ir.Constant(_VECTOR, [value] * _LANES)

        def spread(value: Any) -> Any:
            one = builder.insert_element(
                ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
            )
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
            return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), zeros)

        def rotate(value: Any, bits: int) -> Any:
            right = builder.lshr(value, constant(bits))
            return builder.or_(right, builder.shl(value, constant(64 - bits)))

        table = ir.Constant(ir.ArrayType(_I64, 160), [64 * word for order in _SIGMA for word in order])
        schedule = _helpers.global_constant(builder, "blake2b_schedule", table)
        before = [load(state, row) for row in range(8)]
        v = [*before, *(constant(x) for x in _INITIAL)]
        v[12] = builder.xor(v[12], spread(count))
        v[14] = builder.xor(v[14], spread(last))
        kept = [_helpers.alloca_once_value(builder, x) for x in v]
        # A loop over the rounds: unrolled, the compiler would take many seconds.
        with _helpers.for_range(builder, ir.Constant(_I64, 12)) as loop:
            turn = builder.urem(loop.index, ir.Constant(_I64, 10))
            v = [builder.load(x) for x in kept]
            for i, (a, b, c, d) in enumerate(_MIXES):
                for half, (first, second) in enumerate(((32, 24), (16, 63))):
                    entry = builder.add(
                        builder.mul(turn, ir.Constant(_I64, 16)), ir.Constant(_I64, 2 * i + half)
                    )
                    offset = builder.load(builder.gep(schedule, [ir.Constant(_I64, 0), entry]))
                    word = load(builder.add(message, offset), 0)
                    v[a] = builder.add(builder.add(v[a], v[b]), word)
                    v[d] = rotate(builder.xor(v[d], v[a]), first)
                    v[c] = builder.add(v[c], v[d])
                    v[b] = rotate(builder.xor(v[b], v[c]), second)
            for x, value in zip(kept, v, strict=True):
                builder.store(value, x)
        v = [builder.load(x) for x in kept]
        for row in range(8):
            stored = builder.store(builder.xor(before[row], builder.xor(v[row], v[row + 8])), at(state, row))
            stored.align = 8
        return ir.Constant(ir.IntType(8), 0)

    return types.uint8(types.uint64, types.uint64, types.uint64, types.uint64), generate


def _upper_half(context: Any, a: Any, b: Any) -> Any:
    """The upper half of a product of two words."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(x, wide) for x in arguments))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), _I64)

    return types.uint64(types.uint64, types.uint64), generate


_compress: Any = intrinsic(_compression)
_high: Any = intrinsic(_upper_half)


@nb.njit(nogil=True, cache=True)
def _step(state: NDArray[np.uint64], message: NDArray[np.uint64], count: Any, last: Any) -> None:
    """The one copy of the compression's thousands of instructions."""
    _compress(state.ctypes.data, message.ctypes.data, _U(count), _U(last))


@nb.njit(nogil=True, cache=True)
def _begin(state: NDArray[np.uint64], block: NDArray[np.uint64]) -> None:
    """Lanes of a fresh state under a parameter block."""
    for row in range(8):
        for lane in range(_LANES):
            state[row, lane] = block[row]


@nb.njit(nogil=True, cache=True)
def _roots(seed: NDArray[np.uint64], counter: int, state: NDArray[np.uint64], m: NDArray[np.uint64]) -> None:
    """Root hashes of the buffers ``counter … counter + 7``, one a lane; ``m`` is zero before and after."""
    _begin(state, _ROOT)
    for row in range(8):
        for lane in range(_LANES):
            m[row, lane] = seed[row]
    _step(state, m, _U(128), _U(0))
    for row in range(8):
        for lane in range(_LANES):
            m[row, lane] = counter + lane if row == 0 else 0
    _step(state, m, _U(136), _U(_ONES))
    for lane in range(_LANES):
        m[0, lane] = 0


@nb.njit(nogil=True, cache=True)
def _words(
    roots: NDArray[np.uint64], lane: int, group: int, state: NDArray[np.uint64], m: NDArray[np.uint64]
) -> None:
    """Words ``64·group … 64·group + 63`` of a buffer; word ``8·l + r`` of them is ``state[r, l]``."""
    _begin(state, _LEAF)
    for k in range(_LANES):
        state[1, k] ^= _U(group * _LANES + k)
        for row in range(8):
            m[row, k] = roots[row, lane]
    _step(state, m, _U(64), _U(_ONES))


@nb.njit(nogil=True, cache=True)
def _reduce(x: Any, q: Any, ratio: Any) -> Any:
    r = x - _high(x, ratio) * q
    return r - q if r >= q else r


@nb.njit(nogil=True, cache=True)
def _uniform(
    seed: NDArray[np.uint64],
    primes: NDArray[np.uint64],
    ratios: NDArray[np.uint64],
    limits: NDArray[np.uint64],
    out: NDArray[np.uint64],
) -> None:
    limbs, n = out.shape
    roots = np.empty((8, _LANES), np.uint64)
    state = np.empty((8, _LANES), np.uint64)
    root = np.zeros((16, _LANES), np.uint64)
    leaf = np.zeros((16, _LANES), np.uint64)
    refused = 0
    for first in range(0, limbs * n, 64):
        buffer, group = first // _BUFFER, first % _BUFFER // 64
        if first % (_LANES * _BUFFER) == 0:
            _roots(seed, buffer, roots, root)
        _words(roots, buffer % _LANES, group, state, leaf)
        limb, at = first // n, first % n
        q, ratio, limit = primes[limb], ratios[limb], limits[limb]
        for k in range(_LANES):
            for row in range(8):
                x = state[row, k]
                if x >= limit:
                    refused += 1
                    out[limb, at + 8 * k + row] = _U(_ONES)
                else:
                    out[limb, at + 8 * k + row] = _reduce(x, q, ratio)
    word = limbs * n
    for limb in range(limbs):
        if refused == 0:
            return
        q, ratio, limit = primes[limb], ratios[limb], limits[limb]
        for i in range(n):
            if out[limb, i] != _U(_ONES):
                continue
            x = limit
            while x >= limit:
                # Few words are refused: one group of 64 for each is cheap enough.
                _roots(seed, word // _BUFFER, roots, root)
                _words(roots, 0, word % _BUFFER // 64, state, leaf)
                x = state[word % 8, word % 64 // 8]
                word += 1
            out[limb, i] = _reduce(x, q, ratio)
            refused -= 1


def uniform(seed: bytes, primes: NDArray[np.uint64], out: NDArray[np.uint64]) -> None:
    """Residues (limbs, N) of the polynomial that SEAL expands from a seed; releases the interpreter lock."""
    words = np.frombuffer(seed, np.uint64)
    if len(words) != 8 or out.shape[1] % 64 or len(primes) != len(out) or not out.flags.c_contiguous:
        raise ValueError("a seed of 64 bytes, and residues of whole groups of 64")
    ratios = np.array([(1 << 64) // int(q) for q in primes], np.uint64)
    limits = np.array([_ONES - _ONES % int(q) - 1 for q in primes], np.uint64)
    _uniform(words, primes, ratios, limits, out)
