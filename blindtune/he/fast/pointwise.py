"""Operations on single rows: sums, differences, constants, and automorphisms."""

from __future__ import annotations

from typing import Any

from blindtune.he.fast.emitted import compiled, emitted
from blindtune.he.fast.tables import IS_NARROW, Q
from blindtune.he.fast.vector import Lanes, Value


def _combine(narrow: bool, subtract: bool) -> Any:
    def combine(v: Lanes, left: Value, right: Value, out: Value, count: Value, modulus: Value) -> None:
        q, width = v.spread(modulus), 32 if narrow else 64
        with v.loop(count) as loop:
            point = v.b.mul(loop.index, v.constant(width))
            x, y = (v.load(v.b.add(side, point), narrow) for side in (left, right))
            total = v.b.add(x, v.b.sub(q, y) if subtract else y)
            v.store(v.within(total, q), v.b.add(out, point), narrow)

    return emitted(combine)


def _scale(narrow: bool) -> Any:
    def scale(
        v: Lanes, row: Value, out: Value, count: Value, modulus: Value, factor: Value, ratio: Value
    ) -> None:
        q, _, negated = v.moduli(modulus)
        factor, ratio, width = v.spread(factor), v.spread(ratio), 32 if narrow else 64
        with v.loop(count) as loop:
            point = v.b.mul(loop.index, v.constant(width))
            product = v.shoup(v.load(v.b.add(row, point), narrow), factor, ratio, negated)
            v.store(v.within(product, q), v.b.add(out, point), narrow)

    return emitted(scale)


def _turn(narrow: bool) -> Any:
    """``out[i] = row[table[i]] + add[i]``; an ``add`` of 0 adds nothing.

    An automorphism takes aligned runs of eight to aligned runs of eight.
    """

    def turn(
        v: Lanes, row: Value, table: Value, add: Value, out: Value, count: Value, modulus: Value
    ) -> None:
        b, q, width = v.b, v.spread(modulus), 32 if narrow else 64
        adds = b.icmp_signed("!=", add, v.constant(0))
        source, kept = b.select(adds, add, row), v.spread(b.sext(adds, add.type))
        with v.loop(count) as loop:
            point = b.mul(loop.index, v.constant(width))
            place = b.add(table, b.mul(loop.index, v.constant(32)))
            indices = v.load(place, narrow=True)
            # The table's entries take four bytes: the lower half of a word is the run's first.
            run = b.and_(v.word(place, v.constant(0)), v.constant(0xFFFFFFF8))
            x = v.picked(b.add(row, b.mul(run, v.constant(width // 8))), indices, narrow)
            total = b.add(x, b.and_(v.load(b.add(source, point), narrow), kept))
            v.store(v.within(total, q), b.add(out, point), narrow)

    return emitted(turn)


_add_wide, _add_narrow = _combine(False, False), _combine(True, False)
_subtract_wide, _subtract_narrow = _combine(False, True), _combine(True, True)
_scale_wide, _scale_narrow = _scale(False), _scale(True)
_turn_wide, _turn_narrow = _turn(False), _turn(True)


@compiled
def combine_rows(variant: Any, subtract: int, left: int, right: int, out: int, n: int, c: Any) -> None:
    """``left + right``, or ``left - right``."""
    if subtract:
        if c[IS_NARROW]:
            _subtract_narrow(variant, left, right, out, n >> 3, c[Q])
        else:
            _subtract_wide(variant, left, right, out, n >> 3, c[Q])
    elif c[IS_NARROW]:
        _add_narrow(variant, left, right, out, n >> 3, c[Q])
    else:
        _add_wide(variant, left, right, out, n >> 3, c[Q])


@compiled
def scale_row(variant: Any, row: int, out: int, n: int, c: Any, factor: int, ratio: int) -> None:
    """``factor · row``; ``ratio`` = floor(2^52 factor / q)."""
    if c[IS_NARROW]:
        _scale_narrow(variant, row, out, n >> 3, c[Q], factor, ratio)
    else:
        _scale_wide(variant, row, out, n >> 3, c[Q], factor, ratio)


@compiled
def turn_row(variant: Any, row: int, table: int, add: int, out: int, n: int, c: Any) -> None:
    """The automorphism of ``table`` on a transformed row, plus ``add`` if it is not 0."""
    if c[IS_NARROW]:
        _turn_narrow(variant, row, table, add, out, n >> 3, c[Q])
    else:
        _turn_wide(variant, row, table, add, out, n >> 3, c[Q])
