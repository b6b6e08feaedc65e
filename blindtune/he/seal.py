"""The evaluation side of Microsoft SEAL through ``tenseal.sealapi``: public material only.

The secret key lives in :mod:`blindtune.he.secret`, which nothing on the server may import.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from blindtune.errors import EngineError
from blindtune.he.checked import CheckedEngine
from blindtune.he.codec import (
    SealCodec,
    conjugation_element,
    galois_element,
    galois_elements,
    require_blob,
    sealapi,
)
from blindtune.he.engine import Ciphertext, KeySet
from blindtune.params import Parameters


class SealEngine(CheckedEngine):
    """Evaluation with SEAL; holds evaluation keys, never a secret key.

    Args:
        parameters: checked parameters.
        keys: the rotations that the Galois keys hold.
        relinearisation: serialised relinearisation key.
        galois: serialised Galois keys by Galois element, one key each.

    Raises:
        EngineError: a key that does not load under these parameters, or lacks a rotation.
    """

    def __init__(
        self, parameters: Parameters, keys: KeySet, relinearisation: bytes, galois: dict[int, bytes]
    ) -> None:
        super().__init__(parameters, keys)
        s = self._s = sealapi()
        self._codec = SealCodec(parameters)
        self._evaluator = s.Evaluator(self._codec.context)
        self._encoder = s.CKKSEncoder(self._codec.context)
        for data in (relinearisation, *galois.values()):
            require_blob(data, "an evaluation key")
        self._relin = self._codec.read(s.RelinKeys(), relinearisation, "the relinearisation key")
        # SEAL reads Galois keys as relinearisation keys too; 2 stands for the square of the secret.
        if not self._relin.has_key(2):
            raise EngineError("the relinearisation key is a key of another kind")
        self._galois: dict[int, Any] = {}
        for element in galois_elements(keys, parameters.ring_degree):
            if element not in galois:
                raise EngineError(f"the Galois key of element {element} is missing")
            key = self._codec.read(s.GaloisKeys(), galois[element], "a Galois key")
            if not key.has_key(element):
                raise EngineError(f"a Galois key does not hold element {element}")
            self._galois[element] = key

    def _dump(self, a: Ciphertext) -> bytes:
        return self._codec.dump(a)

    def _load(self, data: bytes) -> Ciphertext:
        return self._codec.ciphertext(data)

    def _add(self, a: Any, b: Any) -> Any:
        out = self._s.Ciphertext()
        self._evaluator.add(a, b, out)
        return out

    def _subtract(self, a: Any, b: Any) -> Any:
        out = self._s.Ciphertext()
        self._evaluator.sub(a, b, out)
        return out

    def _multiply_accumulate(
        self, lefts: list[list[Any]], rights: list[list[Any]], onto: list[Any] | None
    ) -> list[Any]:
        totals: list[Any] = []
        for left, right in product(lefts, rights):
            total, term = None if onto is None else onto[len(totals)], self._s.Ciphertext()
            for a, b in zip(left, right, strict=True):
                self._evaluator.multiply(a, b, term)
                if total is None:
                    total, term = term, self._s.Ciphertext()
                else:
                    total = self._add(total, term)
            totals.append(total)
        return totals

    def _relinearise(self, batch: list[Any]) -> list[Any]:
        found = []
        for a in batch:
            out = self._s.Ciphertext()
            self._evaluator.relinearize(a, self._relin, out)
            found.append(out)
        return found

    def _rescale(self, batch: list[Any], level: int) -> list[Any]:
        found = []
        for a in batch:
            out = self._s.Ciphertext()
            self._evaluator.rescale_to_next(a, out)
            out.scale = self.parameters.scale
            found.append(out)
        return found

    def _multiply_scalar(self, a: Any, factor: float, level: int) -> Any:
        plain, out = self._s.Plaintext(), self._s.Ciphertext()
        # Encoded at the prime's own size: the rescale then restores the nominal scale exactly.
        prime = float(self.parameters.primes[level])
        self._encoder.encode(factor, self._codec.parms_ids[level], prime, plain)
        self._evaluator.multiply_plain(a, plain, out)
        return self._rescale([out], level)[0]

    def _rotate(self, batch: list[Any], steps: int, onto: list[Any] | None) -> list[Any]:
        return self._apply(batch, galois_element(steps, self.parameters.ring_degree), onto)

    def _conjugate(self, batch: list[Any], onto: list[Any] | None) -> list[Any]:
        return self._apply(batch, conjugation_element(self.parameters.ring_degree), onto)

    def _apply(self, batch: list[Any], element: int, onto: list[Any] | None) -> list[Any]:
        if onto is not None and onto[0].size() == 3:
            onto = self._relinearise(onto)
        found = []
        for k, a in enumerate(batch):
            out = self._s.Ciphertext()
            self._evaluator.apply_galois(a, element, self._galois[element], out)
            found.append(out if onto is None else self._add(out, onto[k]))
        return found

    def _at_level(self, a: Any, level: int) -> Any:
        out = self._s.Ciphertext()
        self._evaluator.mod_switch_to(a, self._codec.parms_ids[level], out)
        return out
