"""The evaluation side of OpenFHE: public material only, the same blobs and results as SEAL's.

OpenFHE's operations take each key with the call, so that nothing lies in its static maps and several studies
may live in one process. Its binding releases the interpreter lock; its own threads come from OpenMP.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from blindtune.errors import EngineError
from blindtune.he import blob
from blindtune.he.blob import Residues
from blindtune.he.checked import CheckedEngine
from blindtune.he.codec import conjugation_element, galois_element, galois_elements
from blindtune.he.engine import Ciphertext, KeySet
from blindtune.he.fast.tables import automorphism
from blindtune.he.openfhe.codec import codec
from blindtune.params import Parameters


class OpenFheEngine(CheckedEngine):
    """Evaluation with OpenFHE; holds evaluation keys, never a secret key.

    Args:
        parameters: checked parameters with OpenFHE's key-switching prime.
        keys: the rotations that the Galois keys hold.
        relinearisation: serialised relinearisation key.
        galois: serialised Galois keys by Galois element, one key each.

    Raises:
        EngineError: a key that does not load under these parameters, or lacks a rotation.
        MissingPackageError: OpenFHE cannot be loaded.
    """

    def __init__(
        self, parameters: Parameters, keys: KeySet, relinearisation: bytes, galois: dict[int, bytes]
    ) -> None:
        super().__init__(parameters, keys)
        self._codec, self._n = codec(parameters), parameters.ring_degree
        self._run = self._codec.context
        self._relin = self._codec.evaluation_key(blob.expand_key(relinearisation, parameters))
        self._galois: dict[int, Any] = {}
        for element in galois_elements(keys, self._n):
            if element not in galois:
                raise EngineError(f"the Galois key of element {element} is missing")
            found = blob.expand_key(galois[element], parameters, element)
            self._galois[element] = self._turned(element, found)

    def _turned(self, element: int, residues: Residues) -> Any:
        """OpenFHE's map of a Galois key's residues (digits, 2, limbs, N).

        SEAL turns a ciphertext and then switches keys, OpenFHE switches first: its key is the other one
        turned back.
        """
        back = automorphism(pow(element, -1, 2 * self._n), self._n)
        return self._codec.key_map(element, residues[..., back])

    def _dump(self, a: Ciphertext) -> bytes:
        return self._codec.dump(a)

    def _load(self, data: bytes) -> Ciphertext:
        return self._codec.ciphertext(data)

    def _add(self, a: Any, b: Any) -> Any:
        return self._run.EvalAdd(a, b)

    def _subtract(self, a: Any, b: Any) -> Any:
        return self._run.EvalSub(a, b)

    def _multiply_accumulate(
        self, lefts: list[list[Any]], rights: list[list[Any]], onto: list[Any] | None
    ) -> list[Any]:
        totals: list[Any] = []
        for left, right in product(lefts, rights):
            total = None if onto is None else onto[len(totals)].Clone()
            for a, b in zip(left, right, strict=True):
                term = self._run.EvalMultNoRelin(a, b)
                if total is None:
                    total = term
                else:
                    self._run.EvalAddInPlace(total, term)
            totals.append(total)
        return totals

    def _relinearise(self, batch: list[Any]) -> list[Any]:
        return [self._run.KeySwitch(a, self._relin) for a in batch]

    def _rescale(self, batch: list[Any], level: int) -> list[Any]:
        return [self._run.Rescale(a) for a in batch]

    def _multiply_scalar(self, a: Any, factor: float, level: int) -> Any:
        # OpenFHE multiplies by the factor at the nominal scale: what the rescale then divides by differs.
        return self._run.Rescale(self._run.EvalMult(a, factor / self.parameters.drift(level)))

    def _rotate(self, batch: list[Any], steps: int, onto: list[Any] | None) -> list[Any]:
        return self._apply(batch, galois_element(steps, self._n), onto)

    def _conjugate(self, batch: list[Any], onto: list[Any] | None) -> list[Any]:
        return self._apply(batch, conjugation_element(self._n), onto)

    def _apply(self, batch: list[Any], element: int, onto: list[Any] | None) -> list[Any]:
        if onto is not None and onto[0].NumberCiphertextElements() == 3:
            onto = self._relinearise(onto)
        if element == 1:
            found = batch
        else:
            key = self._galois[element]
            found = [self._run.EvalAutomorphism(a, element, key) for a in batch]
        return found if onto is None else [self._run.EvalAdd(a, b) for a, b in zip(found, onto, strict=True)]

    def _at_level(self, a: Any, level: int) -> Any:
        return self._run.LevelReduce(a, None, self._codec.depth - a.GetLevel() - level)
