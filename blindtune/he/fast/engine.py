"""An evaluation engine on kernels of its own, equal to SEAL residue by residue, several times as fast.

Keys, encryption, decryption and the wire format stay SEAL's; the kernels see public material only.
Ciphertexts and keys live in a layout of this engine's own: a residue takes four bytes where its modulus
lies below 2^32, and a ciphertext at a lowered level is the same memory with fewer rows in use.

One operation is not SEAL's step by step: a rotation onto a sum that is not relinearised yet does both key
switches with one division by the special prime. It decrypts to the same within the noise bound.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import EngineError
from blindtune.he import blob
from blindtune.he.blob import Header, Kind
from blindtune.he.checked import CheckedEngine
from blindtune.he.codec import conjugation_element, galois_element, galois_elements
from blindtune.he.engine import Ciphertext, KeySet
from blindtune.he.fast import tasks
from blindtune.he.fast.keys import Key, load_key
from blindtune.he.fast.products import CHUNK, SUM_BYTES
from blindtune.he.fast.storage import Pool, Rows, view
from blindtune.he.fast.switching import LISTS, MAX_BATCH
from blindtune.he.fast.tables import IS_NARROW, MAX_MODULUS, OFFSET, Chain, automorphism
from blindtune.he.fast.vector import Variant
from blindtune.params import Parameters

Integers = NDArray[np.int64]

# All digits of most keys: larger than the near caches, but sweeping over parts of a key costs more.
_ROOM_FOR_DIGITS = 1 << 23


def supports(parameters: Parameters) -> str | None:
    """Why these kernels cannot serve the parameters; None if they can."""
    if max(parameters.primes) >= MAX_MODULUS:
        return "a prime of more than 50 bits"
    return None


class FastEngine(CheckedEngine):
    """Evaluation on the kernels of this package; holds evaluation keys, never a secret key.

    Calls on one engine wait for each other.

    Args:
        parameters: checked parameters that :func:`supports` accepts.
        keys: the rotations that the Galois keys hold.
        relinearisation: serialised relinearisation key.
        galois: serialised Galois keys by Galois element, one key each.
        threads: how many threads an operation runs on, at most one for each processor.
        variant: how the kernels multiply; the processor must be able to.

    Raises:
        EngineError: a key that does not load under these parameters, or lacks a rotation.
    """

    def __init__(
        self,
        parameters: Parameters,
        keys: KeySet,
        relinearisation: bytes,
        galois: dict[int, bytes],
        threads: int = 1,
        variant: Variant = Variant.IFMA,
    ) -> None:
        reason = supports(parameters)
        if reason is not None:
            raise EngineError(f"{reason}: these parameters need SEAL itself")
        super().__init__(parameters, keys)
        n = parameters.ring_degree
        self._lock, self._chain = threading.Lock(), Chain(n, parameters.primes)
        # What is loaded stays to the end; what is reserved ahead is for what operations make.
        self._loaded, self._pool = Pool(), Pool()
        self._runner = tasks.Runner(variant, threads, self._chain)
        self._relin = load_key(relinearisation, parameters, self._chain, self._loaded)
        self._galois: dict[int, Key] = {}
        for element in galois_elements(keys, n):
            if element not in galois:
                raise EngineError(f"the Galois key of element {element} is missing")
            self._galois[element] = load_key(galois[element], parameters, self._chain, self._loaded, element)

    # Serialisation and storage

    def _load(self, data: bytes) -> Ciphertext:
        header = blob.read_header(data, self.parameters)
        if header.kind is not Kind.CIPHERTEXT:
            raise EngineError("a key instead of a ciphertext")
        (residues,) = blob.expand(data, header, self.parameters)
        if not residues[1:].any():
            raise EngineError("a ciphertext that hides nothing")
        rows = self._new(header.size, header.limbs, self._loaded)
        for k in range(header.size):
            for j in range(header.limbs):
                np.copyto(self._row(rows, k, j), residues[k, j], casting="unsafe")
        return Ciphertext(rows, header.limbs - 1, header.product, header.size)

    def _dump(self, a: Ciphertext) -> bytes:
        rows, n = a.raw, self.parameters.ring_degree
        header = Header(Kind.CIPHERTEXT, a.level + 1, a.size, seeded=False, product=a.product)
        residues = np.empty((a.size, a.level + 1, n), np.uint64)
        for k in range(a.size):
            for j in range(a.level + 1):
                residues[k, j] = self._row(rows, k, j)
        return blob.write(header, self.parameters, list(residues))

    def _row(self, rows: Rows, k: int, j: int) -> NDArray[Any]:
        """The residues of polynomial k modulo prime j, in place."""
        kind = np.uint32 if self._chain.constants[j, IS_NARROW] else np.uint64
        place = rows.polynomial(k) + int(self._chain.constants[j, OFFSET])
        return view(place, (self.parameters.ring_degree,), kind)

    def _new(self, size: int, limbs: int, pool: Pool | None = None) -> Rows:
        stride = self._chain.bytes_of(limbs)
        owner = (pool or self._pool).take(size * stride)
        return Rows(owner.address, stride, size, limbs, owner)

    # Arithmetic

    def _add(self, a: Any, b: Any) -> Any:
        return self._combine(tasks.ADD, a, b)

    def _subtract(self, a: Any, b: Any) -> Any:
        return self._combine(tasks.SUBTRACT, a, b)

    def _combine(self, kind: int, a: Rows, b: Rows) -> Rows:
        out = self._new(a.size, a.limbs)
        p, x = self._job(a.limbs, 1, a.size)
        x[0, tasks.SOURCE], x[0, tasks.SOURCE_STRIDE] = a.address, a.stride
        x[0, tasks.ADDEND0], x[0, tasks.ADDEND1] = b.address, b.stride
        x[0, tasks.OUT], x[0, tasks.OUT_STRIDE] = out.address, out.stride
        self._run([(kind, a.limbs * a.size)], p, x, 0)
        return out

    def reserve(self, size: int) -> None:
        self._pool.reserve(size)

    def _multiply_accumulate(
        self, lefts: list[list[Any]], rights: list[list[Any]], onto: list[Any] | None
    ) -> list[Any]:
        limbs, count = lefts[0][0].limbs, len(lefts) * len(rights)
        outs = [self._new(3, limbs) for _ in range(count)]
        p, x = self._job(limbs, count, 3)
        for k, out in enumerate(outs):
            x[k, :2] = out.address, out.stride
            if onto is not None:
                x[k, 2:4] = onto[k].address, onto[k].stride
        left, right = (_addresses([c for row in rows for c in row]) for rows in (lefts, rights))
        p[tasks.TERMS], p[tasks.GROUPS] = len(lefts[0]), len(lefts)
        p[tasks.LEFTS], p[tasks.RIGHTS] = left.ctypes.data, right.ctypes.data
        phases = [(tasks.PRODUCTS, limbs * (self.parameters.ring_degree // CHUNK))]
        self._run(phases, p, x, len(rights) * SUM_BYTES, cleared=True)
        return outs

    def _relinearise(self, batch: list[Any]) -> list[Any]:
        outs = [self._new(2, a.limbs) for a in batch]
        p, x = self._job(batch[0].limbs, len(batch), 2)
        for i, a in enumerate(batch):
            x[i, tasks.TARGET0] = a.polynomial(2)
            x[i, tasks.ADDEND0], x[i, tasks.ADDEND1] = a.polynomial(0), a.polynomial(1)
        self._switch(p, x, outs, [self._relin], [])
        return outs

    def _rotate(self, batch: list[Any], steps: int, onto: list[Any] | None) -> list[Any]:
        return self._apply(batch, galois_element(steps, self.parameters.ring_degree), onto)

    def _conjugate(self, batch: list[Any], onto: list[Any] | None) -> list[Any]:
        return self._apply(batch, conjugation_element(self.parameters.ring_degree), onto)

    def _apply(self, batch: list[Any], element: int, onto: list[Any] | None) -> list[Any]:
        limbs, count = batch[0].limbs, len(batch)
        outs = [self._new(2, limbs) for _ in batch]
        p, x = self._job(limbs, count, 2)
        turned = self._pool.take(count * self._chain.stride)
        table = automorphism(element, self.parameters.ring_degree)
        p[tasks.TABLE] = table.ctypes.data
        keys = [self._galois[element]]
        for i, (a, out) in enumerate(zip(batch, outs, strict=True)):
            x[i, tasks.SOURCE], x[i, tasks.SOURCE_STRIDE] = a.address, a.stride
            x[i, tasks.TURNED] = x[i, tasks.TARGET0] = turned.address + i * self._chain.stride
            # Polynomial 0 is turned, and added to, in the result; the division adds there in place.
            x[i, tasks.ADDEND0] = out.address
            if onto is not None:
                x[i, tasks.TURN_ADDEND], x[i, tasks.ADDEND1] = onto[i].address, onto[i].polynomial(1)
                if onto[i].size == 3:
                    x[i, tasks.TARGET1] = onto[i].polynomial(2)
        if onto is not None and onto[0].size == 3:
            keys.append(self._relin)
        self._switch(p, x, outs, keys, [(tasks.TURN, 2 * limbs * count)])
        return outs

    def _switch(
        self, p: Integers, x: Integers, outs: list[Rows], keys: list[Key], before: list[tuple[int, int]]
    ) -> None:
        """Key-switch the targets and divide by the special prime."""
        chain, n, limbs, count, targets = (
            self._chain,
            self.parameters.ring_degree,
            outs[0].limbs,
            len(outs),
            len(keys),
        )
        special = len(chain.moduli) - 1
        digits = self._pool.take(count * targets * chain.stride)
        totals = self._pool.take(count * 2 * chain.stride)
        lasts = self._pool.take(count * 2 * n * 8)
        p[tasks.TARGETS], p[tasks.DIVISOR] = targets, special
        p[tasks.COEFFICIENTS], p[tasks.LASTS] = digits.address, lasts.address
        for t, key in enumerate(keys):
            if key.digits < limbs:
                raise EngineError("a key for lower levels than the ciphertext's")
            p[tasks.KEYS + 2 * t], p[tasks.KEYS + 2 * t + 1] = key.buffer.address, key.digits
        for i, out in enumerate(outs):
            x[i, tasks.OUT], x[i, tasks.OUT_STRIDE] = out.address, out.stride
            x[i, tasks.TOTAL] = totals.address + i * 2 * chain.stride
            x[i, tasks.TOTAL_STRIDE] = chain.stride
        phases = [
            *before,
            (tasks.DIGITS, count * targets * limbs),
            (tasks.SUMS, count * (limbs + 1)),
            (tasks.LAST_ROWS, 2 * count),
            (tasks.DIVIDE, 2 * count * limbs),
        ]
        self._run(phases, p, x, LISTS + int(p[tasks.BATCH]) * n * 8)

    def _rescale(self, batch: list[Any], level: int) -> list[Any]:
        n, count, size = self.parameters.ring_degree, len(batch), batch[0].size
        outs = [self._new(size, level) for _ in batch]
        p, x = self._job(level, count, size)
        lasts = self._pool.take(count * size * n * 8)
        p[tasks.DIVISOR], p[tasks.LASTS] = level, lasts.address
        for i, (a, out) in enumerate(zip(batch, outs, strict=True)):
            x[i, tasks.TOTAL], x[i, tasks.TOTAL_STRIDE] = a.address, a.stride
            x[i, tasks.OUT], x[i, tasks.OUT_STRIDE] = out.address, out.stride
        phases = [(tasks.LAST_ROWS, size * count), (tasks.DIVIDE, size * count * level)]
        self._run(phases, p, x, n * 8)
        return outs

    def _multiply_scalar(self, a: Any, factor: float, level: int) -> Any:
        scaled = self._new(2, a.limbs)
        p, x = self._job(a.limbs, 1 + a.limbs, 2)
        # The factor at the prime's own size: the rescale then restores the nominal scale exactly.
        whole = _rounded(factor * float(self.parameters.primes[level]))
        x[0, tasks.SOURCE], x[0, tasks.SOURCE_STRIDE] = a.address, a.stride
        x[0, tasks.OUT], x[0, tasks.OUT_STRIDE] = scaled.address, scaled.stride
        for j in range(a.limbs):
            q = self.parameters.primes[j]
            x[1 + j, :2] = whole % q, (whole % q << 52) // q
        self._run([(tasks.SCALE, 2 * a.limbs)], p, x, 0)
        return self._rescale([scaled], level)[0]

    def _at_level(self, a: Any, level: int) -> Any:
        return Rows(a.address, a.stride, a.size, level + 1, a.owner)

    # Jobs

    def _job(self, limbs: int, count: int, size: int) -> tuple[Integers, Integers]:
        """Parameters and operands of a job, as :mod:`.tasks` names them."""
        n = self.parameters.ring_degree
        p = np.zeros(tasks.PARAMETERS, np.int64)
        p[tasks.DEGREE], p[tasks.LOG_DEGREE] = n, n.bit_length() - 1
        p[tasks.LIMBS], p[tasks.COUNT], p[tasks.SIZE] = limbs, count, size
        p[tasks.STRIDE] = self._chain.stride
        p[tasks.BATCH] = min(MAX_BATCH, max(4, _ROOM_FOR_DIGITS // (8 * n)))
        return p, np.zeros((count, tasks.OPERANDS), np.int64)

    def _run(
        self, phases: Sequence[tuple[int, int]], p: Integers, x: Integers, scratch: int, cleared: bool = False
    ) -> None:
        with self._lock:
            self._runner.run(phases, p, x, scratch, cleared)


def _addresses(batch: list[Rows]) -> Integers:
    """The addresses of both polynomials of each."""
    return np.array([(a.address, a.address + a.stride) for a in batch], np.int64)


def _rounded(x: float) -> int:
    """The nearest integer, halves away from zero, as C rounds."""
    below = math.floor(abs(x))
    return int(math.copysign(below + (abs(x) - below >= 0.5), x))
