"""How large the error of a study's result is: measured beforehand, under keys that are thrown away.

Data under a joint key carry more error than a single owner's: they are encrypted with a public key, and its
error and the secret are sums over all members. The whole program is therefore run on stand-in rows under a
joint key of as many shares, made and added up in this one process, and its result is compared with the same
steps on clear slots.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from blindtune.he.clear import ClearEngine
from blindtune.he.engine import Ciphertext, Engine, KeySet
from blindtune.he.flooding import coefficients
from blindtune.he.openfhe import joint
from blindtune.he.openfhe.codec import codec
from blindtune.he.openfhe.engine import OpenFheEngine
from blindtune.he.openfhe.joint import JointPublicKey
from blindtune.he.openfhe.refresh import Stale, combine
from blindtune.he.openfhe.secret import OpenFheSecretKey
from blindtune.he.openfhe.share import SecretShare
from blindtune.kernels.layout import Layout
from blindtune.kernels.products import Grid
from blindtune.params import Parameters

MARGIN = 4.0
"""How far the error on other rows and keys may be above the one that was measured."""

Encrypt = Callable[[Any], Any]
Train = Callable[[Engine, Encrypt], Grid]
"""Trains on stand-in rows that it encrypts; the weights by weight block and column block."""


class Rehearsal:
    """A joint key of so many members in one process: it protects nothing."""

    def __init__(self, parameters: Parameters, layout: Layout, members: int) -> None:
        p, keys, reference = parameters, layout.keys(), secrets.token_bytes(32)
        made = [SecretShare.generate(p, reference) for _ in range(members)]
        shares = [share for share, _ in made]
        found = {joint.PUBLIC: joint.summed([item for _, item in made], joint.PUBLIC, reference, p)}
        for item in joint.first_items(keys, p.ring_degree)[1:]:
            found[item] = joint.summed([share.item(item) for share in shares], item, reference, p)
        second = [s.relinearised(found[joint.ZERO], found[joint.RELINEARISATION]) for s in shares]
        relin = joint.summed(second, joint.RELINEARISED, reference, p)
        galois = {joint.element_of(i): data for i, data in found.items() if joint.element_of(i)}
        self.parameters, self.layout = parameters, layout
        self.public_key = JointPublicKey(p, found[joint.PUBLIC])
        self.engine = _Refreshing(shares, self.public_key, keys, relin, galois)
        self._secret = OpenFheSecretKey(codec(p), "", codec(p).secret_key(_added(shares)))

    def length(self, train: Train) -> float:
        """The Euclidean length of the error over all coefficients that would be opened."""
        trained = train(self.engine, lambda v: self.engine.load(self.public_key.encrypt(v)))
        clear = ClearEngine(self.parameters, self.layout.keys())
        expected = train(clear, clear.encrypt)
        total = 0.0
        for block, exact in zip(trained, expected, strict=True):
            for c, e, width in zip(block, exact, self.layout.widths, strict=True):
                period = width * self.layout.lanes
                error = (self._secret.decrypt(c) - clear.decrypt(e)).reshape(-1, period).mean(axis=0)
                total += float((coefficients(error, self.parameters.scale).astype(np.float64) ** 2).sum())
        return math.sqrt(total)


class _Refreshing(OpenFheEngine):
    """Refreshes as the hospitals will, with all their shares."""

    def __init__(
        self,
        shares: list[SecretShare],
        public_key: JointPublicKey,
        keys: KeySet,
        relinearisation: bytes,
        galois: dict[int, bytes],
    ) -> None:
        super().__init__(public_key.parameters, keys, relinearisation, galois)
        self._shares, self._public_key = shares, public_key

    def refresh(self, batch: Sequence[Ciphertext]) -> list[Ciphertext]:
        reference = secrets.token_bytes(32)
        found = []
        for n, c in enumerate(batch):
            stale = Stale.read(self.dump(c), self.parameters, c.level, reference, n)
            parts = [share.refresh(stale) for share in self._shares]
            found.append(self.load(combine(stale, parts, self._public_key)))
        return found


def _added(shares: list[SecretShare]) -> Any:
    primes = np.array(shares[0].parameters.primes[:-1], np.uint64)[:, None]
    total = shares[0].residues()
    for share in shares[1:]:
        total = joint.add(total, share.residues(), primes)
    return total
