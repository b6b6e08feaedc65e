"""SEAL's order of slots for OpenFHE's encoder.

A slot is an evaluation at a power of the 2N-th complex root of unity. SEAL's slot i stands at the
exponent 3^i, OpenFHE's slot j at 5^j. Either set holds one of each pair of conjugate exponents: a slot of
one is a slot of the other, or its conjugate.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Slots = NDArray[np.complex128]


def to_openfhe(values: Slots) -> Slots:
    """Values (slots,) in SEAL's order, for OpenFHE to encode."""
    place, conjugated = _order(len(values))
    out = np.empty_like(values)
    out[place] = np.where(conjugated, values.conj(), values)
    return out


def from_openfhe(values: Slots) -> Slots:
    """Values (slots,) that OpenFHE decoded, in SEAL's order."""
    place, conjugated = _order(len(values))
    found: Slots = values[place]
    return np.conj(found, out=found, where=conjugated)


@lru_cache(maxsize=8)
def _order(slots: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """OpenFHE's slot for each of SEAL's, and whether it holds the conjugate."""
    order = 4 * slots
    places = np.full(order, -1)
    exponent = 1
    for j in range(slots):
        places[exponent], places[order - exponent] = j, j + slots
        exponent = exponent * 5 % order
    exponents, exponent = np.empty(slots, np.int64), 1
    for i in range(slots):
        exponents[i], exponent = exponent, exponent * 3 % order
    found = places[exponents]
    return found % slots, found >= slots
