"""OpenFHE's binary objects around residues of ours.

The binding makes polynomials from serialised objects only. A mould is such an object with its residues cut
out: filled with residues that were checked it is read by OpenFHE, so no byte of OpenFHE's format ever comes
from outside. Where the residues lie is found, not assumed: each row begins with its length and ends with its
prime.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import EngineError

Residues = NDArray[np.uint64]
_WORD = struct.Struct("<Q")


class Mould:
    """A serialised object without its residues.

    Args:
        data: an object of this kind, as OpenFHE serialised it.
        primes: the prime of each row of residues, in the order of the object.
        n: residues of a row.

    Raises:
        EngineError: the object has other rows: another release of OpenFHE.
    """

    def __init__(self, data: bytes, primes: Sequence[int], n: int) -> None:
        self._n, self._pieces, at = n, [], 0
        for start in _rows(data, primes, n):
            self._pieces.append(data[at:start])
            at = start + 8 * n
        self._end = data[at:]

    def marked(self, before: int, after: int) -> Mould:
        """The same with another number, of four bytes, in its head, where it stands once.

        Raises:
            EngineError: it stands there more often, or not at all.
        """
        old, new = (value.to_bytes(4, "little") for value in (before, after))
        head, *rest = self._pieces
        if head.count(old) != 1:
            raise _unknown()
        made = copy(self)
        made._pieces = [head.replace(old, new), *rest]
        return made

    def fill(self, residues: Residues) -> bytes:
        """The object with these residues (rows, N)."""
        rows = np.ascontiguousarray(residues, "<u8").reshape(len(self._pieces), self._n)
        pieces: list[Any] = []
        for piece, row in zip(self._pieces, rows, strict=True):
            pieces += (piece, row.data)
        return b"".join((*pieces, self._end))


def residues_of(data: bytes, primes: Sequence[int], n: int) -> Residues:
    """The residues (rows, N) of an object that OpenFHE serialised in this process.

    Raises:
        EngineError: it has other rows.
    """
    starts = list(_rows(data, primes, n))
    return np.stack([np.frombuffer(data, "<u8", n, start) for start in starts])


def _rows(data: bytes, primes: Sequence[int], n: int) -> Iterator[int]:
    """Where the residues of each row begin."""
    length, at, last = _WORD.pack(n), 0, 0
    for q in primes:
        end = _WORD.pack(q)
        while (at := data.find(length, at)) >= 0 and data[at + 8 + 8 * n : at + 16 + 8 * n] != end:
            at += 1
        # Between two rows there is no room for one that was passed over.
        if at < 0 or (last and at - last >= 8 * n):
            raise _unknown()
        yield at + 8
        at = last = at + 16 + 8 * n


def _unknown() -> EngineError:
    return EngineError(
        "OpenFHE writes its objects in another way than this version of blindtune knows",
        remedy="Install the release of OpenFHE that blindtune[openfhe] names.",
    )
