"""SEAL's negacyclic number-theoretic transforms, forward and inverse, one polynomial and modulus at a time.

Three stages at a time: the first (or last) three run over the whole polynomial, the others on one eighth
after another, which stays in the nearest cache. The innermost three work inside sixteen consecutive
coefficients; key switch and division by a modulus continue right there (:mod:`.switching`, :mod:`.division`).

Lazy bounds: values stay below 4q forward and below 2q backward; what is written last is fully reduced.
Forward transforms of moduli below 2^44 go without any reduction. Each stage changes a value by less than
2q; so the values that the first stage adds to or subtracts from start 2q log2(N) higher, and stay positive.
A digit, whatever modulus it comes from, is below 2^50, and ends below 2^50 + 68q < 2^52. Nothing compares
such values: only bits below 2^52 count, and the multiplier ignores the others.

Working buffers hold eight bytes a coefficient, rows those of their modulus.
"""

from __future__ import annotations

from typing import Any

from blindtune.he.fast.emitted import compiled, emitted
from blindtune.he.fast.tables import (
    IS_LAZY,
    RATIO,
    ROOT_RATIOS,
    ROOTS,
    Q,
)
from blindtune.he.fast.vector import Lanes, Value


def outer_twiddles(
    v: Lanes, roots: Value, ratios: Value, index: Value, stages: int
) -> list[list[tuple[Any, Any]]]:
    """The roots of merged stages, each in every lane, for the butterfly group ``index``."""
    found = []
    for stage in range(stages):
        first = v.b.shl(index, v.constant(stage))
        places = [v.b.add(first, v.constant(u)) for u in range(1 << stage)]
        found.append([(v.words(roots, p), v.words(ratios, p)) for p in places])
    return found


def outer_stage(
    a: list[Any], stage: int, butterfly: Any, twiddles: list[tuple[Any, Any]], q2: Value, negated: Value
) -> None:
    """One of merged stages, in place, on what lies a stride apart."""
    h = len(a) >> (stage + 1)
    for u, root in enumerate(twiddles):
        for x in range(2 * u * h, 2 * u * h + h):
            a[x], a[x + h] = butterfly(a[x], a[x + h], *root, q2, negated)


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
        twiddles = outer_twiddles(v, roots, ratios, index, stages)
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
                outer_stage(a, stage, butterfly, twiddles[stage], q2, negated)
            for value, place in zip(a, places, strict=True):
                v.store(value, v.b.add(target, place))

    return emitted(forward)


_forward4, _forward8 = _outer_forward(2, False), _outer_forward(3, False)
_lazy4, _lazy8 = _outer_forward(2, True), _outer_forward(3, True)
_first_wide, _first_narrow = (_outer_forward(3, False, True, narrow, True) for narrow in (False, True))
_first_lazy_wide, _first_lazy_narrow = (_outer_forward(3, True, True, narrow) for narrow in (False, True))


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
