"""A single owner's key in OpenFHE, with the blobs of :class:`blindtune.he.secret.SecretKey`.

Ciphertexts are not seeded: the binding encrypts with polynomials of its own choice.

Only hospital code imports this module. OpenFHE draws from BLAKE2Xb generators that the operating system
seeds.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.he import blob
from blindtune.he.blob import Header, Kind
from blindtune.he.codec import galois_elements
from blindtune.he.engine import Ciphertext, KeySet
from blindtune.he.fast.tables import automorphism
from blindtune.he.openfhe.codec import OpenFheCodec, codec
from blindtune.he.openfhe.engine import OpenFheEngine
from blindtune.params import Parameters


class OwnedKey:
    """What every single owner's key in OpenFHE does: encrypt, decrypt and make evaluation keys.

    Attributes:
        parameters: what it encrypts under.
        key_id: random identifier (32 hex digits) that bundles under this key carry.
    """

    def __init__(self, used: OpenFheCodec, key_id: str, raw: Any) -> None:
        self.parameters, self.key_id = used.parameters, key_id
        self._codec, self._raw = used, raw
        raw.SetKeyTag(used.tag)

    def relinearisation_key(self) -> bytes:
        """The blob of a fresh, seeded relinearisation key."""
        own = self._codec.secret_key_residues(self._raw)
        return self._switching_key(_squared(own, self._codec.data_primes), Kind.RELINEARISATION)

    def galois_key(self, element: int) -> bytes:
        """The blob of a fresh, seeded Galois key of one element."""
        own = self._codec.secret_key_residues(self._raw)
        return self._switching_key(
            own[:, automorphism(element, self.parameters.ring_degree)], Kind.GALOIS, element
        )

    def galois_elements(self, keys: KeySet) -> list[int]:
        """The elements that a key set needs, in the order of a bundle."""
        return galois_elements(keys, self.parameters.ring_degree)

    def _switching_key(self, source: NDArray[np.uint64], kind: Kind, element: int = 0) -> bytes:
        """A key from the secret of residues ``source`` to this one."""
        from blindtune.he.xof import uniform

        keys = self._codec.keys
        header = Header(kind, keys.levels + 1, element=element)
        primes, seeds = header.primes(keys), list[bytes]()
        lent = np.empty((header.components(keys), 2, len(primes), keys.ring_degree), np.uint64)
        for pair in lent:
            seeds.append(secrets.token_bytes(blob.SEED_BYTES))
            uniform(seeds[-1], primes, pair[1])
            pair[0] = pair[1]
        # OpenFHE takes the uniform polynomials of a key that it is lent, and nothing else of it.
        made = self._codec.context.MultiKeySwitchGen(
            self._codec.secret_key(source), self._raw, self._codec.evaluation_key(lent)
        )
        return blob.write(header, keys, [b for b, _ in self._codec.key_residues(made)], seeds)

    def encrypt(self, values: NDArray[Any]) -> bytes:
        """Encrypt a slot vector (slots,), complex, at the top level.

        Raises:
            EngineError: not finite, or too large for the scale.
        """
        top = self.parameters.levels
        made = self._codec.context.Encrypt(self._raw, self._codec.encode(values, top))
        return self._codec.dump(Ciphertext(made, top))

    def decrypt(self, ciphertext: Ciphertext) -> NDArray[np.complex128]:
        """The slot values (slots,); see :meth:`blindtune.he.secret.SecretKey.decrypt` on who may see them."""
        found: NDArray[np.complex128] = self._codec.decode(
            self._codec.context.Decrypt(ciphertext.raw, self._raw)
        )
        return found

    def load(self, data: bytes) -> Ciphertext:
        """Read a ciphertext that came back, without evaluation keys."""
        return self._codec.ciphertext(data)


class OpenFheSecretKey(OwnedKey):
    """A CKKS secret key under checked parameters; make one with :meth:`generate`."""

    @classmethod
    def generate(cls, parameters: Parameters) -> OpenFheSecretKey:
        """A fresh key."""
        used = codec(parameters)
        return cls(used, secrets.token_hex(16), used.context.KeyGen().secretKey)

    def engine(self, keys: KeySet) -> OpenFheEngine:
        """An evaluation engine with fresh keys, for tests and rehearsals at the owner's."""
        galois = {e: self.galois_key(e) for e in self.galois_elements(keys)}
        return OpenFheEngine(self.parameters, keys, self.relinearisation_key(), galois)


def _squared(residues: NDArray[np.uint64], primes: tuple[int, ...]) -> NDArray[np.uint64]:
    """Residues (limbs, N) times themselves."""
    rows = zip(residues, primes, strict=True)
    return np.stack([np.array([x * x % q for x in row.tolist()], np.uint64) for row, q in rows])
