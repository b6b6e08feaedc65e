"""Ciphertexts and evaluation keys as bytes: residues at their primes' bits, the second polynomial as a seed.

Against SEAL's own compressed blobs these are a sixth smaller, written and read many times faster, and
independent of SEAL's version. Layout, little endian: the header (16 bytes: ``BTR1``, kind, flags,
polynomials, log2 N, data limbs, Galois element), a seed of 64 bytes for each component if seeded, then
the packed residues (:mod:`blindtune.he.bits`) of each component's stored polynomials. A ciphertext is one
component; a key has one for each digit, and its limbs end with the special primes'.

Bytes come from anywhere: sizes are compared before memory is taken, residues as they are unpacked.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import EngineError
from blindtune.params import Parameters

MAGIC = b"BTR1"
SEED_BYTES = 64

_HEADER = struct.Struct("<4sBBBBII")
_SEEDED, _PRODUCT = 1, 2
_AGAIN = "Encrypt the study again and compare the checksums."

Residues = NDArray[np.uint64]


class Kind(IntEnum):
    """What a blob holds."""

    CIPHERTEXT = 1
    RELINEARISATION = 2
    GALOIS = 3


@dataclass(frozen=True)
class Header:
    """What a blob says of itself; with the parameters it fixes the size.

    Attributes:
        kind: what it is.
        limbs: data limbs, level + 1.
        size: polynomials of a ciphertext, 2 or 3.
        seeded: the second polynomial is a seed.
        product: at the squared scale.
        element: of a Galois key, else 0.
    """

    kind: Kind
    limbs: int
    size: int = 2
    seeded: bool = True
    product: bool = False
    element: int = 0

    def components(self, parameters: Parameters) -> int:
        """Pairs of polynomials: the digits of a key."""
        return 1 if self.kind is Kind.CIPHERTEXT else parameters.key_digits

    @property
    def stored(self) -> int:
        """Polynomials of a component that are there in full."""
        return self.size - 1 if self.seeded else self.size

    def primes(self, parameters: Parameters) -> NDArray[np.uint64]:
        """The prime of each limb."""
        chosen = parameters.primes[: self.limbs]
        if self.kind is not Kind.CIPHERTEXT:
            chosen += parameters.primes[-parameters.special :]
        return np.array(chosen, np.uint64)

    def bytes(self, parameters: Parameters) -> int:
        """The size of the blob."""
        bits = sum(int(q).bit_length() for q in self.primes(parameters))
        polynomial = bits * parameters.ring_degree // 8
        seed = SEED_BYTES if self.seeded else 0
        return _HEADER.size + self.components(parameters) * (seed + self.stored * polynomial)

    def check(self, parameters: Parameters) -> None:
        """Refuse what these parameters cannot have.

        Raises:
            EngineError: saying what.
        """
        if not 1 <= self.limbs <= parameters.levels + 1:
            raise EngineError("a ciphertext or key of another level than these parameters have")
        if self.size not in (2, 3) or (self.seeded and self.size != 2):
            raise EngineError(f"a ciphertext of {self.size} polynomials")
        whole = self.size == 2 and not self.product and self.limbs == parameters.levels + 1
        if self.kind is not Kind.CIPHERTEXT and not whole:
            raise EngineError("a key that is not a fresh one for all levels")
        element, top = self.element, 2 * parameters.ring_degree
        if (element % 2 == 0 or not 1 < element < top) if self.kind is Kind.GALOIS else element != 0:
            raise EngineError("no Galois element of this ring")


def write(
    header: Header, parameters: Parameters, polynomials: Sequence[Residues], seeds: Sequence[bytes] = ()
) -> bytes:
    """A blob.

    Args:
        polynomials: the stored ones, each (limbs, N), component by component.
        seeds: one a component, if seeded.

    Raises:
        EngineError: a residue that is not below its prime.
    """
    from blindtune.he.bits import pack, packed_words

    header.check(parameters)
    flags = _SEEDED * header.seeded | _PRODUCT * header.product
    log2n = parameters.ring_degree.bit_length() - 1
    head = _HEADER.pack(MAGIC, header.kind, flags, header.size, log2n, header.limbs, header.element)
    primes = header.primes(parameters)
    words = packed_words(primes, parameters.ring_degree)
    packed = np.empty((len(polynomials), words), np.uint64)
    if not all(pack(p, primes, row) for p, row in zip(polynomials, packed, strict=True)):
        raise EngineError("residues that are not below their primes")
    blob = b"".join((head, *seeds, packed.data))
    assert len(blob) == header.bytes(parameters)
    return blob


def read_header(data: bytes, parameters: Parameters) -> Header:
    """The header of a blob, checked against the parameters and against the blob's size.

    Raises:
        EngineError: not a blob of ours, of other parameters, or truncated.
    """
    if len(data) < _HEADER.size or data[:4] != MAGIC:
        raise EngineError("neither a ciphertext nor a key of this format", remedy=_AGAIN)
    _, kind, flags, size, log2n, limbs, element = _HEADER.unpack_from(data)
    if kind not in list(Kind) or flags > (_SEEDED | _PRODUCT) or 1 << log2n != parameters.ring_degree:
        raise EngineError("a ciphertext or key of other parameters, or of a newer version", remedy=_AGAIN)
    header = Header(Kind(kind), limbs, size, bool(flags & _SEEDED), bool(flags & _PRODUCT), element)
    header.check(parameters)
    if len(data) != header.bytes(parameters):
        raise EngineError("a ciphertext or key is truncated, or of other parameters", remedy=_AGAIN)
    return header


def expand(data: bytes, header: Header, parameters: Parameters, out: Residues | None = None) -> Residues:
    """All residues of a blob whose header was read: (components, size, limbs, N).

    Components run on threads, without the interpreter lock.

    Args:
        out: of that shape, written; a new array by default.

    Raises:
        EngineError: a residue that is not below its prime.
    """
    from blindtune.he.bits import packed_words, unpack
    from blindtune.he.xof import uniform

    primes, n = header.primes(parameters), parameters.ring_degree
    count, words = header.components(parameters), packed_words(primes, n)
    seeds = count * SEED_BYTES if header.seeded else 0
    packed = np.frombuffer(data, np.uint64, offset=_HEADER.size + seeds).reshape(count, header.stored, words)
    shape = (count, header.size, len(primes), n)
    found = np.empty(shape, np.uint64) if out is None else out
    if found.shape != shape:
        raise ValueError(f"residues of shape {found.shape} instead of {shape}")

    def component(i: int) -> bool:
        if header.seeded:
            start = _HEADER.size + i * SEED_BYTES
            uniform(data[start : start + SEED_BYTES], primes, found[i, 1])
        return all(unpack(packed[i, k], primes, found[i, k]) for k in range(header.stored))

    workers = min(count, len(os.sched_getaffinity(0)))
    if workers == 1:
        good = all(map(component, range(count)))
    else:
        with ThreadPoolExecutor(workers) as pool:
            good = all(pool.map(component, range(count)))
    if not good:
        raise EngineError("residues that are not below their primes: damaged", remedy=_AGAIN)
    return found


def seeds(data: bytes, header: Header, parameters: Parameters) -> list[bytes]:
    """The seeds of a blob whose header was read, one a component."""
    size = SEED_BYTES * header.components(parameters) * header.seeded
    starts = range(_HEADER.size, _HEADER.size + size, SEED_BYTES)
    return [data[i : i + SEED_BYTES] for i in starts]


def expand_key(data: bytes, parameters: Parameters, element: int = 0) -> Residues:
    """The residues (digits, 2, limbs, N) of a relinearisation key, or of the Galois key of an element.

    Raises:
        EngineError: damaged, of other parameters, or another key.
    """
    what, kind = (
        ("a Galois key", Kind.GALOIS) if element else ("the relinearisation key", Kind.RELINEARISATION)
    )
    try:
        header = read_header(data, parameters)
        residues = expand(data, header, parameters) if header.kind is kind else None
    except EngineError as error:
        raise EngineError(f"{what} does not load: damaged, or of other parameters", remedy=_AGAIN) from error
    if residues is None:
        raise EngineError(f"{what} is a key of another kind")
    if header.element != element:
        raise EngineError(f"a Galois key does not hold element {element}")
    return residues


def fresh_bytes(parameters: Parameters, *, seeded: bool = True) -> int:
    """The size of a freshly encrypted ciphertext; a single owner's is seeded."""
    return Header(Kind.CIPHERTEXT, parameters.levels + 1, seeded=seeded).bytes(parameters)


def key_bytes(parameters: Parameters, *, seeded: bool = True) -> int:
    """The size of an evaluation key; a single owner's is seeded."""
    return Header(Kind.RELINEARISATION, parameters.levels + 1, seeded=seeded).bytes(parameters)


def largest_bytes(parameters: Parameters) -> int:
    """An upper bound of any ciphertext's size."""
    return Header(Kind.CIPHERTEXT, parameters.levels + 1, size=3, seeded=False).bytes(parameters)
