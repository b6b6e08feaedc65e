"""Key switch and division by a modulus, as tasks that threads share.

A key switch is four phases: the target's rows to coefficients (:func:`digits`); for every modulus, the
special one first, the digits transformed under it and multiplied into the key (:func:`sums`); the special
modulus' two sums to coefficients (:func:`last_rows`); and under every data modulus the division by the
special one (:func:`divide`). A rescale is the last two. Tasks are (modulus, ciphertext) pairs with the
ciphertext running fastest, so that threads meet the same rows of a key in the shared cache.

Sums are lazy: with X < 4q < 2^52 and a key K < q < 2^50, a product's low part lies below 2^52 and its
high part below 2^50; :data:`MAX_TERMS` of them, with what was there before, stay below 2^64.
"""

from __future__ import annotations

from typing import Any

from blindtune.he.fast.emitted import compiled, emitted, put
from blindtune.he.fast.tables import (
    IS_LAZY,
    IS_NARROW,
    OFFSET,
    RATIO,
    ROOT_RATIOS,
    ROOTS,
    SELF,
    TWO52,
    TWO52_RATIO,
    TWO104,
    TWO104_RATIO,
    Q,
)
from blindtune.he.fast.transform import (
    forward_block,
    forward_first,
    forward_middle,
    inner_forward,
    inner_twiddles,
)
from blindtune.he.fast.vector import Lanes, Value

MAX_TERMS = 4000

LISTS = 8192
"""Bytes of working room before the buffers."""

MAX_BATCH = 256
"""Buffers that the lists have room for."""

ENTRY = 24
"""Bytes of an entry in the lists of :func:`_inner_products`."""


def reduced(v: Lanes, low: Value, high: Value, constants: Value) -> Value:
    """``low + 2^52 high mod q``, fully; both may fill 64 bits."""
    c = {k: v.words(constants, v.constant(k)) for k in (Q, RATIO, TWO52, TWO52_RATIO, TWO104, TWO104_RATIO)}
    q, mask, shift = c[Q], v.every((1 << 52) - 1), v.every(52)
    q2, negated = v.b.add(q, q), v.b.sub(v.every(1 << 52), q)
    high = v.b.add(high, v.b.lshr(low, shift))
    top = v.b.lshr(high, shift)
    low, high = v.b.and_(low, mask), v.b.and_(high, mask)
    total = v.barrett(low, c[RATIO], q)
    total = v.b.add(total, v.shoup(high, c[TWO52], c[TWO52_RATIO], negated))
    total = v.b.add(total, v.shoup(top, c[TWO104], c[TWO104_RATIO], negated))  # below 6q
    return v.within(total, v.b.add(q2, q2), q2, q)


