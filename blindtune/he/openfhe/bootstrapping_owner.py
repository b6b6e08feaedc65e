"""The owner's side of a key that the server bootstraps with; see :mod:`.bootstrapping`.

Only hospital code imports this module.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import ParametersError
from blindtune.he.codec import galois_elements
from blindtune.he.engine import Ciphertext, KeySet
from blindtune.he.openfhe.bootstrapping import Bootstrapping, BootstrappingEngine, codec, context
from blindtune.he.openfhe.library import openfhe


class BootstrappingKey:
    """A secret key, uniform ternary, under parameters that bootstrap; make one with :meth:`generate`.

    Attributes:
        literal: the parameters.
    """

    def __init__(self, literal: Bootstrapping, raw: Any) -> None:
        self.literal, self._raw, self._tag = literal, raw, secrets.token_hex(16)
        raw.SetKeyTag(self._tag)
        self._codec = codec(literal, self._tag)

    @classmethod
    def generate(cls, literal: Bootstrapping) -> BootstrappingKey:
        """A fresh key."""
        return cls(literal, context(literal).KeyGen().secretKey)

    def encrypt(self, values: NDArray[Any]) -> bytes:
        """Encrypt a slot vector (slots,), complex, at the levels between two bootstraps.

        Raises:
            EngineError: not finite, or too large for the scale.
        """
        level = self.literal.levels
        made = self._codec.context.Encrypt(self._raw, self._codec.encode(values, level))
        return self._codec.dump(Ciphertext(made, level))

    def decrypt(self, ciphertext: Ciphertext) -> NDArray[np.complex128]:
        """The slot values (slots,); see :meth:`blindtune.he.secret.SecretKey.decrypt` on who may see them."""
        found: NDArray[np.complex128] = self._codec.decode(
            self._codec.context.Decrypt(ciphertext.raw, self._raw)
        )
        return found

    def load(self, data: bytes) -> Ciphertext:
        """Read a ciphertext that came back."""
        return self._codec.ciphertext(data)

    def engine(self, keys: KeySet) -> BootstrappingEngine:
        """An evaluation engine with fresh keys.

        Raises:
            ParametersError: OpenFHE chose other special primes than were counted for security.
        """
        run, o = self._codec.context, openfhe()
        run.EvalMultKeyGen(self._raw)
        (relin,) = run.GetEvalMultKeyVector(self._tag)[:1]
        # Another special prime would add two rows of residues a digit; what else is in a key is little.
        row = 8 * self.literal.ring_degree
        if abs(len(o.Serialize(relin, o.BINARY)) - self.literal.key_bytes) > self.literal.digits * row:
            raise ParametersError(
                "OpenFHE chose another modulus than the one that was checked",
                remedy="Install the release of OpenFHE that blindtune[openfhe] names.",
            )
        run.EvalAutomorphismKeyGen(self._raw, galois_elements(keys, self.literal.ring_degree))
        run.EvalBootstrapKeyGen(self._raw, self.literal.period)
        return BootstrappingEngine(self.literal, keys, self._tag)

    def keys(self) -> int:
        """How many key-switching keys an engine has that was made of this key."""
        return 1 + len(list(self._codec.context.GetExistingEvalAutomorphismKeyIndices(self._tag)))
