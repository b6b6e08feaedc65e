"""The inverse transforms; see :mod:`.transform`."""

from __future__ import annotations

from typing import Any

from blindtune.he.fast.emitted import compiled, emitted
from blindtune.he.fast.tables import INVERSE_ROOT_RATIOS, INVERSE_ROOTS, IS_NARROW, Q
from blindtune.he.fast.transform import inner_twiddles, outer_stage, outer_twiddles
from blindtune.he.fast.vector import Lanes, Value


def _outer_inverse(stages: int) -> Any:
    def inverse(
        v: Lanes,
        address: Value,
        stride: Value,
        roots: Value,
        ratios: Value,
        index: Value,
        count: Value,
        modulus: Value,
    ) -> None:
        _, q2, negated = v.moduli(modulus)
        twiddles = outer_twiddles(v, roots, ratios, index, stages)
        size = 1 << stages
        with v.loop(count) as loop:
            offset = v.b.shl(loop.index, v.constant(6))
            places = [v.at(address, offset, v.b.mul(stride, v.constant(r))) for r in range(size)]
            a = [v.load(p) for p in places]
            for stage in reversed(range(stages)):
                outer_stage(a, stage, v.inverse, twiddles[stage], q2, negated)
            for value, place in zip(a, places, strict=True):
                v.store(value, place)

    return emitted(inverse)


def _last_inverse(narrow: bool) -> Any:
    """The last three stages over the whole polynomial, with the division by N; then ``add``; reduced."""

    def inverse(
        v: Lanes,
        source: Value,
        target: Value,
        stride: Value,
        roots: Value,
        ratios: Value,
        count: Value,
        modulus: Value,
        add: Value,
    ) -> None:
        q, q2, negated = v.moduli(modulus)
        add = v.spread(add)
        twiddles = outer_twiddles(v, roots, ratios, v.constant(1), 3)
        whole = v.words(roots, v.constant(0)), v.words(ratios, v.constant(0))
        with v.loop(count) as loop:
            offset = v.b.shl(loop.index, v.constant(6))
            places = [v.b.add(offset, v.b.mul(stride, v.constant(r))) for r in range(8)]
            a = [v.load(v.b.add(source, p)) for p in places]
            for stage in (2, 1):
                outer_stage(a, stage, v.inverse, twiddles[stage], q2, negated)
            for x in range(4):
                total, apart = v.b.add(a[x], a[x + 4]), v.b.sub(v.b.add(a[x], q2), a[x + 4])
                a[x] = v.shoup(total, *whole, negated)
                a[x + 4] = v.shoup(apart, *twiddles[0][0], negated)
            for value, place in zip(a, places, strict=True):
                value = v.within(v.b.add(v.within(value, q), add), q)
                v.store(value, v.b.add(target, v.b.lshr(place, v.constant(1)) if narrow else place), narrow)

    return emitted(inverse)


def _first_inverse(narrow: bool) -> Any:
    """The innermost three stages, from a row to a working buffer."""

    def inverse(
        v: Lanes,
        source: Value,
        target: Value,
        roots: Value,
        ratios: Value,
        degree: Value,
        start: Value,
        groups: Value,
        modulus: Value,
    ) -> None:
        _, q2, negated = v.moduli(modulus)
        width = 32 if narrow else 64
        with v.loop(groups) as loop:
            group = v.b.add(start, loop.index)
            twiddles = inner_twiddles(v, roots, ratios, degree, group)
            here = v.b.add(source, v.b.mul(group, v.constant(2 * width)))
            v0, v1 = v.load(here, narrow), v.load(v.at(here, width), narrow)
            for span in (1, 2, 4):
                v0, v1 = v.stage(span, v0, v1, v.inverse, *twiddles[span], q2, negated)
            there = v.b.add(target, v.b.mul(group, v.constant(128)))
            v.store(v0, there)
            v.store(v1, v.at(there, 64))

    return emitted(inverse)


_inverse4, _inverse8 = _outer_inverse(2), _outer_inverse(3)
_last_wide, _last_narrow = _last_inverse(False), _last_inverse(True)
_inner_wide, _inner_narrow = _first_inverse(False), _first_inverse(True)


@compiled
def inverse(variant: Any, source: int, buffer: int, target: int, n: int, lg: int, c: Any, add: int) -> None:
    """From a transformed row to a row of coefficients plus ``add``, both of the modulus' own width."""
    q, w, r = c[Q], c[INVERSE_ROOTS], c[INVERSE_ROOT_RATIOS]
    eighth = n >> 3
    for b in range(8):
        if c[IS_NARROW]:
            _inner_narrow(variant, source, buffer, w, r, n, b * (eighth >> 4), eighth >> 4, q)
        else:
            _inner_wide(variant, source, buffer, w, r, n, b * (eighth >> 4), eighth >> 4, q)
        base = buffer + b * eighth * 8
        done, left = 8, lg - 6
        while left > 0:
            stages = 2 if left == 2 or left == 4 else 3
            length = done << stages
            blocks = eighth // length
            for g in range(blocks):
                place = base + g * length * 8
                index = (8 + b) * blocks + g
                if stages == 3:
                    _inverse8(variant, place, done * 8, w, r, index, done >> 3, q)
                else:
                    _inverse4(variant, place, done * 8, w, r, index, done >> 3, q)
            done = length
            left -= stages
    if c[IS_NARROW]:
        _last_narrow(variant, buffer, target, n, w, r, n >> 6, q, add)
    else:
        _last_wide(variant, buffer, target, n, w, r, n >> 6, q, add)