def _inner_products(narrow: bool, lazy: bool) -> Any:
    """Σ digit · key for both components, on a run of groups of sixteen points.

    ``count`` digits lack their innermost stages, which are done here; ``ready`` are transformed rows. Of
    each, ``digits`` and ``rows`` list the address, the key's, and the bytes from one run of the key to the
    next. ``keep`` is -1 to add to what ``out0`` and ``out1`` hold, 0 to overwrite it.
    """
    width = 32 if narrow else 64

    def inner_products(
        v: Lanes,
        count: Value,
        digits: Value,
        ready: Value,
        rows: Value,
        start: Value,
        groups: Value,
        degree: Value,
        constants: Value,
        out0: Value,
        out1: Value,
        keep: Value,
    ) -> None:
        b = v.b
        _, q2, negated = v.moduli(v.word(constants, v.constant(Q)))
        roots, ratios = v.word(constants, v.constant(ROOTS)), v.word(constants, v.constant(ROOT_RATIOS))
        kept = v.spread(keep)
        # Low and high sums of component 0, both vectors, then of component 1.
        sums = [v.variable() for _ in range(8)]

        def entry(listed: Value, index: Value, group: Value) -> tuple[Value, Value]:
            place = v.at(listed, b.mul(index, v.constant(ENTRY)))
            key = b.add(v.word(place, v.constant(1)), b.mul(group, v.word(place, v.constant(2))))
            return v.word(place, v.constant(0)), key

        def accumulate(x: tuple[Value, Value], key: Value) -> None:
            for component in (0, 1):
                for half in (0, 1):
                    k = v.load(v.at(key, (2 * component + half) * width), narrow)
                    low, high = sums[4 * component + 2 * half : 4 * component + 2 * half + 2]
                    b.store(v.low(b.load(low), x[half], k), low)
                    b.store(v.high(b.load(high), x[half], k), high)

        with v.loop(groups) as loop:
            group = b.add(start, loop.index)
            point, wide = b.mul(group, v.constant(2 * width)), b.mul(group, v.constant(128))
            twiddles = inner_twiddles(v, roots, ratios, degree, group)
            for i, place in enumerate(sums):
                old = v.load(v.at((out0, out1)[i // 4], point, (i // 2 % 2) * width), narrow)
                b.store(v.every(0) if i % 2 else b.and_(kept, old), place)
            with v.loop(ready) as inner:
                row, key = entry(rows, inner.index, group)
                row = b.add(row, point)
                accumulate((v.load(row, narrow), v.load(v.at(row, width), narrow)), key)
            with v.loop(count) as inner:
                digit, key = entry(digits, inner.index, group)
                digit = b.add(digit, wide)
                x = inner_forward(v, v.load(digit), v.load(v.at(digit, 64)), twiddles, q2, negated, lazy)
                accumulate(x, key)
            for component, out in enumerate((out0, out1)):
                for half in (0, 1):
                    low, high = sums[4 * component + 2 * half : 4 * component + 2 * half + 2]
                    value = reduced(v, b.load(low), b.load(high), constants)
                    v.store(value, v.at(out, point, half * width), narrow)

    return emitted(inner_products)


def _prefetch_keys(v: Lanes, address: Value, step: Value, count: Value, size: Value) -> None:
    """Ask for ``size`` bytes at each of ``count`` places: what the next block needs of a key."""
    with v.loop(count) as loop:
        run = v.b.add(address, v.b.mul(loop.index, step))
        with v.loop(v.b.lshr(size, v.constant(6))) as inner:
            v.prefetch(v.b.add(run, v.b.shl(inner.index, v.constant(6))))


_prefetch = emitted(_prefetch_keys)
_products_wide = _inner_products(False, False)
_products_lazy_wide = _inner_products(False, True)
_products_narrow = _inner_products(True, True)


@compiled
def _key_place(constants: Any, j: int, key: int, digits: int) -> Any:
    """The address of modulus j in a key of so many digits: the special modulus stands behind theirs."""
    behind = min(j, digits) if j == len(constants) - 1 else j
    return key + 2 * digits * constants[behind, OFFSET]


@compiled
def _enter(listed: int, index: int, row: int, key: int, step: int) -> None:
    """Write an entry of :func:`_inner_products`' lists."""
    put(listed, 3 * index, row)
    put(listed, 3 * index + 1, key)
    put(listed, 3 * index + 2, step)


@compiled
def switch_row(
    variant: Any,
    j: int,
    limbs: int,
    targets: int,
    n: int,
    lg: int,
    constants: Any,
    coefficients: int,
    stride: int,
    rows: Any,
    keys: Any,
    out0: int,
    out1: int,
    scratch: int,
    batch: int,
) -> None:
    """Both sums under modulus j over all digits of all targets.

    Args:
        coefficients: address of the digits; those of target t stand ``t * stride`` behind.
        rows: addresses of the transformed targets.
        keys: address and digits of each target's key.
        scratch: room for ``batch`` working buffers and the lists of addresses.
        batch: digits transformed before each sweep, so that they stay in the cache.
    """
    c = constants[j]
    base = c[SELF]
    narrow = c[IS_NARROW]
    point = 32 * (4 if narrow else 8)  # bytes of both components of a key on a run of points
    listed, digits, buffers = scratch, scratch + 2 * ENTRY, scratch + LISTS
    ready = 0
    if j < limbs:
        for t in range(targets):
            place = _key_place(constants, j, keys[2 * t], keys[2 * t + 1])
            _enter(listed, t, rows[t] + c[OFFSET], place + j * point, keys[2 * t + 1] * point)
        ready = targets
    d, total, first = 0, limbs * targets, True
    ahead, step = 0, 0
    while first or d < total:
        count = 0
        while d < total and count < batch:
            t, i = d // limbs, d % limbs
            d += 1
            if i == j:
                continue
            other = constants[i]
            buffer = buffers + count * n * 8
            source = coefficients + t * stride + other[OFFSET]
            forward_first(variant, source, other[IS_NARROW], buffer, n, lg, c, 0)
            place = _key_place(constants, j, keys[2 * t], keys[2 * t + 1])
            step = keys[2 * t + 1] * point
            _enter(digits, count, buffer, place + i * point, step)
            if count == 0:
                ahead = place + i * point
            count += 1
        keep = 0 if first else -1
        # Blocks of an eighth, then of it what all digits together leave in the nearest cache.
        outer = 3 if lg > 10 else 2
        blocks = 1 << outer
        for b in range(8):
            for i in range(count):
                place = buffers + (i * n + b * (n >> 3)) * 8
                forward_middle(variant, place, n >> 3, 8 + b, outer, c)
            for block in range(b * blocks, (b + 1) * blocks):
                groups = n >> (7 + outer)
                start = block * groups
                if count > 0:
                    _prefetch(variant, ahead + (start + groups) * step, step, groups, count * point)
                for i in range(count):
                    forward_block(variant, buffers + i * n * 8, n, lg, block, 3 + outer, c)
                if narrow:
                    _products_narrow(
                        variant, count, digits, ready, listed, start, groups, n, base, out0, out1, keep
                    )
                elif c[IS_LAZY]:
                    _products_lazy_wide(
                        variant, count, digits, ready, listed, start, groups, n, base, out0, out1, keep
                    )
                else:
                    _products_wide(
                        variant, count, digits, ready, listed, start, groups, n, base, out0, out1, keep
                    )
        first, ready = False, 0
