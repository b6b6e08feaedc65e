"""The owner's side of a key that the server bootstraps with; see :mod:`.bootstrapping`.

Only hospital code imports this module.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import numpy as np

from blindtune.errors import KeyFileError
from blindtune.he.engine import KeySet
from blindtune.he.openfhe.bootstrapping import Bootstrapping
from blindtune.he.openfhe.bootstrapping_engine import BootstrappingEngine, codec
from blindtune.he.openfhe.codec import OpenFheCodec
from blindtune.he.openfhe.secret import OwnedKey
from blindtune.params import Parameters


class BootstrappingKey(OwnedKey):
    """A secret key, uniform ternary, under parameters that bootstrap; make one with :meth:`generate`.

    Attributes:
        literal: the parameters of a bootstrap; ``parameters`` are those that kernels see.
    """

    def __init__(self, literal: Bootstrapping, used: OpenFheCodec, key_id: str, raw: object) -> None:
        super().__init__(used, key_id, raw)
        self.literal = literal

    @classmethod
    def generate(cls, literal: Bootstrapping) -> BootstrappingKey:
        """A fresh key."""
        used = codec(literal)
        return cls(literal, used, secrets.token_hex(16), used.context.KeyGen().secretKey)

    @classmethod
    def from_bytes(
        cls, literal: Bootstrapping, primes: tuple[int, ...], key_id: str, data: bytes
    ) -> BootstrappingKey:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            KeyFileError: damaged, or of other parameters.
        """
        used = codec(literal)
        shape = (literal.depth + 1, literal.ring_degree)
        fits = used.keys.primes == primes and len(data) == 8 * shape[0] * shape[1]
        residues = np.frombuffer(data, "<u8").reshape(shape) if fits else None
        if residues is None or (residues >= np.array(used.data_primes, np.uint64)[:, None]).any():
            raise KeyFileError("the secret key is damaged", remedy="Restore it from a backup.")
        return cls(literal, used, key_id, used.secret_key(residues))

    def to_bytes(self) -> bytes:
        """The key itself: for an encrypted or 0600 file at the owner's, nowhere else."""
        return self._codec.secret_key_residues(self._raw).astype("<u8").tobytes()

    @property
    def key_parameters(self) -> Parameters:
        """The parameters of its key-switching keys."""
        return self._codec.keys

    def galois_elements(self, keys: KeySet) -> list[int]:
        """The elements of a layout's keys and a bootstrap's, in the order of a bundle."""
        return self.literal.galois_elements(keys)

    def galois_keys(self, keys: KeySet) -> Iterator[bytes]:
        """Fresh Galois keys, one at a time."""
        return map(self.galois_key, self.galois_elements(keys))

    def engine(self, keys: KeySet) -> BootstrappingEngine:
        """An evaluation engine with fresh keys, for tests and measurements at the owner's."""
        primes = self.key_parameters.primes
        return BootstrappingEngine(
            self.literal, primes, keys, self.relinearisation_key(), self.galois_keys(keys)
        )
