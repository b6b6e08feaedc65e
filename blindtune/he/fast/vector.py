"""Eight 64-bit lanes in LLVM's own language: what every kernel is written in.

numba compiles the kernels, but cannot name the one instruction that matters: AVX-512 IFMA's multiply-add
of the low or high 52 bits of a product. So the inner loops are emitted as LLVM code through numba's
intrinsics, with two lowerings of that instruction, equal to the bit: the instruction itself, and one of
32-bit multiplications, which any processor has. Everything else is generic LLVM.

The variant travels as the *type* of every kernel's first argument (:attr:`Variant.tag`), so
one set of kernels serves both, in one process, and numba's cache tells them apart.

Addresses are plain integers: numba's arrays know nothing of residues of four or eight bytes in one buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import types as numba_types
from numba.core import cgutils as numba_cgutils

# numba's annotations know nothing of what its types do.
types: Any = numba_types
cgutils: Any = numba_cgutils
F = TypeVar("F", bound=Callable[..., Any])


class Variant(Enum):
    """How kernels multiply."""

    IFMA = "ifma"
    """With AVX-512 IFMA's instructions."""
    PORTABLE = "portable"
    """With 32-bit multiplications."""

    @property
    def tag(self) -> np.integer[Any]:
        """What stands for it in compiled code: a value whose type says it."""
        return np.int8(0) if self is Variant.IFMA else np.int16(0)


LANES = 8
BITS = 52
MASK = (1 << BITS) - 1

_I8, _I32, _I64, _I128 = (ir.IntType(n) for n in (8, 32, 64, 128))
_V = ir.VectorType(_I64, LANES)
_LOW, _HIGH = (f"llvm.x86.avx512.vpmadd52{part}.uq.512" for part in "lh")
_PERMUTE = "llvm.x86.avx512.permvar.di.512"

# Lanes of sixteen consecutive coefficients that a butterfly of span t combines, as indices into two vectors.
_PAIRS = {
    4: ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
    2: ([0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]),
    1: ([0, 2, 4, 6, 8, 10, 12, 14], [1, 3, 5, 7, 9, 11, 13, 15]),
}

Value = Any
"""An LLVM value: a 64-bit integer, or eight lanes."""


