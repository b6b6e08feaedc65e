"""The engine that bootstraps, from its keys' blobs; see :mod:`.bootstrapping`."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from blindtune.errors import EngineError
from blindtune.he import blob
from blindtune.he.checked import CheckedEngine
from blindtune.he.engine import KeySet
from blindtune.he.openfhe.bootstrapping import LEFT, Bootstrapping
from blindtune.he.openfhe.codec import OpenFheCodec
from blindtune.he.openfhe.engine import OpenFheEngine
from blindtune.he.openfhe.library import openfhe, special_primes
from blindtune.params import Parameters

_TABLE = threading.Lock()
"""Of the Galois keys that OpenFHE keeps for a process."""


@lru_cache(maxsize=2)
def context(literal: Bootstrapping) -> Any:
    """The crypto context; one a process.

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
    for feature in (o.PKE, o.KEYSWITCH, o.LEVELEDSHE, o.ADVANCEDSHE, o.FHE, o.MULTIPARTY):
        made.Enable(feature)
    # Every object that is read carries its context: the tables are there already.
    o.DisablePrecomputeCRTTablesAfterDeserializaton()
    return made


@lru_cache(maxsize=2)
def key_parameters(literal: Bootstrapping) -> Parameters:
    """The parameters of a literal's keys, over the primes that OpenFHE chooses."""
    special = special_primes(literal.ring_degree, literal.special_primes)
    return literal.key_parameters((*_primes(context(literal)), *special))


def codec(literal: Bootstrapping) -> OpenFheCodec:
    """Reads and writes the objects of one key; OpenFHE's tables hold them apart by its tag."""
    keys = key_parameters(literal)
    tag = secrets.token_hex(16)
    return OpenFheCodec(literal.parameters(keys.primes), context(literal), keys, tag)


class BootstrappingEngine(OpenFheEngine):
    """Evaluation with OpenFHE that makes ciphertexts fresh by itself; holds evaluation keys, no secret key.

    Args:
        literal: the parameters.
        primes: of the keys, data primes first.
        keys: the rotations that a layout needs.
        relinearisation: serialised relinearisation key.
        galois: serialised Galois keys, one at a time, by :meth:`Bootstrapping.galois_elements`.

    Raises:
        EngineError: a key that does not load under these parameters, or that is missing.
        MissingPackageError: OpenFHE cannot be loaded.
    """

    def __init__(
        self,
        literal: Bootstrapping,
        primes: tuple[int, ...],
        keys: KeySet,
        relinearisation: bytes,
        galois: Iterable[bytes],
    ) -> None:
        if key_parameters(literal).primes != primes:
            raise EngineError(
                "OpenFHE chooses other primes here than where the keys were made",
                remedy="Install the release that blindtune[openfhe] names, here and there.",
            )
        self._codec, self._n, self._period = codec(literal), literal.ring_degree, literal.period
        self._run, self._tag = self._codec.context, self._codec.tag
        CheckedEngine.__init__(self, self._codec.parameters, keys)
        set_up(literal)
        self._relin = self._codec.evaluation_key(blob.expand_key(relinearisation, self._codec.keys))
        self._run.InsertEvalMultKey([self._relin], self._tag)
        self._map = self._loaded(literal.galois_elements(keys), iter(galois))
        self._galois = dict.fromkeys(literal.galois_elements(keys), self._map)

    def _loaded(self, elements: list[int], items: Iterator[bytes]) -> Any:
        """OpenFHE's map of all Galois keys: only its table puts several into one."""
        with _TABLE:
            try:
                for element in elements:
                    item = next(items, None)
                    if item is None:
                        raise EngineError(f"the Galois key of element {element} is missing")
                    found = blob.expand_key(item, self._codec.keys, element)
                    self._run.InsertEvalAutomorphismKey(self._turned(element, found), self._tag)
                return self._run.GetEvalAutomorphismKeyMap(self._tag)
            finally:
                self._run.ClearEvalAutomorphismKeys()

    def _refresh(self, batch: list[Any]) -> list[Any]:
        # A bootstrap alone looks keys up in the table; left there they would outlive this engine.
        with _TABLE:
            self._run.InsertEvalAutomorphismKey(self._map, self._tag)
            try:
                return [self._bootstrapped(a) for a in batch]
            finally:
                self._run.ClearEvalAutomorphismKeys()

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
def set_up(literal: Bootstrapping) -> None:
    """Make a context's matrices between slots and coefficients."""
    # Scaled down by no more than the first prime leaves: what is scaled off is precision.
    correction = literal.first_bits - literal.scale_bits
    context(literal).EvalBootstrapSetup([literal.budget] * 2, [0, 0], literal.period, correction)


def _primes(made: Any) -> list[int]:
    """The data primes of a context, which OpenFHE chose."""
    o = openfhe()
    text = json.loads(o.Serialize(made, o.JSON))
    crypto = text["value0"]["ptr_wrapper"]["data"]["cc"]["ptr_wrapper"]["data"]
    ring = crypto["value0"]["value0"]["value0"]["elp"]["ptr_wrapper"]["data"]
    return [place["ptr_wrapper"]["data"]["value0"]["cm"]["v"] for place in ring["p"]]
