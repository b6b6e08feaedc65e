"""What compiled code calls: functions that emit LLVM code, and instructions that numba has no name for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numba
from llvmlite import ir
from numba import types as numba_types
from numba.core import cgutils as numba_cgutils
from numba.extending import intrinsic

from blindtune.he.fast.cache import cached
from blindtune.he.fast.vector import Lanes

# numba's annotations know nothing of what its types do.
types: Any = numba_types
cgutils: Any = numba_cgutils
F = TypeVar("F", bound=Callable[..., Any])

_I64 = ir.IntType(64)


def emitted(emit: Callable[..., None]) -> Any:
    """Make ``emit(lanes, *integers)`` callable from compiled code as ``f(variant, *integers)``."""
    names = list(inspect.signature(emit).parameters)[1:]

    def define(typing_context: Any, variant: Any, *arguments: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            emit(Lanes(builder, variant == types.int16), *values[1:])
            return context.get_dummy_value()

        return types.void(variant, *[types.int64] * len(names)), generate

    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(n, keyword) for n in ("typing_context", "variant", *names)]
    define.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    define.__name__, define.__doc__ = emit.__name__, emit.__doc__
    return intrinsic(define)


def compiled(function: F) -> F:
    """Compile when first called, without the interpreter lock, and remember on disk."""
    made: F = cached(numba.njit, function, nogil=True)
    return made


def _fetch_add(typing_context: Any, address: Any, value: Any) -> Any:
    """Add to a word that threads share; what it held before."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = builder.inttoptr(values[0], _I64.as_pointer())
        return builder.atomic_rmw("add", pointer, values[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


def _call(typing_context: Any, function: Any, arguments: Any) -> Any:
    """Call a compiled function of eight-byte integers by its address, with a tuple of them."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        integers = cgutils.unpack_tuple(builder, values[1])
        kind = ir.FunctionType(ir.VoidType(), [_I64] * len(integers))
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), integers)
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, len(arguments))), generate


def _put(typing_context: Any, address: Any, index: Any, value: Any) -> Any:
    """Write the word number ``index`` at ``address``."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = builder.add(values[0], builder.shl(values[1], ir.Constant(_I64, 3)))
        builder.store(values[2], builder.inttoptr(place, _I64.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


fetch_add: Any = intrinsic(_fetch_add)
call: Any = intrinsic(_call)
put: Any = intrinsic(_put)