class Lanes:
    """Emits operations on eight lanes.

    Everything multiplied lies below 2^52. A modulus q lies below 2^50, so lazy values up to 4q do too.

    Args:
        builder: where the instructions go.
        portable: avoid everything that only some processors have.
    """

    def __init__(self, builder: Any, portable: bool) -> None:
        self.b, self.portable = builder, portable

    # Scalars, addresses and memory

    def constant(self, value: int) -> Value:
        """An integer constant."""
        return ir.Constant(_I64, value)

    def every(self, value: int) -> Value:
        """A constant in every lane."""
        return ir.Constant(_V, [value] * LANES)

    def at(self, base: Value, *offsets: Value) -> Value:
        """``base`` plus byte offsets, constants allowed."""
        for offset in offsets:
            base = self.b.add(base, self.constant(offset) if isinstance(offset, int) else offset)
        return base

    def word(self, base: Value, index: Value) -> Value:
        """The 64-bit word number ``index`` at ``base``."""
        index = self.constant(index) if isinstance(index, int) else index
        address = self.b.add(base, self.b.shl(index, self.constant(3)))
        return self.b.load(self.b.inttoptr(address, _I64.as_pointer()))

    def spread(self, value: Value) -> Value:
        """One integer in every lane."""
        one = self.b.insert_element(ir.Constant(_V, ir.Undefined), value, ir.Constant(_I32, 0))
        return self._shuffle(one, ir.Constant(_V, ir.Undefined), [0] * LANES)

    def words(self, base: Value, index: Value) -> Value:
        """The word number ``index`` at ``base`` in every lane."""
        return self.spread(self.word(base, index))

    def load(self, address: Value, narrow: bool = False) -> Value:
        """Eight residues of eight bytes, or four if ``narrow``."""
        kind = ir.VectorType(_I32 if narrow else _I64, LANES)
        found = self.b.load(self.b.inttoptr(address, kind.as_pointer()))
        found.align = 4 if narrow else 8
        return self.b.zext(found, _V) if narrow else found

    def store(self, value: Value, address: Value, narrow: bool = False) -> None:
        """Write what :meth:`load` reads."""
        kind = ir.VectorType(_I32 if narrow else _I64, LANES)
        stored = self.b.store(
            self.b.trunc(value, kind) if narrow else value, self.b.inttoptr(address, kind.as_pointer())
        )
        stored.align = 4 if narrow else 8

    def repeated(self, address: Value, count: int) -> Value:
        """``count`` words, each in ``8 / count`` neighbouring lanes."""
        kind = ir.VectorType(_I64, count)
        found = self.b.load(self.b.inttoptr(address, kind.as_pointer()))
        found.align = 8
        lanes = [i * count // LANES for i in range(LANES)]
        mask = ir.Constant(ir.VectorType(_I32, LANES), lanes)
        return self.b.shuffle_vector(found, ir.Constant(kind, ir.Undefined), mask)

    def picked(self, address: Value, indices: Value, narrow: bool) -> Value:
        """Lane i is the residue at ``address`` whose number within its run of eight is ``indices[i] % 8``."""
        if not self.portable:
            pick = self._function(_PERMUTE, _V, [_V, _V])
            return self.b.call(pick, [self.load(address, narrow), indices])
        kind = _I32 if narrow else _I64
        base, result = self.b.inttoptr(address, kind.as_pointer()), ir.Constant(_V, ir.Undefined)
        for i in range(LANES):
            lane = ir.Constant(_I32, i)
            index = self.b.and_(self.b.extract_element(indices, lane), self.constant(LANES - 1))
            found = self.b.load(self.b.gep(base, [index]))
            result = self.b.insert_element(result, self.b.zext(found, _I64) if narrow else found, lane)
        return result

    def prefetch(self, address: Value) -> None:
        """Ask for a cache line, into the second cache; never faults."""
        pointer = _I8.as_pointer()
        f = self._function("llvm.prefetch.p0i8", ir.VoidType(), [pointer, _I32, _I32, _I32])
        hints = [ir.Constant(_I32, n) for n in (0, 2, 1)]
        self.b.call(f, [self.b.inttoptr(address, pointer), *hints])

    # Arithmetic

    def min(self, x: Value, y: Value) -> Value:
        """The lesser, unsigned: with ``y = x - q`` this subtracts q where it can."""
        return self.b.select(self.b.icmp_unsigned("<", x, y), x, y)

    def low(self, c: Value, x: Value, y: Value) -> Value:
        """``c`` plus the low 52 bits of ``x·y``."""
        if not self.portable:
            return self.b.call(self._function(_LOW, _V, [_V] * 3), [c, x, y])
        small, cross, _ = self._parts(x, y)
        whole = self.b.add(small, self.b.shl(cross, self.every(26)))
        return self.b.add(c, self.b.and_(whole, self.every(MASK)))

    def high(self, c: Value, x: Value, y: Value) -> Value:
        """``c`` plus ``x·y`` shifted right by 52 bits."""
        if not self.portable:
            return self.b.call(self._function(_HIGH, _V, [_V] * 3), [c, x, y])
        small, cross, large = self._parts(x, y)
        carry = self.b.lshr(self.b.add(cross, self.b.lshr(small, self.every(26))), self.every(26))
        return self.b.add(c, self.b.add(large, carry))

    def _parts(self, x: Value, y: Value) -> tuple[Value, Value, Value]:
        """``x·y = small + 2^26 cross + 2^52 large``, by 26-bit halves: multiplications of 32 bits."""
        b, mask, half = self.b, self.every((1 << 26) - 1), self.every(26)
        # As the instruction does, this ignores what stands above 52 bits.
        (x0, x1), (y0, y1) = ((b.and_(v, mask), b.and_(b.lshr(v, half), mask)) for v in (x, y))
        return b.mul(x0, y0), b.add(b.mul(x0, y1), b.mul(x1, y0)), b.mul(x1, y1)

    def shoup(self, y: Value, w: Value, ratio: Value, negated: Value) -> Value:
        """``y·w mod q`` in [0, 2q) for y < 2^52.

        Args:
            ratio: floor(2^52 w / q).
            negated: 2^52 - q: a multiply-add that subtracts, modulo 2^52.
        """
        return self.b.and_(self.shoup_unmasked(y, w, ratio, negated), self.every(MASK))

    def shoup_unmasked(self, y: Value, w: Value, ratio: Value, negated: Value) -> Value:
        """The same modulo 2^52: what stands above means nothing, and nothing may look at it."""
        zero = self.every(0)
        return self.low(self.low(zero, y, w), self.high(zero, y, ratio), negated)

    def barrett(self, x: Value, ratio: Value, q: Value) -> Value:
        """``x mod q`` in [0, 2q) for x < 2^52; ``ratio`` = floor(2^52 / q)."""
        zero = self.every(0)
        return self.b.sub(x, self.low(zero, self.high(zero, x, ratio), q))

    def moduli(self, q: Value) -> tuple[Value, Value, Value]:
        """q, 2q and 2^52 - q in every lane."""
        lanes = self.spread(q)
        return lanes, self.b.add(lanes, lanes), self.b.sub(self.every(1 << BITS), lanes)

    def within(self, x: Value, *moduli: Value) -> Value:
        """Subtract each modulus once where it can be."""
        for q in moduli:
            x = self.min(x, self.b.sub(x, q))
        return x

    def forward(self, x: Value, y: Value, w: Value, ratio: Value, q2: Value, n: Value) -> tuple[Value, Value]:
        """Cooley-Tukey butterfly: x < 4q and y < 2^52 to two values below 4q."""
        x, t = self.within(x, q2), self.shoup(y, w, ratio, n)
        return self.b.add(x, t), self.b.sub(self.b.add(x, q2), t)

    def forward_lazy(
        self, x: Value, y: Value, w: Value, ratio: Value, q2: Value, n: Value
    ) -> tuple[Value, Value]:
        """The same without reductions, modulo 2^52: results within 2q of x, either side."""
        t = self.shoup_unmasked(y, w, ratio, n)
        return self.b.add(x, t), self.b.sub(x, t)

    def inverse(self, x: Value, y: Value, w: Value, ratio: Value, q2: Value, n: Value) -> tuple[Value, Value]:
        """Gentleman-Sande butterfly: two values below 2q to two values below 2q."""
        total, apart = self.b.add(x, y), self.b.sub(self.b.add(x, q2), y)
        return self.within(total, q2), self.shoup(apart, w, ratio, n)

    def stage(self, span: int, v0: Value, v1: Value, butterfly: Callable[..., Any], *args: Value) -> Any:
        """One butterfly stage of span 4, 2 or 1 inside sixteen consecutive coefficients."""
        first, second = _PAIRS[span]
        x, y = butterfly(self._shuffle(v0, v1, first), self._shuffle(v0, v1, second), *args)
        back = [0] * (2 * LANES)
        for place, index in enumerate([*first, *second]):
            back[index] = place
        return self._shuffle(x, y, back[:LANES]), self._shuffle(x, y, back[LANES:])

    def _shuffle(self, x: Value, y: Value, lanes: Sequence[int]) -> Value:
        return self.b.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, LANES), list(lanes)))

    def _function(self, name: str, result: Any, arguments: list[Any]) -> Any:
        return cgutils.get_or_insert_function(self.b.module, ir.FunctionType(result, arguments), name)

    # Control

    def loop(self, count: Value) -> Any:
        """A counted loop; its ``index`` is the counter."""
        return cgutils.for_range(self.b, count)

    def variable(self) -> Any:
        """Eight lanes that a loop may change: LLVM keeps them in a register."""
        place = cgutils.alloca_once(self.b, _V)
        place.align = 64
        return place
