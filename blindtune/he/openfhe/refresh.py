"""Ciphertexts of the lowest levels made fresh again by all parties together, without anyone seeing a value.

Each party takes its part of the decryption under a mask of its own, far larger than any message, and encrypts
that mask: the sum of the first parts is the message less all masks, of the second an encryption of all masks.
OpenFHE calls it interactive multi-party bootstrapping; the calls are made here on residues that came as
messages, each party in a process of its own. Public material, but for :meth:`.share.SecretShare.refresh`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blindtune.errors import EngineError
from blindtune.he import blob
from blindtune.he.blob import Header, Kind, Residues
from blindtune.he.engine import Ciphertext
from blindtune.he.openfhe import joint
from blindtune.he.openfhe.codec import TAG, codec
from blindtune.he.openfhe.joint import JointPublicKey
from blindtune.params import Parameters

LEVELS = 3
"""A ciphertext has to have so many left: masks need room."""


@dataclass(frozen=True)
class Stale:
    """A ciphertext that is to be made fresh.

    Attributes:
        rows: its polynomials as all parties lower them, (2, limbs, N).
        uniform: the polynomial (limbs of a fresh one, N) that its new encryption is made on: a new one for
            each ciphertext, or the masks' differences would show.
    """

    rows: Residues
    uniform: Residues

    @classmethod
    def read(cls, data: bytes, parameters: Parameters, level: int, reference: bytes, number: int) -> Stale:
        """A blob, the ``number``-th of those that are refreshed together.

        Args:
            level: that it has to have, at least :data:`LEVELS`.
            reference: digest of this refresh, 32 bytes.

        Raises:
            EngineError: damaged, of another level, or not a ciphertext at the nominal scale.
        """
        header = blob.read_header(data, parameters)
        if header != Header(Kind.CIPHERTEXT, level + 1, seeded=False):
            raise EngineError("not a ciphertext as the agreed program has refreshed")
        (residues,) = blob.expand(data, header, parameters)
        used = codec(parameters)
        lowered = used.context.IntMPBootAdjustScale(used.raw(residues, header.limbs - 1))
        level = parameters.levels - lowered.GetLevel()
        (uniform,) = joint.uniform(reference, joint.PUBLIC, parameters, number)
        return cls(used.residues(lowered, level, 2), uniform)

    @property
    def level(self) -> int:
        """Of the lowered ciphertext."""
        return len(self.rows[0]) - 1


@dataclass(frozen=True)
class Part:
    """One party's part.

    Attributes:
        masked: of the decryption, less the party's mask: (limbs of the lowered ciphertext, N).
        mask: of the new encryption: (limbs of a fresh ciphertext, N).
    """

    masked: Residues
    mask: Residues

    def to_bytes(self) -> bytes:
        """All residues, one after the other."""
        return self.masked.astype("<u8").tobytes() + self.mask.astype("<u8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, stale: Stale, parameters: Parameters) -> Part:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            EngineError: of another size, or a residue that is not below its prime.
        """
        n, limbs = parameters.ring_degree, (stale.level + 1, parameters.levels + 1)
        if len(data) != part_bytes(stale.level, parameters):
            raise EngineError("a part of a refresh of another size")
        rows = np.frombuffer(data, "<u8").astype(np.uint64).reshape(-1, n)
        found = cls(rows[: limbs[0]], rows[limbs[0] :])
        for part, count in zip((found.masked, found.mask), limbs, strict=True):
            if (part >= np.array(parameters.primes[:count], np.uint64)[:, None]).any():
                raise EngineError("a part of a refresh that cannot be")
        return found


def part_bytes(level: int, parameters: Parameters) -> int:
    """The size of a party's part for a ciphertext that is lowered to ``level``."""
    return 8 * (level + 1 + parameters.levels + 1) * parameters.ring_degree


def combine(stale: Stale, parts: Sequence[Part], public: JointPublicKey) -> bytes:
    """The fresh ciphertext's blob, from every party's part."""
    p, used = public.parameters, codec(public.parameters)
    top = p.levels
    masked, mask = parts[0].masked, parts[0].mask
    primes = np.array(p.primes, np.uint64)[:, None]
    for part in parts[1:]:
        masked = joint.add(masked, part.masked, primes[: stale.level + 1])
        mask = joint.add(mask, part.mask, primes[: top + 1])
    made = used.context.IntMPBootEncrypt(
        public.raw,
        [used.raw(masked[None], stale.level), used.raw(mask[None], top)],
        used.raw(stale.uniform[None], top),
        used.raw(stale.rows, stale.level),
    )
    made.SetKeyTag(TAG)
    return used.dump(Ciphertext(made, top - made.GetLevel()))
