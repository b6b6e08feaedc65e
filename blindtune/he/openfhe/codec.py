"""OpenFHE's ciphertexts and keys as blobs of ours, and back. Public material only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from blindtune.errors import EngineError
from blindtune.he import blob
from blindtune.he.blob import Header, Kind, Residues
from blindtune.he.codec import conjugation_element, require_blob
from blindtune.he.engine import Ciphertext
from blindtune.he.openfhe.library import context, openfhe
from blindtune.he.openfhe.mould import Mould, residues_of
from blindtune.he.openfhe.slots import Slots, from_openfhe, to_openfhe
from blindtune.params import Parameters

TAG = "blindtune"
"""The key tag of every object: keys are handed to each operation, OpenFHE need not tell them apart."""


class OpenFheCodec:
    """Reads and writes OpenFHE's objects; everything read is checked against the parameters.

    Moulds come from a throw-away key that encrypts nothing of anyone's. Use :func:`codec`.

    Args:
        parameters: checked parameters.
        made: another crypto context, whose first primes are the parameters' data primes.
        keys: the parameters of that context, and of its keys.
        tag: the key tag of its objects.
    """

    def __init__(
        self, parameters: Parameters, made: Any = None, keys: Parameters | None = None, tag: str = TAG
    ) -> None:
        self.parameters, self.context = parameters, made or context(parameters)
        self.keys, self.tag = keys or parameters, tag
        self._o = openfhe()
        self._lock, self._moulds = threading.Lock(), dict[tuple[Any, ...], Mould]()
        self._pair = self.context.KeyGen()
        self._pair.publicKey.SetKeyTag(tag)
        self._pair.secretKey.SetKeyTag(tag)

    @property
    def depth(self) -> int:
        """Levels of the context."""
        return self.keys.levels

    # Values

    def encode(self, values: Any, level: int, degree: int = 1) -> Any:
        """Slot values (slots,), in SEAL's order, as a plaintext at a level and power of the scale.

        Raises:
            EngineError: of another shape, not finite, or too large for the scale.
        """
        data = np.asarray(values, np.complex128)
        if data.shape != (self.parameters.slots,) or not np.isfinite(data).all():
            raise EngineError(f"values of shape {data.shape}, or not finite")
        try:
            return self.context.MakeCKKSPackedPlaintext(
                to_openfhe(data), degree, self.depth - level, None, self.parameters.slots
            )
        except RuntimeError as error:
            raise EngineError("values too large for the scale") from error

    def decode(self, plain: Any) -> Slots:
        """The slot values (slots,) of a decrypted plaintext, in SEAL's order."""
        plain.SetLength(self.parameters.slots)
        return from_openfhe(np.asarray(plain.GetCKKSPackedValue(), np.complex128))

    def polynomial(self, values: Any) -> Residues:
        """The residues (N,) modulo the first prime of encoded slot values (slots,)."""
        # A plaintext shows its residues only when it is added to a ciphertext.
        zero = np.zeros((1, 1, self.parameters.ring_degree), np.uint64)
        made = self.context.EvalAdd(self.raw(zero, 0), self.encode(values, 0))
        return self._read(made, self._primes(0)).reshape(-1)

    # Ciphertexts

    def ciphertext(self, data: bytes) -> Ciphertext:
        """A blob's ciphertext with its level and scale.

        Raises:
            EngineError: damaged, of another kind, level or scale.
        """
        require_blob(data, "a ciphertext")
        header = blob.read_header(data, self.parameters)
        if header.kind is not Kind.CIPHERTEXT:
            raise EngineError("a ciphertext is a key of another kind")
        (residues,) = blob.expand(data, header, self.parameters)
        if not residues[1:].any():
            raise EngineError("a ciphertext that hides nothing")
        raw = self.raw(residues, header.limbs - 1, header.product)
        return Ciphertext(raw, header.limbs - 1, header.product, header.size)

    def raw(self, residues: Residues, level: int, product: bool = False) -> Any:
        """OpenFHE's ciphertext of residues (polynomials, limbs, N) that are below their primes."""
        size = len(residues)
        mould = self._mould(("ciphertext", level, size, product), size, self._primes(level))
        return self._o.DeserializeCiphertextString(mould.fill(residues), self._o.BINARY)

    def residues(self, raw: Any, level: int, size: int) -> Residues:
        """The residues (polynomials, limbs, N) of OpenFHE's ciphertext."""
        return self._read(raw, self._primes(level) * size).reshape(size, level + 1, -1)

    def dump(self, a: Ciphertext) -> bytes:
        """A ciphertext's blob."""
        header = Header(Kind.CIPHERTEXT, a.level + 1, a.size, seeded=False, product=a.product)
        return blob.write(header, self.parameters, list(self.residues(a.raw, a.level, a.size)))

    # Keys

    def evaluation_key(self, residues: Residues) -> Any:
        """OpenFHE's key-switching key of residues (digits, 2, limbs, N): b and a of each digit."""
        mould = self._mould(("key",), 2 * len(residues), self.keys.primes)
        return self._o.DeserializeEvalKeyString(mould.fill(_a_before_b(residues)), self._o.BINARY)

    def key_map(self, element: int, residues: Residues) -> Any:
        """The same as OpenFHE's map of one key, for an automorphism."""
        mould = self._mould(("map",), 2 * len(residues), self.keys.primes)
        mould = mould.marked(conjugation_element(self.parameters.ring_degree), element)
        return self._o.DeserializeEvalKeyMapString(mould.fill(_a_before_b(residues)), self._o.BINARY)

    def key_residues(self, key: Any) -> Residues:
        """The residues (digits, 2, limbs, N) of OpenFHE's key-switching key."""
        p, digits = self.keys, self.keys.key_digits
        found = self._read(key, p.primes * (2 * digits)).reshape(2, digits, len(p.primes), -1)
        return found[::-1].transpose(1, 0, 2, 3)

    def public_key(self, residues: Residues) -> Any:
        """OpenFHE's public key of residues (2, limbs, N): an encryption of zero."""
        mould = self._mould(("public",), 2, self.data_primes)
        return self._o.DeserializePublicKeyString(mould.fill(residues), self._o.BINARY)

    def public_key_residues(self, key: Any) -> Residues:
        """The residues (2, limbs, N) of OpenFHE's public key."""
        return self._read(key, self.data_primes * 2).reshape(2, self.depth + 1, -1)

    def secret_key(self, residues: Residues) -> Any:
        """OpenFHE's secret key of residues (limbs, N)."""
        mould = self._mould(("secret",), 1, self.data_primes)
        return self._o.DeserializePrivateKeyString(mould.fill(residues), self._o.BINARY)

    def secret_key_residues(self, key: Any) -> Residues:
        """The residues (limbs, N) of OpenFHE's secret key."""
        return self._read(key, self.data_primes)

    @property
    def data_primes(self) -> tuple[int, ...]:
        """All data primes of the context."""
        return self.keys.primes[: self.depth + 1]

    # Moulds

    def _primes(self, level: int) -> tuple[int, ...]:
        return self.parameters.primes[: level + 1]

    def _read(self, made: Any, primes: Sequence[int]) -> Residues:
        return residues_of(self._o.Serialize(made, self._o.BINARY), primes, self.parameters.ring_degree)

    def _mould(self, kind: tuple[Any, ...], polynomials: int, primes: Sequence[int]) -> Mould:
        with self._lock:
            if kind not in self._moulds:
                make: Callable[..., Any] = getattr(self, f"_make_{kind[0]}")
                data = self._o.Serialize(make(*kind[1:]), self._o.BINARY)
                self._moulds[kind] = Mould(data, tuple(primes) * polynomials, self.parameters.ring_degree)
            return self._moulds[kind]

    def _make_ciphertext(self, level: int, size: int, product: bool) -> Any:
        one = self.encode(np.ones(self.parameters.slots), level)
        made = self.context.Encrypt(self._pair.publicKey, one)
        if size == 1:
            made.RemoveElement(1)
        if size == 3:
            made = self.context.EvalMultNoRelin(made, made)
        made.SetNoiseScaleDeg(2 if product else 1)
        made.SetScalingFactor(self.parameters.scale ** (2 if product else 1))
        return made

    def _make_key(self) -> Any:
        made = self.context.KeySwitchGen(self._pair.secretKey, self._pair.secretKey)
        made.SetKeyTag(self.tag)
        return made

    def _make_map(self) -> Any:
        # OpenFHE also puts the key into its static map, and leaves out what is there already.
        self.context.ClearEvalAutomorphismKeys()
        element = conjugation_element(self.parameters.ring_degree)
        made = self.context.EvalAutomorphismKeyGen(self._pair.secretKey, [element])
        self.context.ClearEvalAutomorphismKeys()
        return made

    def _make_public(self) -> Any:
        return self._pair.publicKey

    def _make_secret(self) -> Any:
        return self._pair.secretKey


@lru_cache(maxsize=4)
def codec(parameters: Parameters) -> OpenFheCodec:
    """The codec of checked parameters; one a process."""
    return OpenFheCodec(parameters)


def _a_before_b(residues: Residues) -> Residues:
    """OpenFHE writes a of every digit, then b of every digit."""
    return residues.transpose(1, 0, 2, 3)[::-1]
