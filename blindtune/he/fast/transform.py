"""SEAL's negacyclic number-theoretic transforms, forward and inverse, one polynomial and modulus at a time.

Three stages at a time: the first (or last) three run over the whole polynomial, the others on one eighth
after another, which stays in the nearest cache. The innermost three work inside sixteen consecutive
coefficients; key switch and division by a modulus continue right there (:mod:`.switching`).

Lazy bounds: values stay below 4q forward and below 2q backward; what is written last is fully reduced.
Forward transforms of moduli below 2^44 go without any reduction. Each stage changes a value by less than
2q; so the values that the first stage adds to or subtracts from start 2q log2(N) higher, and stay positive.
A digit, whatever modulus it comes from, is below 2^50, and ends below 2^50 + 68q < 2^52. Nothing compares
such values: only bits below 2^52 count, and the multiplier ignores the others.

Working buffers hold eight bytes a coefficient, rows those of their modulus.
"""

from __future__ import annotations

from typing import Any

from blindtune.he.fast.tables import (
    INVERSE_ROOT_RATIOS,
    INVERSE_ROOTS,
    IS_LAZY,
    IS_NARROW,
    RATIO,
    ROOT_RATIOS,
    ROOTS,
    Q,
)
from blindtune.he.fast.vector import Lanes, Value, compiled, emitted


def _twiddles(
    v: Lanes, roots: Value, ratios: Value, index: Value, stages: int
) -> list[list[tuple[Any, Any]]]:
    """The roots of merged stages, each in every lane, for the butterfly group ``index``."""
    found = []
    for stage in range(stages):
        first = v.b.shl(index, v.constant(stage))
        places = [v.b.add(first, v.constant(u)) for u in range(1 << stage)]
        found.append([(v.words(roots, p), v.words(ratios, p)) for p in places])
    return found


def inner_twiddles(v: Lanes, roots: Value, ratios: Value, degree: Value, group: Value) -> dict[int, Any]:
    """The roots of the innermost stages for the sixteen coefficients number ``group``."""
    found = {}
    for span, count in ((4, 2), (2, 4), (1, 8)):
        # A stage of span t uses the roots N/2t .. N/t - 1: for these coefficients, 8/t of them.
        shift = {4: 3, 2: 2, 1: 1}[span]
        index = v.b.add(v.b.lshr(degree, v.constant(shift)), v.b.mul(group, v.constant(count)))
        place = v.b.shl(index, v.constant(3))
        found[span] = tuple(v.repeated(v.b.add(table, place), count) for table in (roots, ratios))
    return found


def inner_forward(
    v: Lanes, v0: Value, v1: Value, twiddles: dict[int, Any], q2: Value, n: Value, lazy: bool
) -> Any:
    """The innermost three stages on sixteen coefficients; results below 4q, unless lazy."""
    for span in (4, 2, 1):
        v0, v1 = v.stage(span, v0, v1, v.forward_lazy if lazy else v.forward, *twiddles[span], q2, n)
    return v0, v1


