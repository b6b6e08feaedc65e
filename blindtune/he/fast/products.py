"""Sums of products of ciphertexts: a matrix product, rows of lefts with rows of rights.

Both are larger than any cache: what limits is the memory. So a task is one modulus and a run of
:data:`CHUNK` coefficients, in which all rights together fit into the near caches. It takes one row of lefts
after the other: every left's run is read once, and every right's once for all rows of lefts.

A product has three polynomials, a0 b0, a0 b1 + a1 b0 and a1 b1; the middle one is
(a0 + a1)(b0 + b1) - a0 b0 - a1 b1, with the subtractions done once at the end. Sums are lazy: with factors
below 2q < 2^51 a product's low part lies below 2^52 and its high part below 2^50, so :data:`MAX_TERMS`
of them stay below 2^64.
"""

from __future__ import annotations

from typing import Any

from blindtune.he.fast.emitted import compiled, emitted
from blindtune.he.fast.switching import MAX_TERMS, reduced
from blindtune.he.fast.tables import IS_NARROW, OFFSET, SELF, Q
from blindtune.he.fast.vector import Lanes, Value

CHUNK = 256
"""Coefficients of a task."""

SUM_BYTES = 6 * 8 * CHUNK
"""The low and high sums of three polynomials over a chunk."""

UNROLLED = 4
"""Terms added between a load and a store of the sums."""


def _multiply_add(narrow: bool, terms: int) -> Any:
    """Add ``terms`` products to the sums of one chunk, ``offset`` bytes into each row."""

    def multiply_add(v: Lanes, lefts: Value, rights: Value, offset: Value, sums: Value) -> None:
        b, width = v.b, 32 if narrow else 64
        addresses = [
            [b.add(v.word(side, v.constant(2 * t + k)), offset) for side in (lefts, rights) for k in (0, 1)]
            for t in range(terms)
        ]
        with v.loop(v.constant(CHUNK // 8)) as loop:
            here = b.add(sums, b.mul(loop.index, v.constant(6 * 64)))
            point = b.mul(loop.index, v.constant(width))
            total = [v.load(v.at(here, 64 * i)) for i in range(6)]
            for quadruple in addresses:
                a0, a1, b0, b1 = (v.load(b.add(address, point), narrow) for address in quadruple)
                factors = ((a0, b0), (b.add(a0, a1), b.add(b0, b1)), (a1, b1))
                for i, (x, y) in enumerate(factors):
                    total[2 * i] = v.low(total[2 * i], x, y)
                    total[2 * i + 1] = v.high(total[2 * i + 1], x, y)
            for i, value in enumerate(total):
                v.store(value, v.at(here, 64 * i))

    return emitted(multiply_add)


def _finish(narrow: bool) -> Any:
    """Reduce a chunk's sums, add ``onto`` (0: nothing) and write; clears the sums for the next."""

    def finish(
        v: Lanes,
        sums: Value,
        out: Value,
        out_stride: Value,
        onto: Value,
        onto_stride: Value,
        constants: Value,
    ) -> None:
        b, width = v.b, 32 if narrow else 64
        q, q2, _ = v.moduli(v.word(constants, v.constant(Q)))
        adds = b.icmp_signed("!=", onto, v.constant(0))
        kept = v.spread(b.sext(adds, onto.type))
        source, source_stride = b.select(adds, onto, out), b.select(adds, onto_stride, out_stride)
        with v.loop(v.constant(CHUNK // 8)) as loop:
            here = b.add(sums, b.mul(loop.index, v.constant(6 * 64)))
            point = b.mul(loop.index, v.constant(width))
            total = [v.load(v.at(here, 64 * i)) for i in range(6)]
            for i in range(6):
                v.store(v.every(0), v.at(here, 64 * i))
            first, cross, last = (reduced(v, total[2 * i], total[2 * i + 1], constants) for i in range(3))
            cross = b.sub(b.add(cross, q2), b.add(first, last))
            cross = v.within(cross, q2, q)
            for k, value in enumerate((first, cross, last)):
                old = v.load(v.at(source, b.mul(source_stride, v.constant(k)), point), narrow)
                value = v.within(b.add(value, b.and_(old, kept)), q)
                v.store(value, v.at(out, b.mul(out_stride, v.constant(k)), point), narrow)

    return emitted(finish)


_one_wide, _one_narrow = _multiply_add(False, 1), _multiply_add(True, 1)
_some_wide, _some_narrow = _multiply_add(False, UNROLLED), _multiply_add(True, UNROLLED)
_finish_wide, _finish_narrow = _finish(False), _finish(True)


@compiled
def product_chunk(
    variant: Any,
    j: int,
    chunk: int,
    constants: Any,
    terms: int,
    lefts: int,
    groups: int,
    rights: int,
    rows: Any,
    totals: Any,
    sums: int,
) -> None:
    """All product sums under modulus j on one chunk.

    Args:
        lefts: address of the terms' two polynomials' addresses, for row after row of lefts.
        groups: rows of lefts.
        rights: the same for row after row of rights.
        rows: rows of rights.
        totals: for each row of lefts and, within, of rights: address and stride of the result, address (or 0)
            and stride of what is added.
        sums: zeroed room for every row's sums; left zeroed.
    """
    c = constants[j]
    narrow = c[IS_NARROW]
    offset = c[OFFSET] + chunk * CHUNK * (4 if narrow else 8)
    for part in range(groups * -(-terms // MAX_TERMS)):
        group, done = part % groups, part // groups * MAX_TERMS
        end = min(terms, done + MAX_TERMS)
        i = done
        while i < end:
            count = UNROLLED if i + UNROLLED <= end else 1
            for k in range(rows):
                left, right, total = (
                    lefts + 16 * (group * terms + i),
                    rights + 16 * (k * terms + i),
                    sums + k * SUM_BYTES,
                )
                if count == 1:
                    if narrow:
                        _one_narrow(variant, left, right, offset, total)
                    else:
                        _one_wide(variant, left, right, offset, total)
                elif narrow:
                    _some_narrow(variant, left, right, offset, total)
                else:
                    _some_wide(variant, left, right, offset, total)
            i += count
        for k in range(rows):
            x = totals[group * rows + k]
            out, out_stride, onto, onto_stride = x[0], x[1], x[2], x[3]
            if done > 0:
                onto, onto_stride = out, out_stride
            there = onto + offset if onto != 0 else 0
            total = sums + k * SUM_BYTES
            if narrow:
                _finish_narrow(variant, total, out + offset, out_stride, there, onto_stride, c[SELF])
            else:
                _finish_wide(variant, total, out + offset, out_stride, there, onto_stride, c[SELF])
