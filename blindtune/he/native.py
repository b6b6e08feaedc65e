"""SEAL's objects in memory, and its uncompressed stream: how residues get out of SEAL and into it.

The binding hands out no residues, and what it saves is always compressed, which takes longer than to
encrypt. So residues are copied out of the objects themselves: pybind11 keeps the C++ pointer 16 bytes
after the Python object, and the layout is that of SEAL 4.3 (and 4.4). Every field that is known from
elsewhere is compared first; a SEAL of another layout is refused. Into SEAL, its own stream format does,
and SEAL checks what it loads.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import EngineError

Residues = NDArray[np.uint64]

_OBJECT = 16
"""Bytes from a Python object of the binding to its pointer."""
_CIPHERTEXT_WORDS = 15
_MAGIC = 0xA15E
_SEEDED = 2**64 - 1
_STREAM = struct.Struct("<HBBBBHQ")
_MEMBERS = struct.Struct("<32s?QQQdQ")
_SEED = struct.Struct("<HBBBBHQB64s")
_BLAKE2XB = 1


@dataclass(frozen=True)
class Seeded:
    """A ciphertext whose second polynomial is a seed.

    Attributes:
        first: residues (limbs, N), a copy.
        seed: 64 bytes.
    """

    first: Residues
    seed: bytes


def polynomials(ciphertext: Any, size: int, limbs: int, n: int) -> Residues:
    """The residues of a ciphertext (size, limbs, N), a copy.

    Raises:
        EngineError: another layout than expected.
    """
    return _view(_pointer(ciphertext), size, limbs, n).copy()


def seeded(serializable: Any, limbs: int, n: int) -> Seeded:
    """What ``encrypt_symmetric`` returned.

    Raises:
        EngineError: another layout than expected, or not seeded.
    """
    return _seeded(_pointer(serializable), limbs, n)


def seeded_key(serializable: Any, index: int, parms_id: Sequence[int], limbs: int, n: int) -> list[Seeded]:
    """The digits of what ``create_galois_keys`` or ``create_relin_keys`` returned.

    Args:
        index: SEAL's place of the key in the object.
        parms_id: of keys in this context.
        limbs: of a key, the special one too.

    Raises:
        EngineError: another layout than expected, or not seeded.
    """
    words = _words(_pointer(serializable), 9)
    begin, end = words[6], words[7]
    if words[2:6] != list(parms_id) or not begin or not 24 * index < end - begin <= 24 * n:
        raise _unknown()
    first, last, _ = _words(begin + 24 * index, 3)
    step, rest = divmod(last - first, limbs - 1)
    if not first or rest or not 8 * _CIPHERTEXT_WORDS <= step <= 1024:
        raise _unknown()
    return [_seeded(first + i * step, limbs, n) for i in range(limbs - 1)]


def ciphertext_stream(
    version: tuple[int, int], parms_id: Sequence[int], scale: float, residues: Residues
) -> list[bytes | memoryview]:
    """SEAL's uncompressed stream of a ciphertext (size, limbs, N), in pieces."""
    size, limbs, n = residues.shape
    array = _STREAM.size + 8 + residues.nbytes
    members = _MEMBERS.pack(struct.pack("<4Q", *parms_id), True, size, n, limbs, scale, 1)
    head = _header(version, _STREAM.size + len(members) + array) + members
    return [head + _header(version, array) + struct.pack("<Q", residues.size), residues.data.cast("B")]


def key_stream(
    version: tuple[int, int], parms_id: Sequence[int], index: int, residues: Residues
) -> list[bytes | memoryview]:
    """SEAL's uncompressed stream of keys that hold one key, (digits, 2, limbs, N), in pieces."""
    pieces = [x for digit in residues for x in ciphertext_stream(version, parms_id, 1.0, digit)]
    head = struct.pack("<4Q", *parms_id) + struct.pack("<Q", index + 1) + bytes(8 * index)
    head += struct.pack("<Q", len(residues))
    size = _STREAM.size + len(head) + sum(len(x) for x in pieces)
    return [_header(version, size) + head, *pieces]


def _header(version: tuple[int, int], size: int) -> bytes:
    return _STREAM.pack(_MAGIC, _STREAM.size, *version, 0, 0, size)


def _seeded(address: int, limbs: int, n: int) -> Seeded:
    view = _view(address, 2, limbs, n)
    mark, information = view[1, 0, 0], view[1].tobytes()[8 : 8 + _SEED.size]
    magic, header, _, _, compressed, _, size, kind, seed = _SEED.unpack(information)
    if mark != _SEEDED or (magic, header, compressed, size) != (_MAGIC, _STREAM.size, 0, _SEED.size):
        raise _unknown()
    if kind != _BLAKE2XB:
        raise EngineError("SEAL was built with another random generator than BLAKE2Xb")
    return Seeded(view[0].copy(), seed)


def _view(address: int, size: int, limbs: int, n: int) -> Residues:
    words = _words(address, _CIPHERTEXT_WORDS)
    if words[5:8] != [size, n, limbs] or words[13] != size * limbs * n or not words[14]:
        raise _unknown()
    raw = (ctypes.c_uint64 * words[13]).from_address(words[14])
    return np.ctypeslib.as_array(raw).reshape(size, limbs, n)


def _pointer(instance: Any) -> int:
    return _words(id(instance) + _OBJECT, 1)[0]


def _words(address: int, count: int) -> list[int]:
    return list((ctypes.c_uint64 * count).from_address(address))


def _unknown() -> EngineError:
    return EngineError(
        "this build of SEAL keeps its objects in another way than expected",
        remedy="Install TenSEAL 0.3.18 (SEAL 4.3).",
    )
