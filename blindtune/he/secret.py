"""The key owner's side: the secret key, evaluation keys, encryption and decryption.

Only hospital code imports this module; an import-linter contract holds the server away from it.
SEAL draws the secret key and all noise from generators seeded by the operating system.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import EngineError, KeyFileError
from blindtune.he import memfile
from blindtune.he.codec import SealCodec, galois_elements, sealapi
from blindtune.he.engine import Ciphertext, KeySet
from blindtune.he.seal import SealEngine
from blindtune.params import Parameters


class SecretKey:
    """A CKKS secret key under checked parameters; make one with :meth:`generate`.

    Attributes:
        parameters: what it encrypts under.
        key_id: random identifier (32 hex digits) that bundles under this key carry.
    """

    def __init__(self, codec: SealCodec, key_id: str, raw: Any) -> None:
        s = sealapi()
        made = codec.context
        self.parameters, self.key_id = codec.parameters, key_id
        self._codec, self._raw, self._context = codec, raw, made
        self._encoder = s.CKKSEncoder(made)
        self._encryptor = s.Encryptor(made, raw)
        self._decryptor = s.Decryptor(made, raw)

    @classmethod
    def generate(cls, parameters: Parameters) -> SecretKey:
        """A fresh key."""
        codec = SealCodec(parameters)
        return cls(codec, secrets.token_hex(16), sealapi().KeyGenerator(codec.context).secret_key())

    @classmethod
    def from_bytes(cls, parameters: Parameters, key_id: str, data: bytes) -> SecretKey:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            KeyFileError: damaged, or of other parameters.
        """
        codec = SealCodec(parameters)
        try:
            raw = codec.read(sealapi().SecretKey(), data, "the secret key")
        except EngineError as error:
            raise KeyFileError("the secret key is damaged", remedy="Restore it from a backup.") from error
        return cls(codec, key_id, raw)

    def to_bytes(self) -> bytes:
        """The key itself: for an encrypted or 0600 file at the owner's, nowhere else."""
        return memfile.to_bytes(self._raw.save)

    def relinearisation_key(self) -> bytes:
        """The blob of a fresh, seeded relinearisation key."""
        return self._codec.dump_key(sealapi().KeyGenerator(self._context, self._raw).create_relin_keys())

    def galois_key(self, element: int) -> bytes:
        """The blob of a fresh, seeded Galois key of one element."""
        made = sealapi().KeyGenerator(self._context, self._raw).create_galois_keys([element])
        return self._codec.dump_key(made, element)

    def galois_elements(self, keys: KeySet) -> list[int]:
        """The elements that a key set needs, conjugation last."""
        return galois_elements(keys, self.parameters.ring_degree)

    def encrypt(self, values: NDArray[Any]) -> bytes:
        """Encrypt a slot vector (slots,), complex, at the top level; seeded, so half the size.

        Raises:
            EngineError: not finite, or too large for the scale.
        """
        data = np.asarray(values, np.complex128)
        if data.shape != (self.parameters.slots,) or not np.isfinite(data).all():
            raise EngineError(f"values of shape {data.shape}, or not finite")
        s = sealapi()
        plain = s.Plaintext()
        try:
            self._encoder.encode(data.tolist(), self.parameters.scale, plain)
        except (RuntimeError, ValueError) as error:
            raise EngineError("values too large for the scale") from error
        return self._codec.dump_fresh(self._encryptor.encrypt_symmetric(plain))

    def decrypt(self, ciphertext: Ciphertext) -> NDArray[np.complex128]:
        """The slot values (slots,).

        A decrypted CKKS value handed back to whoever computed the ciphertext can reveal the key
        (Li and Micciancio, ePrint 2020/1533): keep it with the key owner.
        """
        plain = sealapi().Plaintext()
        self._decryptor.decrypt(ciphertext.raw, plain)
        return np.asarray(self._encoder.decode_complex(plain), np.complex128)

    def polynomial(self, ciphertext: Ciphertext) -> NDArray[np.uint64]:
        """The decrypted polynomial itself, transformed as SEAL does, modulo the first prime: (N,).

        With the ciphertext, this is the key: for audits at the key owner's, nowhere else.
        """
        plain = sealapi().Plaintext()
        self._decryptor.decrypt(ciphertext.raw, plain)
        return np.array([plain.data(i) for i in range(self.parameters.ring_degree)], np.uint64)

    def load(self, data: bytes) -> Ciphertext:
        """Read a ciphertext that came back, without evaluation keys."""
        return self._codec.ciphertext(data)

    def engine(self, keys: KeySet) -> SealEngine:
        """An evaluation engine with fresh keys, for tests and rehearsals at the owner's."""
        galois = {e: self.galois_key(e) for e in self.galois_elements(keys)}
        return SealEngine(self.parameters, keys, self.relinearisation_key(), galois)
