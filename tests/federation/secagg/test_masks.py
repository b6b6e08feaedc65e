"""Masks: the standard's streams, agreed on both sides, gone when added and subtracted."""

from __future__ import annotations

import hmac

import numpy as np
import pytest

from blindtune.errors import FederationError
from blindtune.federation.secagg import masks


def test_the_stream_is_chacha20_of_rfc_8439():
    # RFC 8439, appendix A.1, test vectors 1 and 2: key and nonce zero, blocks 0 and 1.
    vector = np.zeros(32, np.uint32)
    masks.add_mask(vector, bytes(32), 1)
    assert (
        vector.tobytes().hex().startswith("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7")
    )
    assert (
        vector[16:]
        .tobytes()
        .hex()
        .startswith("9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed")
    )


def test_keys_are_x25519_of_rfc_7748():
    # RFC 7748, section 6.1.
    alice = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert masks.agree(bob, alice, b"s", "p") == masks.derive(shared, b"s", "p")


def test_keys_are_derived_by_hkdf_of_rfc_5869():
    # RFC 5869, sections 2.2 and 2.3, for one block.
    pseudorandom = hmac.digest(b"session", b"secret", "sha256")
    wanted = hmac.digest(pseudorandom, b"blindtune secagg pair" + b"\x01", "sha256")
    assert masks.derive(b"secret", b"session", "pair") == wanted


@pytest.mark.parametrize("length", [1, 1000, masks.CHUNK // 4, masks.CHUNK // 4 + 1, masks.CHUNK])
def test_a_mask_added_and_subtracted_is_gone(length):
    start = np.random.default_rng(length).integers(0, 2**32, length, np.uint32)
    vector = start.copy()
    masks.add_mask(vector, b"k" * 32, 1)
    assert (vector != start).mean() > 0.9
    masks.add_mask(vector, b"k" * 32, -1)
    np.testing.assert_array_equal(vector, start)


def test_both_sides_agree_for_one_session_and_purpose_only():
    a, b = masks.private_key(), masks.private_key()
    one = masks.agree(a, masks.public_key(b), b"session", "pair")
    assert one == masks.agree(b, masks.public_key(a), b"session", "pair")
    assert one != masks.agree(a, masks.public_key(b), b"another", "pair")
    assert one != masks.agree(a, masks.public_key(b), b"session", "self")


def test_a_point_of_small_order_is_refused():
    with pytest.raises(FederationError, match="no shared secret"):
        masks.agree(masks.private_key(), bytes(32), b"session", "pair")
