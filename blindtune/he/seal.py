"""The evaluation side of Microsoft SEAL through ``tenseal.sealapi``: public material only.

The secret key lives in :mod:`blindtune.he.secret`, which nothing on the server may import.
"""

from __future__ import annotations

from typing import Any

from blindtune.errors import EngineError, MissingPackageError, ParametersError
from blindtune.he import memfile
from blindtune.he.engine import CheckedEngine, Ciphertext, KeySet
from blindtune.params import Parameters


def sealapi() -> Any:
    """TenSEAL's raw SEAL binding, imported when first used."""
    try:
        import tenseal.sealapi as api
    except ImportError as error:
        raise MissingPackageError(
            "TenSEAL is not installed", remedy="pip install tenseal (Python 3.11 or newer)."
        ) from error
    return api


def context(parameters: Parameters) -> Any:
    """SEAL's context for checked parameters.

    Raises:
        ParametersError: SEAL itself refuses them.
    """
    s = sealapi()
    literal = s.EncryptionParameters(s.SCHEME_TYPE.CKKS)
    literal.set_poly_modulus_degree(parameters.ring_degree)
    literal.set_coeff_modulus([s.Modulus(q) for q in parameters.primes])
    # The 2024 table has been applied by blindtune.params; SEAL's looser one says nothing more.
    made = s.SEALContext(literal, True, s.SEC_LEVEL_TYPE.NONE)
    if not made.parameters_set():
        raise ParametersError(made.parameters_error_message())
    return made


def galois_element(steps: int, ring_degree: int) -> int:
    """The Galois element of a left rotation by ``steps`` slots."""
    return pow(3, steps % (ring_degree // 2), 2 * ring_degree)


def conjugation_element(ring_degree: int) -> int:
    """The Galois element of complex conjugation."""
    return 2 * ring_degree - 1


class SealCodec:
    """Reads and writes SEAL's objects as bytes; everything read is checked against the parameters."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters, self.context = parameters, context(parameters)
        self.parms_ids = _parms_ids(self.context)
        self._level_of = {tuple(p): level for level, p in self.parms_ids.items()}

    def read(self, target: Any, data: bytes, what: str) -> Any:
        """Load ``data`` into the SEAL object ``target``.

        Raises:
            EngineError: damaged, or of other parameters.
        """
        try:
            memfile.from_bytes(lambda path: target.load(self.context, path), data)
        except (RuntimeError, ValueError, IndexError, MemoryError) as error:
            raise EngineError(
                f"{what} does not load: damaged, or of other parameters",
                remedy="Encrypt the study again and compare the checksums.",
            ) from error
        return target

    def ciphertext(self, data: bytes) -> Ciphertext:
        """A ciphertext with its level and scale.

        Raises:
            EngineError: damaged, of another kind, level or scale.
        """
        raw = self.read(sealapi().Ciphertext(), data, "a ciphertext")
        level = self._level_of.get(tuple(raw.parms_id()))
        scale, nominal = raw.scale, self.parameters.scale
        if level is None or raw.size() not in (2, 3) or not raw.is_ntt_form() or raw.is_transparent():
            raise EngineError("a ciphertext of another kind than this study's")
        if scale not in (nominal, nominal**2):
            raise EngineError("a ciphertext at another scale than this study's")
        return Ciphertext(raw, level, product=scale != nominal, size=raw.size())


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
        self._relin = self._codec.read(s.RelinKeys(), relinearisation, "the relinearisation key")
        # SEAL reads Galois keys as relinearisation keys too; 2 stands for the square of the secret.
        if not self._relin.has_key(2):
            raise EngineError("the relinearisation key is a key of another kind")
        self._galois: dict[int, Any] = {}
        wanted = [galois_element(r, parameters.ring_degree) for r in keys.rotations]
        for element in (*wanted, conjugation_element(parameters.ring_degree)):
            if element not in galois:
                raise EngineError(f"the Galois key of element {element} is missing")
            key = self._codec.read(s.GaloisKeys(), galois[element], "a Galois key")
            if not key.has_key(element):
                raise EngineError(f"a Galois key does not hold element {element}")
            self._galois[element] = key

    def _dump(self, a: Ciphertext) -> bytes:
        return memfile.to_bytes(a.raw.save)

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

    def _multiply_accumulate(self, lefts: list[Any], rights: list[Any], onto: Any | None) -> Any:
        total, term = self._s.Ciphertext(), self._s.Ciphertext()
        start = 0
        if onto is None:
            self._evaluator.multiply(lefts[0], rights[0], total)
            start = 1
        for i in range(start, len(lefts)):
            self._evaluator.multiply(lefts[i], rights[i], term)
            if onto is not None and i == 0:
                self._evaluator.add(onto, term, total)
            else:
                self._evaluator.add_inplace(total, term)
        return total

    def _relinearise(self, a: Any) -> Any:
        out = self._s.Ciphertext()
        self._evaluator.relinearize(a, self._relin, out)
        return out

    def _rescale(self, a: Any, level: int) -> Any:
        out = self._s.Ciphertext()
        self._evaluator.rescale_to_next(a, out)
        out.scale = self.parameters.scale
        return out

    def _multiply_scalar(self, a: Any, factor: float, level: int) -> Any:
        plain, out = self._s.Plaintext(), self._s.Ciphertext()
        # Encoded at the prime's own size: the rescale then restores the nominal scale exactly.
        prime = float(self.parameters.primes[level])
        self._encoder.encode(factor, self._codec.parms_ids[level], prime, plain)
        self._evaluator.multiply_plain(a, plain, out)
        return self._rescale(out, level)

    def _rotate(self, a: Any, steps: int) -> Any:
        return self._apply(a, galois_element(steps, self.parameters.ring_degree))

    def _conjugate(self, a: Any) -> Any:
        return self._apply(a, conjugation_element(self.parameters.ring_degree))

    def _apply(self, a: Any, element: int) -> Any:
        out = self._s.Ciphertext()
        self._evaluator.apply_galois(a, element, self._galois[element], out)
        return out

    def _at_level(self, a: Any, level: int) -> Any:
        out = self._s.Ciphertext()
        self._evaluator.mod_switch_to(a, self._codec.parms_ids[level], out)
        return out

    def _lower(self, a: Any, level: int) -> Any:
        # In place SEAL keeps the buffer, so lowering the dataset again and again takes no more memory.
        self._evaluator.mod_switch_to_inplace(a, self._codec.parms_ids[level])
        return a


def _parms_ids(made: Any) -> dict[int, list[int]]:
    """SEAL's identifier of each level."""
    ids = {}
    data = made.first_context_data()
    while data is not None:
        ids[data.chain_index()] = data.parms_id()
        data = data.next_context_data()
    return ids
