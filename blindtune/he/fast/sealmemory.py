"""SEAL's ciphertexts in memory: where their residues stand. Read and written in place, nothing else.

pybind11 keeps the address of the C++ object behind the Python object's head. The object's 64-bit words
are SEAL 4's on a 64-bit system; every use checks what they must say, and :mod:`.selftest` checks them
against SEAL's own answers before an engine is built on them.
"""

from __future__ import annotations

import ctypes
from typing import Any

from blindtune.errors import EngineError

_INSTANCE = 16
_SIZE, _DEGREE, _LIMBS, _COUNT, _DATA = 5, 6, 7, 13, 14


def residues(ciphertext: Any, size: int, limbs: int, degree: int) -> int:
    """The address of a SEAL ciphertext's residues, (size, limbs, degree) words of eight bytes.

    Raises:
        EngineError: it says another shape.
    """
    instance = ctypes.c_void_p.from_address(id(ciphertext) + _INSTANCE).value
    if instance is None:
        raise EngineError("a SEAL object without memory")
    words = (ctypes.c_uint64 * (_DATA + 1)).from_address(instance)
    found, said = tuple(words[i] for i in (_SIZE, _LIMBS, _DEGREE)), (size, limbs, degree)
    agrees = found == said == (
        ciphertext.size(),
        ciphertext.coeff_modulus_size(),
        ciphertext.poly_modulus_degree(),
    )
    data = int(words[_DATA])
    if not agrees or words[_COUNT] != size * limbs * degree or data % 8 or not data:
        raise EngineError(f"a SEAL ciphertext of shape {found} instead of {said}")
    return data
