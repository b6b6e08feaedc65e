"""The key owner's side: round trips, fresh keys, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from blindtune.errors import EngineError, KeyFileError
from blindtune.he.engine import KeySet
from blindtune.he.secret import SecretKey
from blindtune.params import Parameters
from blindtune.plan import insecure_test_parameters


def test_encrypts_and_decrypts_complex_slots(tiny_key: SecretKey) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=512) + 1j * rng.normal(size=512)
    c = tiny_key.load(tiny_key.encrypt(x))
    assert (c.level, c.product, c.size) == (11, False, 2)
    np.testing.assert_allclose(tiny_key.decrypt(c), x, atol=2e-6)


def test_two_encryptions_of_one_vector_differ(tiny_key: SecretKey) -> None:
    assert tiny_key.encrypt(np.ones(512)) != tiny_key.encrypt(np.ones(512))


def test_a_key_survives_its_bytes(tiny: Parameters, tiny_key: SecretKey) -> None:
    again = SecretKey.from_bytes(tiny, tiny_key.key_id, tiny_key.to_bytes())
    assert again.key_id == tiny_key.key_id
    x = np.linspace(-1, 1, 512)
    np.testing.assert_allclose(again.decrypt(again.load(tiny_key.encrypt(x))), x, atol=2e-6)


def test_another_key_decrypts_to_noise(tiny: Parameters, tiny_key: SecretKey) -> None:
    other = SecretKey.generate(tiny)
    assert other.key_id != tiny_key.key_id
    assert other.to_bytes() != tiny_key.to_bytes()
    assert np.abs(other.decrypt(other.load(tiny_key.encrypt(np.ones(512)))) - 1).max() > 1


def test_damaged_or_foreign_keys_are_refused(tiny: Parameters, tiny_key: SecretKey) -> None:
    data = tiny_key.to_bytes()
    foreign = SecretKey.generate(insecure_test_parameters(3, ring_degree=1024)).to_bytes()
    for broken in (b"", data[:-1], data[:50], b"\x00" * len(data), foreign):
        with pytest.raises(KeyFileError, match="damaged"):
            SecretKey.from_bytes(tiny, tiny_key.key_id, broken)


@pytest.mark.parametrize(
    "values",
    [np.ones(511), np.ones((512, 1)), np.full(512, np.nan), np.full(512, np.inf), np.full(512, 1e200)],
)
def test_values_that_cannot_be_encrypted(tiny_key: SecretKey, values: np.ndarray) -> None:
    with pytest.raises(EngineError):
        tiny_key.encrypt(values)


def test_elements_of_a_key_set(tiny_key: SecretKey) -> None:
    assert tiny_key.galois_elements(KeySet((1, 2))) == [3, 9, 2047]


def test_blobs_of_ciphertexts_and_keys_are_not_mistaken(tiny_key: SecretKey) -> None:
    for blob in (tiny_key.to_bytes(), tiny_key.relinearisation_key(), tiny_key.galois_key(3)):
        with pytest.raises(EngineError):
            tiny_key.load(blob)
