"""SEAL's context, and its objects as bytes: what engine and key owner share. Public material only."""

from __future__ import annotations

from typing import Any

from blindtune.errors import EngineError, MissingPackageError, ParametersError
from blindtune.he import blob, memfile, native
from blindtune.he.blob import Header, Kind, Residues
from blindtune.he.engine import Ciphertext, KeySet
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


def galois_elements(keys: KeySet, ring_degree: int) -> list[int]:
    """The elements that a key set needs, in the order of a bundle: rotations, then conjugation."""
    return [*(galois_element(r, ring_degree) for r in keys.rotations), conjugation_element(ring_degree)]


class SealCodec:
    """Reads and writes SEAL's objects as blobs of ours; everything read is checked against the parameters."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters, self.context = parameters, context(parameters)
        self.parms_ids = _parms_ids(self.context)
        self._level_of = {tuple(p): level for level, p in self.parms_ids.items()}
        self._scratch = memfile.Scratch()
        s = sealapi()
        self._kinds = {
            Kind.CIPHERTEXT: s.Ciphertext,
            Kind.RELINEARISATION: s.RelinKeys,
            Kind.GALOIS: s.GaloisKeys,
        }

    def read(self, target: Any, data: bytes, what: str) -> Any:
        """Load ``data`` into the SEAL object ``target``: a ciphertext or keys of ours, or SEAL's own bytes.

        What comes from outside is a blob: call :func:`require_blob` first.

        Raises:
            EngineError: damaged, of another kind, or of other parameters.
        """
        try:
            if data[:4] == blob.MAGIC:
                header, found = self.residues(data)
                if type(target) is self._kinds[header.kind]:
                    stream = self._stream(header, found)
                    self._scratch.load(lambda path: target.load(self.context, path), stream)
                    return target
            else:
                memfile.from_bytes(lambda path: target.load(self.context, path), data)
                return target
        except (EngineError, RuntimeError, ValueError, IndexError, MemoryError) as error:
            raise EngineError(
                f"{what} does not load: damaged, or of other parameters",
                remedy="Encrypt the study again and compare the checksums.",
            ) from error
        is_ciphertext = header.kind is Kind.CIPHERTEXT
        raise EngineError(f"{what} is a {'ciphertext' if is_ciphertext else 'key of another kind'}")

    def residues(self, data: bytes) -> tuple[Header, Residues]:
        """A blob's header and residues (components, polynomials, limbs, N), without SEAL.

        Raises:
            EngineError: damaged, or of other parameters.
        """
        header = blob.read_header(data, self.parameters)
        return header, blob.expand(data, header, self.parameters)

    def ciphertext(self, data: bytes) -> Ciphertext:
        """A ciphertext with its level and scale.

        Raises:
            EngineError: damaged, of another kind, level or scale.
        """
        require_blob(data, "a ciphertext")
        raw = self.read(sealapi().Ciphertext(), data, "a ciphertext")
        level = self._level_of.get(tuple(raw.parms_id()))
        scale, nominal = raw.scale, self.parameters.scale
        if level is None or raw.size() not in (2, 3) or not raw.is_ntt_form() or raw.is_transparent():
            raise EngineError("a ciphertext of another kind than this study's")
        if scale not in (nominal, nominal**2):
            raise EngineError("a ciphertext at another scale than this study's")
        return Ciphertext(raw, level, product=scale != nominal, size=raw.size())

    def dump(self, a: Ciphertext) -> bytes:
        """A ciphertext's blob."""
        header = Header(Kind.CIPHERTEXT, a.level + 1, a.size, seeded=False, product=a.product)
        found = native.polynomials(a.raw, a.size, a.level + 1, self.parameters.ring_degree)
        return blob.write(header, self.parameters, list(found))

    def dump_fresh(self, serializable: Any) -> bytes:
        """The blob of what ``encrypt_symmetric`` returned."""
        header = Header(Kind.CIPHERTEXT, self.parameters.levels + 1)
        found = native.seeded(serializable, header.limbs, self.parameters.ring_degree)
        return blob.write(header, self.parameters, [found.first], [found.seed])

    def dump_key(self, serializable: Any, element: int = 0) -> bytes:
        """The blob of a relinearisation key, or of a Galois key with its element, as SEAL generated it."""
        kind = Kind.GALOIS if element else Kind.RELINEARISATION
        header = Header(kind, self.parameters.levels + 1, element=element)
        place, limbs = _place(header), header.limbs + 1
        ids = self.context.key_parms_id()
        found = native.seeded_key(serializable, place, ids, limbs, self.parameters.ring_degree)
        return blob.write(header, self.parameters, [d.first for d in found], [d.seed for d in found])

    def _stream(self, header: Header, residues: Residues) -> list[bytes | memoryview]:
        """A blob of ours as SEAL's uncompressed stream."""
        ours = sealapi().Serialization.SEALHeader()
        version = (ours.version_major, ours.version_minor)
        if header.kind is Kind.CIPHERTEXT:
            scale = self.parameters.scale ** (2 if header.product else 1)
            return native.ciphertext_stream(version, self.parms_ids[header.limbs - 1], scale, residues[0])
        return native.key_stream(version, self.context.key_parms_id(), _place(header), residues)


def require_blob(data: bytes, what: str) -> None:
    """Refuse what is not in our format, before any of SEAL's decompression.

    Raises:
        EngineError: it is not.
    """
    if data[:4] != blob.MAGIC:
        raise EngineError(
            f"{what} does not load: not in this version's format", remedy="Encrypt the study again."
        )


def _place(header: Header) -> int:
    """Where SEAL's key objects keep a key."""
    return (header.element - 1) // 2 if header.kind is Kind.GALOIS else 0


def _parms_ids(made: Any) -> dict[int, list[int]]:
    """SEAL's identifier of each level."""
    ids = {}
    data = made.first_context_data()
    while data is not None:
        ids[data.chain_index()] = data.parms_id()
        data = data.next_context_data()
    return ids
