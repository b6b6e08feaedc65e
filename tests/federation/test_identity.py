"""Identities at rest and on the roster."""

from __future__ import annotations

import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from blindtune.errors import KeyFileError
from blindtune.federation.identity import Identity, Roster


@pytest.mark.parametrize("passphrase", [None, "a passphrase"])
def test_a_key_is_kept_for_its_owner_alone(tmp_path, passphrase):
    path, identity = tmp_path / "identity.pem", Identity.generate()
    identity.write(path, passphrase)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Identity.read(path, passphrase).public == identity.public
    with pytest.raises(KeyFileError, match="no identity can be written"):
        identity.write(path)
    with pytest.raises(KeyFileError, match="an empty passphrase"):
        identity.write(tmp_path / "other.pem", "")
    assert not (tmp_path / "other.pem").exists()
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="others can read"):
        Identity.read(path, passphrase)


def test_keys_that_cannot_be_read(tmp_path):
    path = tmp_path / "identity.pem"
    with pytest.raises(KeyFileError, match="no identity here"):
        Identity.read(path)
    Identity.generate().write(path, "right")
    for wrong in (None, "wrong"):
        with pytest.raises(KeyFileError, match="damaged or locked"):
            Identity.read(path, wrong)
    path.write_text("nonsense")
    with pytest.raises(KeyFileError, match="damaged"):
        Identity.read(path)
    other = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(other)
    with pytest.raises(KeyFileError, match="not an Ed25519"):
        Identity.read(path)


def test_signatures_are_for_one_purpose_and_member():
    one, two = Identity.generate(), Identity.generate()
    roster = Roster({"b": one.public, "a": two.public})
    assert roster.names == ("a", "b")
    number, signature = roster.number("b"), one.sign("this", b"content")
    assert roster.verify(number, "this", b"content", signature)
    assert not roster.verify(number, "that", b"content", signature)
    assert not roster.verify(number, "this", b"other", signature)
    assert not roster.verify(roster.number("a"), "this", b"content", signature)
    assert not roster.verify(0, "this", b"content", signature)
    assert not roster.verify(3, "this", b"content", signature)


def test_fingerprints_tell_rosters_apart():
    keys = {"a": Identity.generate().public, "b": Identity.generate().public}
    fingerprint = Roster(keys).fingerprint
    assert fingerprint == Roster(dict(reversed(keys.items()))).fingerprint
    assert fingerprint != Roster({"a": keys["b"], "b": keys["a"]}).fingerprint
    assert len(fingerprint.split()) == 5