def _outer_forward(
    stages: int, lazy: bool, first: bool = False, narrow: bool = False, reduce: bool = False
) -> Any:
    """Merged stages on coefficients ``stride`` bytes apart (counted in working buffers).

    The first ones read rows, may reduce, and add ``add``, to the half that is not multiplied ``rise`` too.
    """

    def forward(
        v: Lanes,
        source: Value,
        target: Value,
        stride: Value,
        roots: Value,
        ratios: Value,
        index: Value,
        count: Value,
        modulus: Value,
        ratio: Value,
        add: Value,
        rise: Value,
    ) -> None:
        q, q2, negated = v.moduli(modulus)
        ratio, add, rise = v.spread(ratio), v.spread(add), v.spread(v.b.add(add, rise))
        butterfly = v.forward_lazy if lazy else v.forward
        twiddles = _twiddles(v, roots, ratios, index, stages)
        size = 1 << stages
        with v.loop(count) as loop:
            offset = v.b.shl(loop.index, v.constant(6))
            places = [v.b.add(offset, v.b.mul(stride, v.constant(r))) for r in range(size)]
            half = [v.b.lshr(p, v.constant(1)) if narrow else p for p in places]
            a = [v.load(v.b.add(source, p), narrow) for p in half]
            if reduce:
                a = [v.barrett(x, ratio, q) for x in a]
            if first:
                a = [v.b.add(x, rise if i < size // 2 else add) for i, x in enumerate(a)]
            for stage in range(stages):
                h = size >> (stage + 1)
                for u in range(1 << stage):
                    for x in range(2 * u * h, 2 * u * h + h):
                        a[x], a[x + h] = butterfly(a[x], a[x + h], *twiddles[stage][u], q2, negated)
            for value, place in zip(a, places, strict=True):
                v.store(value, v.b.add(target, place))

    return emitted(forward)


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
        twiddles = _twiddles(v, roots, ratios, index, stages)
        size = 1 << stages
        with v.loop(count) as loop:
            offset = v.b.shl(loop.index, v.constant(6))
            places = [v.at(address, offset, v.b.mul(stride, v.constant(r))) for r in range(size)]
            a = [v.load(p) for p in places]
            for stage in reversed(range(stages)):
                _inverse_stage(v, a, stage, twiddles[stage], q2, negated)
            for value, place in zip(a, places, strict=True):
                v.store(value, place)

    return emitted(inverse)


def _inverse_stage(v: Lanes, a: list[Any], stage: int, twiddles: Any, q2: Value, negated: Value) -> None:
    h = len(a) >> (stage + 1)
    for u in range(1 << stage):
        w, ratio = twiddles[u]
        for x in range(2 * u * h, 2 * u * h + h):
            a[x], a[x + h] = v.inverse(a[x], a[x + h], w, ratio, q2, negated)


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
        twiddles = _twiddles(v, roots, ratios, v.constant(1), 3)
        whole = v.words(roots, v.constant(0)), v.words(ratios, v.constant(0))
        with v.loop(count) as loop:
            offset = v.b.shl(loop.index, v.constant(6))
            places = [v.b.add(offset, v.b.mul(stride, v.constant(r))) for r in range(8)]
            a = [v.load(v.b.add(source, p)) for p in places]
            for stage in (2, 1):
                _inverse_stage(v, a, stage, twiddles[stage], q2, negated)
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


_forward4, _forward8 = _outer_forward(2, False), _outer_forward(3, False)
_lazy4, _lazy8 = _outer_forward(2, True), _outer_forward(3, True)
_first_wide, _first_narrow = (_outer_forward(3, False, True, narrow, True) for narrow in (False, True))
_first_lazy_wide, _first_lazy_narrow = (_outer_forward(3, True, True, narrow) for narrow in (False, True))
_inverse4, _inverse8 = _outer_inverse(2), _outer_inverse(3)
_last_wide, _last_narrow = _last_inverse(False), _last_inverse(True)
_inner_wide, _inner_narrow = _first_inverse(False), _first_inverse(True)


@compiled
def forward_first(
    variant: Any, source: int, narrow: int, target: int, n: int, lg: int, c: Any, add: int
) -> None:
    """The first three stages, from a row of another modulus' residues plus ``add`` to a working buffer.

    Args:
        narrow: whether the row's residues take four bytes.
        n, lg: N and its logarithm.
        c: the modulus' constants.
    """
    q, w, r = c[Q], c[ROOTS], c[ROOT_RATIOS]
    rise = 2 * q * lg
    if c[IS_LAZY]:
        if narrow:
            _first_lazy_narrow(variant, source, target, n, w, r, 1, n >> 6, q, 0, add, rise)
        else:
            _first_lazy_wide(variant, source, target, n, w, r, 1, n >> 6, q, 0, add, rise)
    elif narrow:
        _first_narrow(variant, source, target, n, w, r, 1, n >> 6, q, c[RATIO], add, 0)
    else:
        _first_wide(variant, source, target, n, w, r, 1, n >> 6, q, c[RATIO], add, 0)


@compiled
def middle_stages(left: int) -> int:
    """Of so many stages left before the innermost, those to do next: three, or two if that does not go up."""
    return 2 if left % 3 else 3


@compiled
def forward_middle(variant: Any, place: int, length: int, index: int, stages: int, c: Any) -> None:
    """Two or three stages on ``length`` coefficients at ``place``, group ``index`` of the first stage."""
    q, w, r = c[Q], c[ROOTS], c[ROOT_RATIOS]
    step = length >> stages
    if c[IS_LAZY]:
        if stages == 3:
            _lazy8(variant, place, place, step * 8, w, r, index, step >> 3, q, 0, 0, 0)
        else:
            _lazy4(variant, place, place, step * 8, w, r, index, step >> 3, q, 0, 0, 0)
    elif stages == 3:
        _forward8(variant, place, place, step * 8, w, r, index, step >> 3, q, 0, 0, 0)
    else:
        _forward4(variant, place, place, step * 8, w, r, index, step >> 3, q, 0, 0, 0)


@compiled
def forward_block(variant: Any, buffer: int, n: int, lg: int, block: int, log_blocks: int, c: Any) -> None:
    """All stages left before the innermost, on one of 2^log_blocks blocks of the polynomial."""
    length, blocks = n >> log_blocks, 1
    base, left = buffer + block * length * 8, lg - 3 - log_blocks
    while left > 0:
        stages = middle_stages(left)
        for g in range(blocks):
            index = ((1 << log_blocks) + block) * blocks + g
            forward_middle(variant, base + g * length * 8, length, index, stages, c)
        blocks <<= stages
        length >>= stages
        left -= stages


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
