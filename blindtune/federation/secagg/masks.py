"""Masks: long streams of words from short agreed keys.

Keys are agreed by X25519 and derived by HKDF-SHA256 (RFC 5869) under the session's digest; the stream is
ChaCha20 (RFC 8439) under a key of 256 bits that is used once, so its nonce is zero.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from blindtune.errors import FederationError
from blindtune.federation.secagg.quantise import Words

KEY_BYTES = 32
CHUNK = 1 << 20
"""Bytes of a stream made at a time: they stay in the cache while they are added."""


def private_key() -> bytes:
    """A new X25519 private key."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_key(private: bytes) -> bytes:
    """Its public key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes, session: bytes, purpose: str) -> bytes:
    """The key that two members share, for one session and purpose.

    Raises:
        FederationError: the public key is one that no honest member has (a point of small order).
    """
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except ValueError:
        raise FederationError(
            "a public key that gives no shared secret", where="secure aggregation"
        ) from None
    return derive(shared, session, purpose)


def derive(secret: bytes, session: bytes, purpose: str) -> bytes:
    """A key for one purpose from a secret."""
    info = b"blindtune secagg " + purpose.encode()
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=session, info=info).derive(secret)


def add_mask(vector: Words, key: bytes, sign: int) -> None:
    """Add the stream of a key to a vector in place, or subtract it.

    Args:
        vector: shape (n,), little-endian words.
        key: 32 bytes, used for this one stream.
        sign: 1 or -1.
    """
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    # Short vectors come by the ten thousands: they get no more than they need.
    most = min(CHUNK, 4 * vector.size)
    zeros, out = bytes(most), bytearray(most)
    for start in range(0, vector.size, CHUNK // 4):
        piece = vector[start : start + CHUNK // 4]
        stream.update_into(zeros[: 4 * piece.size], out)
        words = np.frombuffer(out, "<u4", piece.size)
        if sign > 0:
            piece += words
        else:
            piece -= words
