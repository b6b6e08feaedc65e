"""Key-switching keys in the order in which a key switch reads them.

For each modulus, data moduli first, and each run of sixteen points: every digit's two components. A sum
over all digits then reads the key from one end to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blindtune.he import blob
from blindtune.he.fast.storage import Buffer, Pool, view
from blindtune.he.fast.tables import IS_NARROW, Chain
from blindtune.params import Parameters

RUN = 16
"""Points of one run."""


@dataclass(frozen=True)
class Key:
    """A key.

    Attributes:
        buffer: its memory.
        digits: data moduli that it serves; the special one comes behind theirs.
    """

    buffer: Buffer
    digits: int


def load_key(data: bytes, parameters: Parameters, chain: Chain, pool: Pool, element: int = 0) -> Key:
    """Read a relinearisation key, or the Galois key of an element.

    Raises:
        EngineError: damaged, of other parameters, or another key.
    """
    residues, n = blob.expand_key(data, parameters, element), parameters.ring_degree
    digits = len(residues)
    special = len(parameters.primes) - 1
    wide = 4 if chain.constants[special, IS_NARROW] else 8
    buffer = pool.take(2 * digits * (chain.bytes_of(digits) + n * wide))
    for limb in range(digits + 1):
        j = limb if limb < digits else special
        residue = np.uint32 if chain.constants[j, IS_NARROW] else np.uint64
        place = buffer.address + 2 * digits * chain.bytes_of(limb)
        target = view(place, (n // RUN, digits, 2, RUN), residue)
        rows = residues[:, :, limb].reshape(digits, 2, n // RUN, RUN)
        np.copyto(target, rows.transpose(2, 0, 1, 3), casting="unsafe")
    return Key(buffer, digits)
