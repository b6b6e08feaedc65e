"""Messages of an aggregation, as a checked schema; masked vectors travel beside them as plain bytes.

A member is named by its number (:class:`blindtune.federation.identity.Roster`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blindtune.errors import FederationError
from blindtune.federation.identity import KEY_BYTES, MOST
from blindtune.federation.secagg.shamir import SHARE_BYTES
from blindtune.wire.message import SIGNATURE_BYTES

MAX_BYTES = 1 << 20

ADVERT, CONSENT = "secagg advert", "secagg consent"
"""What a signature is for."""

Number = Annotated[int, Field(ge=1, le=MOST)]
Key = Annotated[bytes, Field(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Signature = Annotated[bytes, Field(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
Share = Annotated[bytes, Field(min_length=SHARE_BYTES, max_length=SHARE_BYTES)]
Sealed = Annotated[bytes, Field(min_length=2 * SHARE_BYTES + 28, max_length=2 * SHARE_BYTES + 28)]


class _Message(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, ser_json_bytes="base64", val_json_bytes="base64", allow_inf_nan=False
    )

    def to_bytes(self) -> bytes:
        """As JSON."""
        return self.model_dump_json().encode()


M = TypeVar("M", bound=_Message)


def parse(kind: type[M], data: bytes) -> M:
    """Read a message.

    Raises:
        FederationError: too long, or not one of this kind.
    """
    if len(data) > MAX_BYTES:
        raise FederationError(f"a message of {len(data)} bytes", where="secure aggregation")
    try:
        return kind.model_validate_json(data)
    except ValidationError:
        raise FederationError(f"not a message of kind {kind.__name__}", where="secure aggregation") from None


class Advert(_Message):
    """A member's keys of this session, signed.

    Attributes:
        sealing: X25519 key under which others seal shares for this member.
        masking: X25519 key from which pairwise masks follow.
        commitment: SHA-256 of the self mask's seed, which a recovered seed is checked against.
    """

    member: Number
    sealing: Key
    masking: Key
    commitment: Key
    signature: Signature

    @property
    def signed(self) -> bytes:
        """What the signature covers, beside the session."""
        return bytes([self.member]) + self.sealing + self.masking + self.commitment


class Adverts(_Message):
    """All members' keys."""

    adverts: Annotated[list[Advert], Field(max_length=MOST)]


class Sharing(_Message):
    """A member's shares for all others, each sealed for one."""

    member: Number
    sealed: Annotated[dict[Number, Sealed], Field(max_length=MOST)]


class Delivery(_Message):
    """The shares that all others sealed for one member."""

    sealed: Annotated[dict[Number, Sealed], Field(max_length=MOST)]


class Survivors(_Message):
    """The members whose masked vectors arrived."""

    members: Annotated[list[Number], Field(max_length=MOST)]

    @property
    def signed(self) -> bytes:
        """What members sign, beside the session."""
        return bytes(self.members)


class Consent(_Message):
    """A member's signature of who survived."""

    member: Number
    signature: Signature


class Consents(_Message):
    """All members' signatures of who survived."""

    signatures: Annotated[dict[Number, Signature], Field(max_length=MOST)]


class Opening(_Message):
    """A member's shares: of the self masks of those who survived, of the masking keys of those who did not.

    Attributes:
        seeds: share of the self mask's seed by survivor.
        keys: share of the masking key by member that dropped out.
    """

    member: Number
    seeds: Annotated[dict[Number, Share], Field(max_length=MOST)]
    keys: Annotated[dict[Number, Share], Field(max_length=MOST)]


def distinct(numbers: Sequence[int]) -> bool:
    """Whether no number stands twice, and all stand in order."""
    return list(numbers) == sorted(set(numbers))


def commitment(seed: bytes) -> bytes:
    """What a seed is known by before it is recovered."""
    return hashlib.sha256(b"blindtune secagg seed" + seed).digest()
