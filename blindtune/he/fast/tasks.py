"""Phases of tasks on several threads: numba's threads, and a shared counter that hands the tasks out.

numba would split a loop in equal parts beforehand; processors that others use too, and tasks of unequal
length, want the next task to go to whoever is free.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

# An idle thread of GNU OpenMP spins for milliseconds, on a processor that the others may need. This is a
# few tens of microseconds, after which it sleeps; read when numba loads the library.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import numba
import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from blindtune.he.fast.cache import cached
from blindtune.he.fast.division import coefficient_row, divide_row
from blindtune.he.fast.emitted import call, compiled, fetch_add, types
from blindtune.he.fast.pointwise import combine_rows, scale_row, turn_row
from blindtune.he.fast.products import CHUNK, product_chunk
from blindtune.he.fast.storage import Buffer, Pool, aligned
from blindtune.he.fast.switching import switch_row
from blindtune.he.fast.tables import COLUMNS, DIVISION_COLUMNS, OFFSET, Chain
from blindtune.he.fast.vector import Variant

_config: Any = numba.config

# Kinds of phases.
TURN, DIGITS, SUMS, LAST_ROWS, DIVIDE, ADD, SUBTRACT, SCALE, PRODUCTS = range(9)

# Common parameters of a job.
(
    DEGREE,
    LOG_DEGREE,
    LIMBS,
    COUNT,
    SIZE,
    TARGETS,
    DIVISOR,
    STRIDE,
    COEFFICIENTS,
    LASTS,
    TABLE,
    BATCH,
    TERMS,
    LEFTS,
    RIGHTS,
    GROUPS,
    KEYS,  # for each of two targets: address and digits
) = range(17)
PARAMETERS = 20

# Columns for each ciphertext of a job.
(
    SOURCE,
    SOURCE_STRIDE,
    OUT,
    OUT_STRIDE,
    ADDEND0,
    ADDEND1,
    TURN_ADDEND,
    TURNED,
    TARGET0,
    TARGET1,
    TOTAL,
    TOTAL_STRIDE,
) = range(12)
OPERANDS = 12


@compiled
def _perform(
    variant: Any, kind: int, task: int, p: Any, x: Any, constants: Any, divisions: Any, scratch: int
) -> None:
    """One task of a phase. See :mod:`.engine` for how jobs are made."""
    n, lg, limbs, count, size = p[DEGREE], p[LOG_DEGREE], p[LIMBS], p[COUNT], p[SIZE]
    if kind == SUMS:
        # The special modulus comes first: what follows waits for it.
        i, j = task % count, task // count - 1
        if j < 0:
            j = len(constants) - 1
        out = x[i, TOTAL] + constants[j, OFFSET]
        switch_row(
            variant,
            j,
            limbs,
            p[TARGETS],
            n,
            lg,
            constants,
            p[COEFFICIENTS] + i * p[TARGETS] * p[STRIDE],
            p[STRIDE],
            x[i, TARGET0:],
            p[KEYS:],
            out,
            out + x[i, TOTAL_STRIDE],
            scratch,
            p[BATCH],
        )
    elif kind == DIVIDE:
        k, i, j = task % size, task // size % count, task // size // count
        add = x[i, ADDEND1] if k == 1 else x[i, ADDEND0]
        if k > 1:
            add = 0
        offset = constants[j, OFFSET]
        divide_row(
            variant,
            j,
            p[DIVISOR],
            n,
            lg,
            constants,
            divisions,
            p[LASTS] + (i * size + k) * n * 8,
            x[i, TOTAL] + k * x[i, TOTAL_STRIDE] + offset,
            add + offset if add != 0 else 0,
            x[i, OUT] + k * x[i, OUT_STRIDE] + offset,
            scratch,
        )
    elif kind == DIGITS:
        j, t, i = task % limbs, task // limbs % p[TARGETS], task // limbs // p[TARGETS]
        row = x[i, TARGET0 + t] + constants[j, OFFSET]
        out = p[COEFFICIENTS] + (i * p[TARGETS] + t) * p[STRIDE] + constants[j, OFFSET]
        coefficient_row(variant, j, n, lg, constants, row, scratch, out, False)
    elif kind == LAST_ROWS:
        k, i, j = task % size, task // size, p[DIVISOR]
        row = x[i, TOTAL] + k * x[i, TOTAL_STRIDE] + constants[j, OFFSET]
        coefficient_row(variant, j, n, lg, constants, row, scratch, p[LASTS] + task * n * 8, True)
    elif kind == PRODUCTS:
        chunks = n // CHUNK
        product_chunk(
            variant,
            task // chunks,
            task % chunks,
            constants,
            p[TERMS],
            p[LEFTS],
            p[GROUPS],
            p[RIGHTS],
            count // p[GROUPS],
            x,
            scratch,
        )
    else:
        j, k, i = task % limbs, task // limbs % size, task // limbs // size
        c = constants[j]
        source = x[i, SOURCE] + k * x[i, SOURCE_STRIDE] + c[OFFSET]
        out = x[i, OUT] + k * x[i, OUT_STRIDE] + c[OFFSET]
        if kind == TURN:
            add = 0
            if k == 0 and x[i, TURN_ADDEND] != 0:
                add = x[i, TURN_ADDEND] + c[OFFSET]
            if k == 1:
                out = x[i, TURNED] + c[OFFSET]
            turn_row(variant, source, p[TABLE], add, out, n, c)
        elif kind == SCALE:
            # The factors modulo each modulus, then their ratios, stand where products list their terms.
            scale_row(variant, source, out, n, c, x[1 + j, 0], x[1 + j, 1])
        else:
            other = x[i, ADDEND0] + k * x[i, ADDEND1] + c[OFFSET]
            combine_rows(variant, kind == SUBTRACT, source, other, out, n, c)


def _drain(
    variant: Any,
    kind: int,
    tasks: int,
    counter: int,
    parameters: Any,
    operands: Any,
    constants: Any,
    moduli: int,
    divisions: Any,
    scratch: int,
) -> None:
    """Take tasks until none is left."""
    p, x = carray(parameters, PARAMETERS), carray(operands, (1, OPERANDS))
    c, d = carray(constants, (moduli, COLUMNS)), carray(divisions, (moduli, moduli, DIVISION_COLUMNS))
    while True:
        task = fetch_add(counter, 1)
        if task >= tasks:
            break
        _perform(variant, kind, task, p, x, c, d, scratch)


@cache
def _drain_function(variant: Variant) -> Any:
    """:func:`_drain`, compiled for a variant, to be called by address.

    What numba compiles it compiles into every caller again; by address there is one copy.
    """
    whole, words = types.int64, types.CPointer(types.int64)
    tag = types.int8 if variant is Variant.IFMA else types.int16
    kind = types.void(tag, whole, whole, whole, words, words, words, whole, words, whole)
    return cached(numba.cfunc, _drain, kind)


def _on_this_thread(drain: int, variant: int, phases: Any, counters: int, job: Any, scratch: Any) -> None:
    """All phases, (kind, tasks) each, one after the other.

    Args:
        drain: address of the compiled :func:`_drain`.
        counters: address of a zeroed cache line for each phase.
        job: what :func:`_drain` takes from ``parameters`` to ``divisions``.
        scratch: address of each thread's working room.
    """
    for phase in range(len(phases)):
        kind, tasks, counter = phases[phase, 0], phases[phase, 1], counters + 64 * phase
        call(drain, (variant, kind, tasks, counter, job[0], job[1], job[2], job[3], job[4], scratch[0]))


def _on_threads(drain: int, variant: int, phases: Any, counters: int, job: Any, scratch: Any) -> None:
    """The same on as many threads as ``scratch`` has entries; a phase waits for the one before."""
    for phase in range(len(phases)):
        kind, tasks, counter = phases[phase, 0], phases[phase, 1], counters + 64 * phase
        for t in numba.prange(len(scratch)):
            call(drain, (variant, kind, tasks, counter, job[0], job[1], job[2], job[3], job[4], scratch[t]))


# numba's cache knows a function by its name alone, whatever the options: hence two.
_run_on_this_thread = cached(numba.njit, _on_this_thread, nogil=True)
_run_on_threads = cached(numba.njit, _on_threads, nogil=True, parallel=True)


# Engines take turns: they would share the same processors, and not every threading layer of numba's can be
# entered twice at once.
_one_at_a_time = threading.Lock()

# Sums of so few residues are over before another thread has woken up.
_LIGHT, _SMALL = (ADD, SUBTRACT, SCALE), 1 << 20


class Runner:
    """Runs jobs on a number of threads, with working room for each.

    Args:
        variant: the variant of the kernels.
        chain: whose constants the jobs use.
        threads: at most one for each processor that numba saw.
    """

    def __init__(self, variant: Variant, threads: int, chain: Chain) -> None:
        self.threads = max(1, min(threads, _config.NUMBA_NUM_THREADS))
        # The function too: only its address is used, and of two that are made at once one is forgotten.
        self._chain, self._function = chain, _drain_function(variant)
        self._tables = [chain.constants.ctypes.data, len(chain.moduli), chain.divisions.ctypes.data]
        self._pool, self._room = Pool(), 0
        self._buffers: list[Buffer] = []
        self._scratch = np.zeros(self.threads, np.int64)

    def run(
        self,
        phases: Sequence[tuple[int, int]],
        p: NDArray[np.int64],
        x: NDArray[np.int64],
        room: int,
        cleared: bool,
    ) -> None:
        """Perform a job's phases; one call at a time.

        Args:
            phases: (kind, number of tasks).
            room: bytes that a thread needs; zeroed if ``cleared``.
        """
        if room > self._room:
            self._buffers = [self._pool.take(room) for _ in range(self.threads)]
            self._scratch[:] = [buffer.address for buffer in self._buffers]
            self._room = room
        if cleared:
            for buffer in self._buffers:
                ctypes.memset(buffer.address, 0, room)
        counters, listed = aligned((len(phases), 8), np.int64), np.array(phases, np.int64)
        job = np.array([p.ctypes.data, x.ctypes.data, *self._tables], np.int64)
        arguments = self._function.address, 0, listed, counters.ctypes.data, job, self._scratch
        if self.threads == 1 or all(
            kind in _LIGHT and tasks * int(p[DEGREE]) < _SMALL for kind, tasks in phases
        ):
            _run_on_this_thread(*arguments)
        else:
            with _one_at_a_time:
                numba.set_num_threads(self.threads)
                _run_on_threads(*arguments)
