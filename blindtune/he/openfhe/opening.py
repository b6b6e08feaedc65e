"""Opening a ciphertext that holds a repeated vector, with as few coefficients as it takes.

A slot vector of period ``p`` is a polynomial in ``X^k``, ``k = slots / p``: only ``2p`` of its N
coefficients can differ from zero. The parties open those alone, so less error is there to hide. On residues
in the order of the transform, k neighbours are evaluations at points with the same k-th power: dropping the
other coefficients is taking their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import EngineError
from blindtune.he import blob
from blindtune.he.blob import Kind, Residues
from blindtune.he.openfhe.codec import codec
from blindtune.he.openfhe.joint import add
from blindtune.params import Parameters


@dataclass(frozen=True)
class Opened:
    """A ciphertext that is opened.

    Attributes:
        rows: its two polynomials modulo the first prime, (2, N): lower levels hold the same values.
        period: of its slots.
    """

    rows: Residues
    period: int

    @classmethod
    def read(cls, data: bytes, parameters: Parameters, level: int, period: int) -> Opened:
        """A blob at the agreed level.

        Raises:
            EngineError: damaged, or not a ciphertext of that level at the nominal scale.
        """
        header = blob.read_header(data, parameters)
        if (
            header.kind is not Kind.CIPHERTEXT
            or header.limbs != level + 1
            or header.size != 2
            or header.product
        ):
            raise EngineError("not a ciphertext as the agreed program ends with")
        (residues,) = blob.expand(data, header, parameters)
        return cls(residues[:, 0], period)

    @property
    def coefficients(self) -> int:
        """Coefficients that are opened."""
        return 2 * self.period


def project(row: Residues, coefficients: int, q: int) -> Residues:
    """The residues (coefficients,) modulo q of a polynomial (N,) without its other coefficients."""
    prime = np.array([q], np.uint64)
    count = len(row) // coefficients
    halves = row.reshape(coefficients, count)
    while halves.shape[1] > 1:
        halves = add(halves[:, ::2], halves[:, 1::2], prime)
    inverse = pow(count, -1, q)
    return np.array([x * inverse % q for x in halves[:, 0].tolist()], np.uint64)


def fuse(opened: Opened, partials: Sequence[Residues], parameters: Parameters) -> NDArray[np.complex128]:
    """The values (period,) of a ciphertext, from every party's answer (coefficients,)."""
    q, n = parameters.primes[0], opened.coefficients
    total = project(opened.rows[0], n, q)
    for partial in partials:
        total = add(total, partial, np.array([q], np.uint64))
    used = codec(parameters)
    raw = used.raw(np.repeat(total, parameters.ring_degree // n)[None, None], 0)
    values = used.decode(used.context.MultipartyDecryptFusion([raw]))
    return values[: opened.period]
