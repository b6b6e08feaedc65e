"""What hospitals of a study hand each other: public keys on cards, and the roster that is made of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blindtune.errors import FederationError, InputError, KeyFileError
from blindtune.federation.identity import KEY_BYTES, MAX_FILE_BYTES, MOST, NAME, Identity, Roster
from blindtune.files import whole_file, write_secret, writing

IDENTITY, NODE, CARD = "identity.key", "node.key", "card.json"
CURVE = ec.SECP384R1


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Card(_File):
    """A hospital's public keys; nothing in it is secret.

    Attributes:
        name: as it will stand on the roster.
        identity: Ed25519 key that signs for the hospital, as hexadecimal digits.
        node: key of its connection, as PEM; it opens the aggregator's door, and proves nothing more.
    """

    format: Literal["blindtune member 1"] = "blindtune member 1"
    name: Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
    identity: Annotated[str, Field(pattern=rf"^[0-9a-f]{{{2 * KEY_BYTES}}}$")]
    node: Annotated[str, Field(max_length=1000)]


class Members(_File):
    """The roster as it is written to a file."""

    format: Literal["blindtune roster 1"] = "blindtune roster 1"
    members: Annotated[list[Card], Field(max_length=MOST)]

    @property
    def roster(self) -> Roster:
        """Names and keys that sign.

        Raises:
            FederationError: a name or key that stands twice, or too few members.
        """
        if len({card.name for card in self.members}) < len(self.members):
            raise FederationError(
                "a name stands twice", where="roster", remedy="Ask one of the hospitals for another name."
            )
        return Roster({card.name: bytes.fromhex(card.identity) for card in self.members})

    @property
    def doors(self) -> dict[str, bytes]:
        """Keys of connections by name, as Flower registers them.

        Raises:
            FederationError: one that is no such key, or stands twice.
        """
        found = {card.name: _canonical(card) for card in self.members}
        if len(set(found.values())) < len(found):
            raise FederationError(
                "a node key stands twice", where="roster", remedy="Ask each hospital for its own card."
            )
        return found


M = TypeVar("M", bound=_File)


def make(directory: Path, name: str, passphrase: str | None = None) -> Card:
    """Make a hospital's keys and its card in an existing directory.

    Args:
        passphrase: locks the key that signs.

    Raises:
        InputError: a name that is not plain.
        KeyFileError: keys are there already, or cannot be written.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            "a member's name is not plain",
            where=name[:32],
            remedy="Use up to 32 lower-case letters, digits and hyphens.",
        )
    identity, node = Identity.generate(), ec.generate_private_key(CURVE())
    identity.write(directory / IDENTITY, passphrase)
    text = node.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        write_secret(directory / NODE, text)
    except OSError as error:
        raise KeyFileError(
            "no node key can be written here", where=NODE, remedy="Choose a new directory; keys are kept."
        ) from error
    card = Card(name=name, identity=identity.public.hex(), node=public_pem(node).decode())
    write(directory / CARD, card)
    return card


def read_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key of a hospital's connection.

    Raises:
        KeyFileError: not there, damaged, or readable by others.
    """
    try:
        with path.open("rb") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read(MAX_FILE_BYTES)
        key = serialization.load_pem_private_key(text, None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError(
            "no node key here, or a damaged one", where=path.name, remedy="Run blindtune federate init."
        ) from None
    if mode & 0o077:
        raise KeyFileError("others can read this key", where=path.name, remedy=f"Run chmod 600 {path.name}.")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyFileError("not a node key", where=path.name, remedy="Choose the file that init wrote.")
    return key


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half, as Flower registers and sends it."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def read(kind: type[M], path: Path) -> M:
    """Read a card or a roster.

    Raises:
        InputError: not there, too long, or not one.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError
        return kind.model_validate_json(data)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path.name) from None
    except (ValidationError, ValueError):
        what = "a roster" if kind is Members else "a hospital's card"
        raise InputError(f"not {what}", where=path.name, remedy="Ask for the file again.") from None


def write(path: Path, content: _File) -> None:
    """Write a card or a roster, whole; both are public.

    Raises:
        InputError: the disk does not take it.
    """
    with writing("the file", path.name), whole_file(path) as partial:
        partial.write_text(content.model_dump_json(indent=1) + "\n")


def _canonical(card: Card) -> bytes:
    try:
        key = serialization.load_pem_public_key(card.node.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVE):
        raise FederationError(
            "a node key that is none", where=card.name, remedy="Ask this hospital for its card again."
        )
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
