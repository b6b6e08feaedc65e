"""SEAL's memory: another layout is refused, and SEAL draws anew for every ciphertext and key."""

from __future__ import annotations

import numpy as np
import pytest

from blindtune.errors import EngineError
from blindtune.he import native
from blindtune.he.codec import sealapi
from blindtune.he.secret import SecretKey


def serializable(key: SecretKey) -> object:
    plain = sealapi().Plaintext()
    key._encoder.encode(0.5, key.parameters.scale, plain)
    return key._encryptor.encrypt_symmetric(plain)


@pytest.mark.parametrize("shape", [(11, 1024), (13, 1024), (12, 2048), (24, 512)])
def test_another_shape_is_refused(tiny_key: SecretKey, shape: tuple[int, int]) -> None:
    with pytest.raises(EngineError, match="keeps its objects"):
        native.seeded(serializable(tiny_key), *shape)


def test_what_is_not_seeded_is_refused(tiny_key: SecretKey) -> None:
    full = tiny_key.load(tiny_key.encrypt(np.ones(512))).raw
    with pytest.raises(EngineError, match="keeps its objects"):
        native.seeded(full, 12, 1024)


@pytest.mark.parametrize(("index", "change"), [(0, 0), (2, 0), (4000, 0), (1, 1)])
def test_another_key_is_refused(tiny_key: SecretKey, index: int, change: int) -> None:
    codec = tiny_key._codec
    made = sealapi().KeyGenerator(codec.context, tiny_key._raw).create_galois_keys([3])
    ids = codec.context.key_parms_id()
    ids[0] += change
    with pytest.raises(EngineError, match="keeps its objects"):
        native.seeded_key(made, index, ids, 13, 1024)


def test_seeds_come_from_the_operating_system(tiny_key: SecretKey) -> None:
    """SEAL's factory seeds each generator anew, and every encryption makes a generator."""
    assert sealapi().Blake2xbPRNGFactory.DefaultFactory().use_random_seed()
    seeds = {native.seeded(serializable(tiny_key), 12, 1024).seed for _ in range(50)}
    assert len(seeds) == 50
