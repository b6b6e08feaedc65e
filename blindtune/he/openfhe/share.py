"""A party's share of a joint secret key, and what it makes with it.

Only the hospital that owns the share imports this module; an import-linter contract holds the server away.

OpenFHE's published order of calls for a joint relinearisation key must not be sent as messages. Its
``MultiMultEvalKey`` answers ``a·s_i + noise`` on the very ``a`` of the party's first message
``−a·s_i + noise + P·s_i``: the two add up to ``P·s_i + noise``, which is the share in clear (a test does it).
As in Asharov et al. (Eurocrypt 2012, section 5), the second message is therefore hidden behind a fresh
encryption of zero under the joint key, which only all parties together could take off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import KeyFileError
from blindtune.he.blob import Residues
from blindtune.he.fast.tables import automorphism
from blindtune.he.openfhe import joint
from blindtune.he.openfhe.codec import TAG, codec
from blindtune.he.openfhe.opening import Opened, project
from blindtune.he.openfhe.refresh import Part, Stale
from blindtune.he.openfhe.slots import Slots
from blindtune.params import Parameters

MARK = b"blindtune-secret-key share 1\n"


class SecretShare:
    """A share; make one with :meth:`generate`.

    Attributes:
        parameters: of the joint key.
        reference: digest of the agreed study, 32 bytes.
    """

    def __init__(self, parameters: Parameters, reference: bytes, raw: Any) -> None:
        self.parameters, self.reference, self._raw = parameters, reference, raw
        self._codec = codec(parameters)
        raw.SetKeyTag(TAG)

    @classmethod
    def generate(cls, parameters: Parameters, reference: bytes) -> tuple[SecretShare, bytes]:
        """A fresh share, ternary, and its ``public`` item."""
        made = codec(parameters)
        (a,) = joint.uniform(reference, joint.PUBLIC, parameters)
        # Fresh: the answer is this party's own summand, whatever stands in the key that lends its polynomial.
        pair = made.context.MultipartyKeyGen(made.public_key(np.stack([a, a])), False, True)
        residues = made.public_key_residues(pair.publicKey)
        item = joint.written(joint.PUBLIC, reference, parameters, residues[None])
        return cls(parameters, reference, pair.secretKey), item

    @classmethod
    def from_bytes(cls, parameters: Parameters, reference: bytes, data: bytes) -> SecretShare:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            KeyFileError: damaged, or of another study.
        """
        shape = (parameters.levels + 1, parameters.ring_degree)
        body = data[len(MARK) + len(reference) :]
        fits = data.startswith(MARK + reference) and len(body) == 8 * shape[0] * shape[1]
        residues = np.frombuffer(body, "<u8").reshape(shape) if fits else None
        primes = np.array(parameters.primes[:-1], np.uint64)[:, None]
        if residues is None or (residues >= primes).any():
            raise KeyFileError(
                "the key share is damaged, or of another study", remedy="Restore it from a backup."
            )
        return cls(parameters, reference, codec(parameters).secret_key(residues))

    def to_bytes(self) -> bytes:
        """The share itself: for a 0600 file at its owner's, nowhere else."""
        return MARK + self.reference + self.residues().astype("<u8").tobytes()

    def residues(self) -> Residues:
        """The share itself (limbs, N)."""
        return self._codec.secret_key_residues(self._raw)

    def item(self, item: str) -> bytes:
        """This party's share of an item of the first round, ``public`` excepted."""
        own = self.residues()
        element = joint.element_of(item)
        if element:
            own = own[:, automorphism(element, self.parameters.ring_degree)]
        elif item == joint.ZERO:
            own = np.zeros_like(own)
        a = joint.uniform(self.reference, item, self.parameters)
        lent = self._codec.evaluation_key(np.stack([a, a], axis=1))
        made = self._codec.context.MultiKeySwitchGen(self._codec.secret_key(own), self._raw, lent)
        return self._written(item, self._codec.key_residues(made))

    def relinearised(self, zero: bytes, relinearisation: bytes) -> bytes:
        """This party's share of the second round.

        Args:
            zero, relinearisation: the joint keys of the first round.

        Raises:
            EngineError: a key that is damaged or of another study.
        """
        own = self._times(self._raw, relinearisation, joint.RELINEARISATION)
        hidden = self._times(self._codec.context.KeyGen().secretKey, zero, joint.ZERO)
        primes = np.array(self.parameters.primes, np.uint64)[:, None]
        return self._written(joint.RELINEARISED, joint.add(own, hidden, primes))

    def partial(self, opened: Opened, noise: Slots) -> Residues:
        """This party's answer (coefficients,) to a ciphertext: ``c_1·s_i`` and noise.

        Never make two for one ciphertext.

        Args:
            noise: one period of slots (period,), of the size that :mod:`blindtune.he.flooding` derives.
        """
        p = self.parameters
        raw = self._codec.raw(opened.rows[:, None], 0)
        # OpenFHE adds noise of its own here, of 20 bits.
        (found,) = self._codec.context.MultipartyDecryptMain([raw], self._raw)
        product = project(self._codec.residues(found, 0, 1)[0, 0], opened.coefficients, p.primes[0])
        whole = self._codec.polynomial(np.tile(noise, p.slots // opened.period))
        hidden = project(whole, opened.coefficients, p.primes[0])
        return joint.add(product, hidden, np.array(p.primes[:1], np.uint64))

    def refresh(self, stale: Stale) -> Part:
        """This party's part in making a ciphertext fresh; its mask hides everything.

        Never make two for one ciphertext.
        """
        run, top = self._codec.context, self.parameters.levels
        made = run.IntMPBootDecrypt(
            self._raw,
            self._codec.raw(stale.rows[1:], stale.level),
            self._codec.raw(stale.uniform[None], top),
        )
        masked, mask = (
            self._codec.residues(raw, level, 1)[0]
            for raw, level in zip(made, (stale.level, top), strict=True)
        )
        return Part(masked, mask)

    def _times(self, secret: Any, key: bytes, item: str) -> NDArray[np.uint64]:
        """Both polynomials of each digit of a joint key times a secret, with fresh noise."""
        residues = joint.checked(key, item, self.reference, self.parameters)
        secret.SetKeyTag(TAG)
        made = self._codec.context.MultiMultEvalKey(secret, self._codec.evaluation_key(residues), TAG)
        return self._codec.key_residues(made)

    def _written(self, item: str, residues: Residues) -> bytes:
        return joint.written(item, self.reference, self.parameters, residues)
