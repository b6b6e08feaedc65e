"""A SEAL engine and one with kernels, under the same keys, compared byte by byte."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from blindtune.he import blob
from blindtune.he.blob import Header, Kind
from blindtune.he.codec import SealCodec
from blindtune.he.cpu import has_ifma
from blindtune.he.engine import Ciphertext, KeySet
from blindtune.he.fast.engine import FastEngine
from blindtune.he.fast.vector import Variant
from blindtune.he.seal import SealEngine
from blindtune.he.secret import SecretKey
from blindtune.params import Parameters

STEPS = (1, 5)
VARIANTS = [Variant.PORTABLE, *([Variant.IFMA] if has_ifma() else [])]


@dataclass(frozen=True)
class Owner:
    """A key owner with evaluation keys."""

    key: SecretKey
    relinearisation: bytes
    galois: dict[int, bytes]

    @property
    def parameters(self) -> Parameters:
        return self.key.parameters

    def seal(self) -> SealEngine:
        return SealEngine(self.parameters, KeySet(STEPS), self.relinearisation, self.galois)

    def fast(self, variant: Variant, threads: int) -> FastEngine:
        return FastEngine(self.parameters, KeySet(STEPS), self.relinearisation, self.galois, threads, variant)

    def encrypted(self, count: int, seed: int) -> list[bytes]:
        rng, slots = np.random.default_rng(seed), self.parameters.slots
        return [self.key.encrypt(rng.uniform(-1, 1, slots)) for _ in range(count)]

    def greatest(self, size: int = 2, product: bool = False) -> bytes:
        """A ciphertext of nearly only the greatest residues: what lazy sums must bear.

        Some differ: SEAL refuses a product of constants that a rescale takes to zero.
        """
        p, rng = self.parameters, np.random.default_rng(size)
        header = Header(Kind.CIPHERTEXT, p.levels + 1, size, seeded=False, product=product)
        primes = np.array(p.primes[:-1], np.uint64)[:, None]
        below = rng.integers(1, primes, (size, len(primes), p.ring_degree), np.uint64)
        below[:, :, 16:] = 1
        return blob.write(header, p, list(primes - below))


@lru_cache(maxsize=8)
def owner(parameters: Parameters) -> Owner:
    key = SecretKey.generate(parameters)
    galois = {e: key.galois_key(e) for e in key.galois_elements(KeySet(STEPS))}
    return Owner(key, key.relinearisation_key(), galois)


@dataclass(frozen=True)
class Pair:
    """The same operations on both engines."""

    seal: SealEngine
    fast: FastEngine
    codec: SealCodec

    def same(self, theirs: Ciphertext, ours: Ciphertext) -> None:
        assert (theirs.level, theirs.product, theirs.size) == (ours.level, ours.product, ours.size)
        assert self.codec.dump(theirs) == self.fast.dump(ours)


def pair(made: Owner, variant: Variant, threads: int = 1) -> Pair:
    return Pair(made.seal(), made.fast(variant, threads), SealCodec(made.parameters))
