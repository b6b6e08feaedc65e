"""Joint keys of several parties, from shares that anyone may see. Public material only.

The joint secret is the sum of the parties' shares ``s_i``, which nobody ever holds. All shares of one key are
made on the same uniform polynomials, expanded from the agreed study's digest, so they add up (Asharov et al.,
Eurocrypt 2012; Mouchet et al., PoPETs 2021). The items of key generation:

* ``public``: an encryption of zero, for encrypting;
* ``zero``: an encryption of zero modulo the special prime too, a digit: :mod:`.share` hides behind it;
* ``relinearisation``: the key from s to s, from which each party makes its share of
* ``relinearised``: the key from s² to s;
* ``galois-E``: the key of a rotation or of conjugation, as a single owner's.

A joint key is a blob like a single owner's: either engine evaluates with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import EngineError
from blindtune.he import blob
from blindtune.he.blob import SEED_BYTES, Header, Kind, Residues
from blindtune.he.codec import galois_elements
from blindtune.he.engine import Ciphertext, KeySet
from blindtune.he.openfhe.codec import codec
from blindtune.params import Parameters

PUBLIC, ZERO, RELINEARISATION, RELINEARISED = "public", "zero", "relinearisation", "relinearised"


def first_items(keys: KeySet, ring_degree: int) -> list[str]:
    """What each party sends in the first round of key generation."""
    return [PUBLIC, ZERO, RELINEARISATION, *(f"galois-{e}" for e in galois_elements(keys, ring_degree))]


def element_of(item: str) -> int:
    """The Galois element of an item, 0 for the others."""
    return int(item.removeprefix("galois-")) if item.startswith("galois-") else 0


def header_of(item: str, parameters: Parameters) -> Header:
    """What an item's blob says of itself."""
    limbs = parameters.levels + 1
    if item == PUBLIC:
        return Header(Kind.CIPHERTEXT, limbs)
    element = element_of(item)
    kind = Kind.GALOIS if element else Kind.RELINEARISATION
    return Header(kind, limbs, seeded=item != RELINEARISED, element=element)


def seeds(reference: bytes, item: str, count: int, number: int = 0) -> list[bytes]:
    """The seeds of an item's uniform polynomials: nobody chooses them once the study is agreed.

    Args:
        reference: digest of the agreed study, 32 bytes.
        number: of several items of this kind.
    """
    text = b"blindtune joint key" + reference + number.to_bytes(4, "big") + item.encode()
    found = hashlib.shake_256(text).digest(SEED_BYTES * count)
    return [found[i * SEED_BYTES : (i + 1) * SEED_BYTES] for i in range(count)]


def uniform(reference: bytes, item: str, parameters: Parameters, number: int = 0) -> Residues:
    """An item's uniform polynomials (components, limbs, N); see :func:`seeds`."""
    from blindtune.he.xof import uniform as expanded

    header = header_of(item, parameters)
    primes = header.primes(parameters)
    found = np.empty((header.components(parameters), len(primes), parameters.ring_degree), np.uint64)
    for seed, row in zip(seeds(reference, item, len(found), number), found, strict=True):
        expanded(seed, primes, row)
    return found


def checked(data: bytes, item: str, reference: bytes, parameters: Parameters) -> Residues:
    """The residues (components, 2, limbs, N) of someone's share of an item.

    Raises:
        EngineError: damaged, of another item, or on other uniform polynomials than the agreed ones.
    """
    wanted, header = header_of(item, parameters), blob.read_header(data, parameters)
    if header != wanted:
        raise EngineError(f"a share of another key than {item}")
    agreed = seeds(reference, item, header.components(parameters))
    if header.seeded and blob.seeds(data, header, parameters) != agreed:
        raise EngineError(
            f"a share of {item} of another study", remedy="Ask its sender which study it joined."
        )
    return blob.expand(data, header, parameters)


def written(item: str, reference: bytes, parameters: Parameters, residues: Residues) -> bytes:
    """The blob of a share, or of their sum."""
    header = header_of(item, parameters)
    polynomials = [p for component in residues for p in component[: header.stored]]
    chosen = seeds(reference, item, header.components(parameters)) if header.seeded else []
    return blob.write(header, parameters, polynomials, chosen)


def summed(shares: Sequence[bytes], item: str, reference: bytes, parameters: Parameters) -> bytes:
    """All parties' shares of an item added up: the joint key's blob.

    Raises:
        EngineError: see :func:`checked`.
    """
    header = header_of(item, parameters)
    primes = header.primes(parameters)[:, None]
    total: Residues | None = None
    for share in shares:
        found = checked(share, item, reference, parameters)
        if total is None:
            total = found
        else:
            # What is stored adds up; the polynomials that all shares have in common stay.
            total[:, : header.stored] = add(total[:, : header.stored], found[:, : header.stored], primes)
    if total is None:
        raise EngineError(f"no share of {item}")
    return written(item, reference, parameters, total)


def add(a: Residues, b: Residues, primes: NDArray[np.uint64]) -> Residues:
    """``a + b`` of residues below primes of at most 60 bits that broadcast with them."""
    total = a + b
    return np.asarray(total - np.where(total >= primes, primes, np.uint64(0)))


class JointPublicKey:
    """Encrypts so that only all parties together can decrypt.

    Args:
        data: the blob of the summed ``public`` item.

    Attributes:
        raw: OpenFHE's key.

    Raises:
        EngineError: damaged, or of other parameters.
    """

    def __init__(self, parameters: Parameters, data: bytes) -> None:
        header = blob.read_header(data, parameters)
        if header != header_of(PUBLIC, parameters):
            raise EngineError("not a joint public key")
        self.parameters, self._codec = parameters, codec(parameters)
        (residues,) = blob.expand(data, header, parameters)
        self.raw = self._codec.public_key(residues)

    def encrypt(self, values: NDArray[Any]) -> bytes:
        """Encrypt a slot vector (slots,), complex, at the top level.

        Raises:
            EngineError: not finite, or too large for the scale.
        """
        top = self.parameters.levels
        made = self._codec.context.Encrypt(self.raw, self._codec.encode(values, top))
        return self._codec.dump(Ciphertext(made, top))
