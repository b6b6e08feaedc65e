"""Bootstrapping on the server, for a single owner's key: weights come back with all levels, and nobody helps.

An engine of its own kind, for trainings of more steps than any ring holds levels for. Its modulus is as long
as the ring allows; rows are encrypted at the few levels that the steps between two bootstraps need, weights
alone go up to the top. OpenFHE bootstraps (Cheon et al., Eurocrypt 2018; for keys that are not sparse,
Bossuat et al., Eurocrypt 2021): it raises the modulus and takes the multiples of the old one off by a sine,
which is the identity only for coefficients that are small beside the first prime over the scale. Its error
does not grow with the weights: encrypt them large, in tens. Weights repeat in their slots, so few slots are
bootstrapped.

Ciphertexts are blobs like all others. Keys are not: switching takes several special primes and few digits,
or they would weigh several times as much, and the format of our keys has one prime and a digit a limb. They
stay in the process that made them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from blindtune.errors import EngineError, ParametersError
from blindtune.he.checked import CheckedEngine
from blindtune.he.codec import galois_elements
from blindtune.he.engine import KeySet
from blindtune.he.openfhe.codec import OpenFheCodec
from blindtune.he.openfhe.engine import OpenFheEngine
from blindtune.he.openfhe.library import openfhe, special_prime
from blindtune.params import INSECURE, SECURITY_TABLE, Parameters

SPECIAL_BITS = 60
REDUCTION = 14
"""Levels of OpenFHE's approximate modular reduction for keys that are not sparse."""

LEFT = 1
"""Levels that a ciphertext has to have left."""


