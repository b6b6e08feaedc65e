"""Bytes for several members, sealed from the mailbox.

A fresh key seals the content (ChaCha20-Poly1305, RFC 8439); for each recipient it is sealed again under the
key that sender and recipient agree on by X25519. Context and both names are bound in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from blindtune.errors import FederationError
from blindtune.federation.secagg import masks

NONCE, KEY, TAG = 12, 32, 16
_SLOT = NONCE + KEY + TAG


def sealed(
    content: bytes, sender: str, private: bytes, recipients: Mapping[str, bytes], context: bytes
) -> bytes:
    """Seal content for members.

    Args:
        private: the sender's X25519 key.
        recipients: X25519 public keys by name; their sorted order is the order inside.
        context: digest of what this belongs to, 32 bytes.
    """
    key, pieces = os.urandom(KEY), []
    for name in sorted(recipients):
        shared = masks.agree(private, recipients[name], context, f"share {sender} {name}")
        pieces.append(_locked(shared, key, context))
    return b"".join((*pieces, _locked(key, content, context)))


def unsealed(
    data: bytes, sender: str, public: bytes, recipient: str, private: bytes, order: list[str], context: bytes
) -> bytes:
    """The content.

    Args:
        public: the sender's X25519 key.
        order: all recipients, sorted.

    Raises:
        FederationError: it does not open.
    """
    start = _SLOT * order.index(recipient)
    shared = masks.agree(private, public, context, f"share {sender} {recipient}")
    try:
        key = _open(shared, data[start : start + _SLOT], context)
        return _open(key, data[_SLOT * len(order) :], context)
    except (InvalidTag, ValueError):
        raise FederationError(f"what {sender} sealed does not open", where="share") from None


def _locked(key: bytes, content: bytes, context: bytes) -> bytes:
    nonce = os.urandom(NONCE)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, content, context)


def _open(key: bytes, data: bytes, context: bytes) -> bytes:
    return ChaCha20Poly1305(key).decrypt(data[:NONCE], data[NONCE:], context)
