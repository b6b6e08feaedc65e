"""Blobs: round trips through SEAL, exact equality with SEAL's own loading, and damage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import EngineError
from blindtune.he import blob, memfile, native
from blindtune.he.blob import Header, Kind
from blindtune.he.codec import SealCodec, sealapi
from blindtune.he.openfhe.library import special_primes
from blindtune.he.secret import SecretKey
from blindtune.params import INSECURE, Parameters, ParametersLiteral, check

SMALL = ParametersLiteral(1024, 3, security=INSECURE).checked()


@pytest.fixture(scope="module", params=[(1024, 11, 30, 42, 50), (4096, 2, 40, 59, 59)])
def key(request: pytest.FixtureRequest) -> SecretKey:
    """Small and large primes: of 59 bits, one word in 32 is refused when a seed is expanded."""
    degree, levels, *bits = request.param
    return SecretKey.generate(ParametersLiteral(degree, levels, *bits, security=INSECURE).checked())


def seal_expands(codec: SealCodec, serializable: object, target: object) -> object:
    """What SEAL makes of its own bytes."""
    return codec.read(target, memfile.to_bytes(serializable.save), "SEAL's own")  # type: ignore[attr-defined]


def test_fresh_ciphertext_equals_what_seal_expands(key: SecretKey) -> None:
    codec, p = key._codec, key.parameters
    plain = sealapi().Plaintext()
    key._encoder.encode(0.5, p.scale, plain)
    made = key._encryptor.encrypt_symmetric(plain)
    data = codec.dump_fresh(made)
    assert len(data) == blob.fresh_bytes(p)
    wanted = seal_expands(codec, made, sealapi().Ciphertext())
    shape = (2, p.levels + 1, p.ring_degree)
    header, residues = codec.residues(data)
    assert (header.kind, header.seeded, header.limbs) == (Kind.CIPHERTEXT, True, p.levels + 1)
    np.testing.assert_array_equal(residues[0], native.polynomials(wanted, *shape))
    found = codec.ciphertext(data)
    np.testing.assert_array_equal(residues[0], native.polynomials(found.raw, *shape))
    assert (found.level, found.product, found.size) == (p.levels, False, 2)


@pytest.mark.parametrize("element", [0, 3, 9, 2047])
def test_keys_equal_what_seal_expands(key: SecretKey, element: int) -> None:
    codec, s = key._codec, sealapi()
    generator = s.KeyGenerator(codec.context, key._raw)
    made = generator.create_galois_keys([element]) if element else generator.create_relin_keys()
    data = codec.dump_key(made, element)
    assert len(data) == blob.key_bytes(key.parameters)
    kind = s.GaloisKeys if element else s.RelinKeys
    wanted, found = seal_expands(codec, made, kind()), codec.read(kind(), data, "a key")
    # A public key begins with its ciphertext; data() would hand out one that dies with the key.
    digits = [keys.key(element or 2) for keys in (wanted, found)]
    shape = (2, len(key.parameters.primes), key.parameters.ring_degree)
    assert len(digits[0]) == len(digits[1]) == key.parameters.levels + 1
    for ours, theirs in zip(*digits, strict=True):
        np.testing.assert_array_equal(native.polynomials(ours, *shape), native.polynomials(theirs, *shape))


@given(
    st.integers(1, 4),
    st.sampled_from([(2, True), (2, False), (3, False)]),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_round_trip(limbs: int, form: tuple[int, bool], product: bool, seed: int) -> None:
    header = Header(Kind.CIPHERTEXT, limbs, *form, product=product)
    rng, primes = np.random.default_rng(seed), header.primes(SMALL)
    residues = rng.integers(0, primes[:, None], (header.stored, limbs, 1024), np.uint64)
    data = blob.write(header, SMALL, list(residues), [rng.bytes(64)] if header.seeded else ())
    assert blob.read_header(data, SMALL) == header
    found = blob.expand(data, header, SMALL)
    np.testing.assert_array_equal(found[0, : header.stored], residues)
    assert (found < primes[:, None]).all()
    assert len(data) <= blob.largest_bytes(SMALL)
    raw = SealCodec(SMALL).ciphertext(data)
    assert (raw.level, raw.size, raw.product) == (limbs - 1, header.size, product)
    again = SealCodec(SMALL).dump(raw)
    np.testing.assert_array_equal(blob.expand(again, replace(header, seeded=False), SMALL), found)


def test_expands_into_given_memory(key: SecretKey) -> None:
    data = key.galois_key(3)
    header = blob.read_header(data, key.parameters)
    wanted = blob.expand(data, header, key.parameters)
    out = np.empty_like(wanted)
    assert blob.expand(data, header, key.parameters, out) is out
    np.testing.assert_array_equal(out, wanted)
    with pytest.raises(ValueError, match="shape"):
        blob.expand(data, header, key.parameters, out[1:])


class TestDamage:
    @given(st.data())
    def test_headers(self, data: st.DataObject) -> None:
        """Any header: refused, or it describes exactly these bytes."""
        whole = small_key().encrypt(np.ones(512))
        head = bytearray(whole[:16])
        for _ in range(data.draw(st.integers(1, 3))):
            head[data.draw(st.integers(0, 15))] = data.draw(st.integers(0, 255))
        try:
            header = blob.read_header(bytes(head) + whole[16:], SMALL)
        except EngineError:
            return
        assert header.bytes(SMALL) == len(whole)
        assert header.kind is Kind.CIPHERTEXT

    @pytest.mark.parametrize("size", [0, 3, 15, 16, 40, 79, 80, 1000, -1])
    def test_truncated(self, size: int) -> None:
        key = small_key()
        for whole in (key.encrypt(np.ones(512)), key.relinearisation_key(), key.galois_key(3)):
            for damaged in (whole[:size], whole + b"\x00" * (size % 7 + 1)):
                with pytest.raises(EngineError):
                    key._codec.residues(damaged)
                with pytest.raises(EngineError):
                    key.load(damaged)

    def test_residues_above_their_prime(self) -> None:
        key = small_key()
        for whole in (key.encrypt(np.ones(512)), key.galois_key(3)):
            with pytest.raises(EngineError):
                key._codec.residues(whole[:-8000] + b"\xff" * 8000)

    def test_kinds_are_not_mistaken(self) -> None:
        key, s = small_key(), sealapi()
        blobs = {
            s.Ciphertext: key.encrypt(np.ones(512)),
            s.RelinKeys: key.relinearisation_key(),
            s.GaloisKeys: key.galois_key(3),
            s.SecretKey: key.to_bytes(),
        }
        for target in blobs:
            for kind, data in blobs.items():
                if kind is target:
                    key._codec.read(target(), data, "a blob")
                elif data[:4] == blob.MAGIC:
                    with pytest.raises(EngineError):
                        key._codec.read(target(), data, "a blob")

    def test_other_parameters(self) -> None:
        whole = small_key().encrypt(np.ones(512))
        for given_ in ((2048, 3), (1024, 2), (1024, 3, 25)):
            p = ParametersLiteral(*given_, security=INSECURE).checked()
            with pytest.raises(EngineError):
                blob.read_header(whole, p)

    def test_residues_that_do_not_fit_are_not_written(self) -> None:
        residues = np.full((4, 1024), 2**60, np.uint64)
        with pytest.raises(EngineError, match="below their primes"):
            blob.write(Header(Kind.CIPHERTEXT, 4), SMALL, [residues], [bytes(64)])

    @pytest.mark.parametrize(
        "header",
        [
            Header(Kind.CIPHERTEXT, 0),
            Header(Kind.CIPHERTEXT, 5),
            Header(Kind.CIPHERTEXT, 4, size=3),
            Header(Kind.CIPHERTEXT, 4, size=1, seeded=False),
            Header(Kind.CIPHERTEXT, 4, size=4, seeded=False),
            Header(Kind.CIPHERTEXT, 4, element=3),
            Header(Kind.GALOIS, 4),
            Header(Kind.GALOIS, 4, element=1),
            Header(Kind.GALOIS, 4, element=4),
            Header(Kind.GALOIS, 4, element=2049),
            Header(Kind.GALOIS, 4, element=3, size=3, seeded=False),
            Header(Kind.GALOIS, 3, element=3),
            Header(Kind.RELINEARISATION, 4, product=True),
            Header(Kind.RELINEARISATION, 4, element=3),
        ],
    )
    def test_impossible_headers(self, header: Header) -> None:
        with pytest.raises(EngineError):
            header.check(SMALL)


_keys: list[SecretKey] = []


def small_key() -> SecretKey:
    """One key for all the examples."""
    if not _keys:
        _keys.append(SecretKey.generate(SMALL))
    return _keys[0]


def test_sizes(tiny: Parameters) -> None:
    bits = [q.bit_length() for q in tiny.primes]
    assert blob.fresh_bytes(tiny) == 16 + 64 + 128 * sum(bits[:-1])
    assert blob.key_bytes(tiny) == 16 + 12 * (64 + 128 * sum(bits))


HYBRID = Parameters(
    1024,
    (
        *ParametersLiteral(1024, 5, 40, 50, 60, security=INSECURE).checked().primes[:-1],
        *special_primes(1024, 2),
    ),
    40,
    INSECURE,
    special=2,
    digits=3,
)
"""Three digits of two data primes each, and two special primes."""


@given(st.integers(0, 1000), st.booleans())
def test_keys_of_several_special_primes_and_primes_a_digit(seed: int, seeded: bool) -> None:
    p, rng = check(HYBRID), np.random.default_rng(seed)
    header = Header(Kind.GALOIS, 6, seeded=seeded, element=5)
    primes = header.primes(p)
    assert (header.components(p), tuple(primes)) == (3, p.primes)
    stored = [rng.integers(0, primes[:, None], (8, 1024), np.uint64) for _ in range(3 * header.stored)]
    seeds = [rng.bytes(64) for _ in range(3)] if seeded else []
    data = blob.write(header, p, stored, seeds)
    bits = sum(q.bit_length() for q in p.primes)
    assert len(data) == 16 + 3 * (64 + bits * 128 if seeded else 2 * bits * 128)
    assert blob.read_header(data, p) == header
    assert blob.seeds(data, header, p) == seeds
    found = blob.expand_key(data, p, 5)
    assert found.shape == (3, 2, 8, 1024)
    for digit in range(3):
        np.testing.assert_array_equal(found[digit, 0], stored[digit * header.stored])
    # Sizes follow from the parameters: other digits or special primes make it another key.
    for other in (replace(p, digits=2), replace(p, digits=0), replace(p, special=1, digits=0)):
        with pytest.raises(EngineError):
            blob.expand_key(data, other, 5)
    with pytest.raises(EngineError):
        blob.expand_key(data[:16] + b"\xff" * (len(data) - 16), p, 5)