@dataclass(frozen=True)
class Bootstrapping:
    """Parameters of a context that bootstraps.

    Attributes:
        ring_degree: N.
        levels: rescales between two bootstraps; rows are encrypted with as many.
        period: slots that are bootstrapped, after which weights repeat.
        scale_bits, first_bits: of the rescaling primes and of the first.
        digits: that a key switch takes; fewer take longer special primes.
        budget: levels that each of the two changes between slots and coefficients takes.
        security: 128, 192, 256, or 0 for tests.
    """

    ring_degree: int
    levels: int
    period: int
    scale_bits: int = 51
    first_bits: int = 59
    digits: int = 5
    budget: int = 3
    security: int = 128

    @property
    def depth(self) -> int:
        """Levels of the whole modulus."""
        return self.levels + REDUCTION + 2 * self.budget

    @property
    def special_primes(self) -> int:
        """Special primes: together longer than any digit."""
        rows = -(-(self.depth + 1) // self.digits)
        longest = max(self.first_bits, self.scale_bits) + (rows - 1) * self.scale_bits
        return -(-longest // SPECIAL_BITS)

    @property
    def modulus_bits(self) -> float:
        """Bits of all primes, the special ones too; at most half a bit more than there are."""
        return self.first_bits + self.depth * self.scale_bits + self.special_primes * SPECIAL_BITS + 0.5

    @property
    def key_bytes(self) -> int:
        """Memory of one key-switching key."""
        limbs = self.depth + 1 + self.special_primes
        return 2 * self.digits * limbs * 8 * self.ring_degree

    @property
    def fits(self) -> bool:
        """Whether the modulus is within the 2024 table's bound, or made for tests."""
        return self.security == INSECURE or self.modulus_bits <= self._allowed

    @property
    def _allowed(self) -> int:
        return SECURITY_TABLE.get(self.security, {}).get(self.ring_degree, 0)

    def check(self) -> Bootstrapping:
        """These parameters.

        Raises:
            ParametersError: less secure than they say, by the 2024 table.
        """
        if not self.fits:
            raise ParametersError(
                f"{self.modulus_bits:.0f} bits at ring degree {self.ring_degree}, where the 2024 table "
                f"allows {self._allowed}",
                remedy="Use fewer levels, a smaller scale or more digits.",
            )
        return self

    @property
    def parameters(self) -> Parameters:
        """What kernels see: the levels between two bootstraps, and one of the special primes."""
        primes = _primes(context(self))
        return Parameters(
            self.ring_degree,
            (*primes[: self.levels + 1], special_prime(self.ring_degree)),
            self.scale_bits,
            self.security,
        )


@lru_cache(maxsize=2)
def context(literal: Bootstrapping) -> Any:
    """The crypto context, ready to bootstrap; one a process.

    Raises:
        MissingPackageError: OpenFHE cannot be loaded.
        ParametersError: see :meth:`Bootstrapping.check`.
        EngineError: another release of OpenFHE than this package works with.
    """
    o, b = openfhe(), literal.check()
    if b.depth != b.levels + o.CryptoContext.GetBootstrapDepth([b.budget] * 2, o.UNIFORM_TERNARY):
        raise EngineError(
            "this release of OpenFHE bootstraps in another number of levels",
            remedy="Install the release that blindtune[openfhe] names.",
        )
    given = o.CCParamsCKKSRNS()
    given.SetRingDim(b.ring_degree)
    given.SetMultiplicativeDepth(b.depth)
    given.SetScalingModSize(b.scale_bits)
    given.SetFirstModSize(b.first_bits)
    given.SetBatchSize(b.ring_degree // 2)
    given.SetScalingTechnique(o.FIXEDMANUAL)
    given.SetSecurityLevel(o.HEStd_NotSet)
    given.SetSecretKeyDist(o.UNIFORM_TERNARY)
    given.SetKeySwitchTechnique(o.HYBRID)
    given.SetNumLargeDigits(b.digits)
    given.SetCKKSDataType(o.COMPLEX)
    made = o.GenCryptoContext(given)
    for feature in (o.PKE, o.KEYSWITCH, o.LEVELEDSHE, o.ADVANCEDSHE, o.FHE):
        made.Enable(feature)
    # Scaled down by no more than the first prime leaves: what is scaled off is precision.
    made.EvalBootstrapSetup([b.budget] * 2, [0, 0], b.period, b.first_bits - b.scale_bits)
    return made


class BootstrappingEngine(OpenFheEngine):
    """Evaluation with OpenFHE that makes ciphertexts fresh by itself; holds evaluation keys, no secret key.

    Args:
        literal: the parameters.
        keys: the rotations that the evaluation keys hold.
        tag: of the key that OpenFHE's tables in this process hold evaluation keys of.
    """

    def __init__(self, literal: Bootstrapping, keys: KeySet, tag: str) -> None:
        CheckedEngine.__init__(self, literal.parameters, keys)
        self._codec, self._n = codec(literal, tag), literal.ring_degree
        self._run, self._tag, self._period = self._codec.context, tag, literal.period
        (self._relin,) = self._run.GetEvalMultKeyVector(tag)[:1]
        self._map = self._run.GetEvalAutomorphismKeyMap(tag)
        self._galois = dict.fromkeys(galois_elements(keys, self._n), self._map)

    def _refresh(self, batch: list[Any]) -> list[Any]:
        # Others of this process may have emptied the table, which bootstrapping alone looks keys up in.
        self._run.InsertEvalAutomorphismKey(self._map, self._tag)
        return [self._bootstrapped(a) for a in batch]

    def _bootstrapped(self, a: Any) -> Any:
        if self._codec.depth - a.GetLevel() < LEFT:
            raise EngineError("no level left for a bootstrap", remedy="Plan fewer steps between two of them.")
        few = a.Clone()
        few.SetSlots(self._period)
        found = self._run.EvalBootstrap(few)
        while found.GetNoiseScaleDeg() > 1:
            found = self._run.Rescale(found)
        found.SetSlots(self.parameters.slots)
        return self._at_level(found, self.parameters.levels)


@lru_cache(maxsize=2)
def codec(literal: Bootstrapping, tag: str) -> OpenFheCodec:
    """Reads and writes the ciphertexts of a key."""
    return OpenFheCodec(literal.parameters, context(literal), literal.depth, tag)


def _primes(made: Any) -> list[int]:
    """The data primes of a context, which OpenFHE chose."""
    o = openfhe()
    text = json.loads(o.Serialize(made, o.JSON))
    crypto = text["value0"]["ptr_wrapper"]["data"]["cc"]["ptr_wrapper"]["data"]
    ring = crypto["value0"]["value0"]["value0"]["elp"]["ptr_wrapper"]["data"]
    return [place["ptr_wrapper"]["data"]["value0"]["cm"]["v"] for place in ring["p"]]
