"""Long-term identities of hospitals: Ed25519 keys, and the roster that all members of a study share."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from blindtune.errors import FederationError, KeyFileError
from blindtune.files import write_secret
from blindtune.wire.message import for_signature, verified

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
KEY_BYTES = 32
MAX_FILE_BYTES = 1 << 16
FEWEST, MOST = 2, 50


class Identity:
    """A hospital's signing key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> Identity:
        """A new one."""
        return cls(Ed25519PrivateKey.generate())

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes: what goes on the roster."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, purpose: str, content: bytes) -> bytes:
        """Sign ``content`` for one purpose; a signature for another purpose never verifies."""
        return self._key.sign(for_signature(purpose, content))

    def write(self, path: Path, passphrase: str | None = None) -> None:
        """Write the key, mode 0600, as PKCS #8; never replaces one.

        Raises:
            KeyFileError: the file exists or cannot be written, or the passphrase is empty.
        """
        if passphrase == "":
            raise KeyFileError("an empty passphrase", where=path.name, remedy="Give one, or none at all.")
        cipher = (
            serialization.BestAvailableEncryption(passphrase.encode())
            if passphrase is not None
            else serialization.NoEncryption()
        )
        text = self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)
        try:
            write_secret(path, text)
        except OSError as error:
            raise KeyFileError(
                "no identity can be written here", where=path.name, remedy="Choose a new file; keys are kept."
            ) from error

    @classmethod
    def read(cls, path: Path, passphrase: str | None = None) -> Identity:
        """Read a key.

        Raises:
            KeyFileError: not there, damaged, locked, or readable by others.
        """
        try:
            with path.open("rb") as file:
                mode, text = os.fstat(file.fileno()).st_mode, file.read(MAX_FILE_BYTES)
        except OSError:
            raise KeyFileError(
                "no identity here", where=path.name, remedy="Make one: Identity.generate().write(FILE)."
            ) from None
        if mode & 0o077:
            raise KeyFileError(
                "others can read this key", where=path.name, remedy=f"Run chmod 600 {path.name}."
            )
        try:
            key = serialization.load_pem_private_key(text, passphrase.encode() if passphrase else None)
        except (ValueError, TypeError):
            raise KeyFileError(
                "the identity is damaged or locked", where=path.name, remedy="Give its passphrase."
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError("not an Ed25519 key", where=path.name, remedy="Choose the identity file.")
        return cls(key)


@dataclass(frozen=True)
class Roster:
    """The members of a study, and their public keys.

    A member's *number*, from 1, is its place among the sorted names: all with the same roster agree on it.

    Args:
        keys: public key by name.

    Raises:
        FederationError: fewer than two or more than fifty members, a bad name, a bad or repeated key.
    """

    keys: Mapping[str, bytes]
    names: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not FEWEST <= len(self.keys) <= MOST:
            raise FederationError(
                f"{len(self.keys)} members", where="roster", remedy=f"A study has {FEWEST} to {MOST} members."
            )
        if not all(NAME.fullmatch(n) for n in self.keys):
            raise FederationError(
                "a member's name is not plain",
                where="roster",
                remedy="Use up to 32 lower-case letters, digits and hyphens.",
            )
        if {len(k) for k in self.keys.values()} != {KEY_BYTES} or len(set(self.keys.values())) < len(
            self.keys
        ):
            raise FederationError(
                "a public key is of a wrong length or stands twice",
                where="roster",
                remedy="Ask each hospital for its own key.",
            )
        object.__setattr__(self, "names", tuple(sorted(self.keys)))

    def __len__(self) -> int:
        return len(self.names)

    def number(self, name: str) -> int:
        """A member's number.

        Raises:
            FederationError: not a member.
        """
        try:
            return self.names.index(name) + 1
        except ValueError:
            raise FederationError("not a member of this study", where=name[:32]) from None

    def verify(self, number: int, purpose: str, content: bytes, signature: bytes) -> bool:
        """Whether member ``number`` signed ``content`` for ``purpose``."""
        if not 1 <= number <= len(self.names):
            return False
        return verified(self.keys[self.names[number - 1]], purpose, content, signature)

    @property
    def fingerprint(self) -> str:
        """Five groups of four digits, for people to compare by telephone."""
        found = hashlib.sha256(b"blindtune roster")
        for name in self.names:
            found.update(len(name).to_bytes(1, "big") + name.encode() + self.keys[name])
        return digits(found.digest())


def digits(digest: bytes) -> str:
    """Five groups of four digits of a digest, for people to compare by telephone."""
    text = f"{int.from_bytes(digest[:16], 'big') % 10**20:020d}"
    return " ".join(text[i : i + 4] for i in range(0, 20, 4))
