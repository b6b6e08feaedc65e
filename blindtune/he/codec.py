"""SEAL's context, and its objects as bytes: what engine and key owner share. Public material only."""

from __future__ import annotations

from typing import Any

from blindtune.errors import EngineError, MissingPackageError, ParametersError
from blindtune.he import memfile
from blindtune.he.engine import Ciphertext
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


def _parms_ids(made: Any) -> dict[int, list[int]]:
    """SEAL's identifier of each level."""
    ids = {}
    data = made.first_context_data()
    while data is not None:
        ids[data.chain_index()] = data.parms_id()
        data = data.next_context_data()
    return ids
