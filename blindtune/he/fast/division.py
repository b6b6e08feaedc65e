"""Division by a modulus, the last phase of a key switch and all of a rescale; see :mod:`.switching`."""

from __future__ import annotations

from typing import Any

from blindtune.he.fast.emitted import compiled, emitted
from blindtune.he.fast.inverse import inverse
from blindtune.he.fast.tables import (
    ABOVE,
    DIVISION_SELF,
    HALF,
    INVERSE,
    INVERSE_RATIO,
    IS_LAZY,
    IS_NARROW,
    MINUS_HALF,
    ROOT_RATIOS,
    ROOTS,
    SELF,
    Q,
)
from blindtune.he.fast.transform import forward_block, forward_first, inner_forward, inner_twiddles
from blindtune.he.fast.vector import Lanes, Value


def _division(narrow: bool, lazy: bool) -> Any:
    """``out = (sum - innermost stages of digit) / divisor + add``; an ``add`` of 0 adds nothing."""
    width = 32 if narrow else 64

    def division(
        v: Lanes,
        digit: Value,
        total: Value,
        add: Value,
        out: Value,
        start: Value,
        groups: Value,
        degree: Value,
        constants: Value,
        by: Value,
    ) -> None:
        b = v.b
        q, q2, negated = v.moduli(v.word(constants, v.constant(Q)))
        roots, ratios = v.word(constants, v.constant(ROOTS)), v.word(constants, v.constant(ROOT_RATIOS))
        factor, ratio = v.words(by, v.constant(INVERSE)), v.words(by, v.constant(INVERSE_RATIO))
        above = v.words(by, v.constant(ABOVE)) if lazy else q2
        adds = b.icmp_signed("!=", add, v.constant(0))
        added, kept = b.select(adds, add, total), v.spread(b.sext(adds, add.type))
        with v.loop(groups) as loop:
            group = b.add(start, loop.index)
            point, wide = b.mul(group, v.constant(2 * width)), b.mul(group, v.constant(128))
            twiddles = inner_twiddles(v, roots, ratios, degree, group)
            x = b.add(digit, wide)
            values = inner_forward(v, v.load(x), v.load(v.at(x, 64)), twiddles, q2, negated, lazy)
            for half, value in enumerate(values):
                place = v.at(point, half * width)
                if not lazy:
                    value = v.within(value, q2)
                apart = b.sub(b.add(v.load(b.add(total, place), narrow), above), value)
                result = v.within(v.shoup(apart, factor, ratio, negated), q)
                result = b.add(result, b.and_(v.load(b.add(added, place), narrow), kept))
                v.store(v.within(result, q), b.add(out, place), narrow)

    return emitted(division)


_division_wide = _division(False, False)
_division_lazy_wide = _division(False, True)
_division_narrow = _division(True, True)


@compiled
def divide_row(
    variant: Any,
    j: int,
    divisor: int,
    n: int,
    lg: int,
    constants: Any,
    divisions: Any,
    coefficients: int,
    total: int,
    add: int,
    out: int,
    buffer: int,
) -> None:
    """``(total - coefficients) / divisor + add`` under modulus j.

    Args:
        coefficients: the divisor's row, plus half of it.
        total, add, out: rows of modulus j; ``add`` may be 0.
        buffer: room for a working buffer.
    """
    c, by = constants[j], divisions[divisor, j]
    base, factors = c[SELF], by[DIVISION_SELF]
    forward_first(variant, coefficients, constants[divisor, IS_NARROW], buffer, n, lg, c, by[MINUS_HALF])
    for b in range(8):
        forward_block(variant, buffer, n, lg, b, 3, c)
        start, groups = b * (n >> 7), n >> 7
        if c[IS_NARROW]:
            _division_narrow(variant, buffer, total, add, out, start, groups, n, base, factors)
        elif c[IS_LAZY]:
            _division_lazy_wide(variant, buffer, total, add, out, start, groups, n, base, factors)
        else:
            _division_wide(variant, buffer, total, add, out, start, groups, n, base, factors)


@compiled
def coefficient_row(
    variant: Any, j: int, n: int, lg: int, constants: Any, row: int, buffer: int, out: int, rounding: int
) -> None:
    """A transformed row to coefficients, plus half the modulus if ``rounding``."""
    c = constants[j]
    inverse(variant, row, buffer, out, n, lg, c, c[HALF] if rounding else 0)
