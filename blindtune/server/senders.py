"""Who may leave a message in a study's mailbox: the members that its terms name, each under its own name.

Any token of a tenant reaches all of its mailboxes. A message is written once, so a stranger's, or another
member's, in the place of a hospital's would lose the study. A sender therefore shows what it signed before
its message takes a place. Statements, names and public keys are public: no body is looked into.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blindtune.errors import BundleError
from blindtune.server.contents import Contents
from blindtune.server.messages import Letter, Messages
from blindtune.wire.message import (
    MAX_TERMS,
    OFFER,
    PURPOSE,
    STALE,
    Digest,
    Statement,
    overhead,
    parsed,
    verified,
)


class _Terms(BaseModel):
    """What a mailbox knows of a study's terms."""

    model_config = ConfigDict(extra="ignore", strict=True)

    members: Annotated[dict[str, Digest], Field(max_length=50)]


class Senders:
    """The check of messages before they are taken."""

    def __init__(self, messages: Messages, contents: Contents) -> None:
        self._messages, self._contents = messages, contents

    def check(self, letter: Letter, text: str, signature: bytes, size: int) -> None:
        """Refuse what the sender did not sign, or signed as something else or in another study.

        The terms themselves are taken from whoever comes first: nobody else knows the study's identifier
        then, and hospitals compare their fingerprint. Other messages are taken once the terms are here.

        Args:
            text: of the statement that the message begins with.
            size: of the message in bytes.

        Raises:
            BundleError: as said, or no terms lie here.
        """
        place = (letter.stage, letter.item, letter.sender)
        if place == OFFER:
            if size > MAX_TERMS + overhead():
                raise BundleError("larger than terms can be")
            return
        if (letter.item, letter.sender) == STALE:
            raise BundleError("weights to be refreshed are the server's own")
        members, terms = self._offered(letter)
        try:
            statement = Statement.model_validate_json(text)
        except ValidationError:
            raise BundleError("not the statement of a message") from None
        own = (statement.stage, statement.item, statement.sender) == place and statement.terms == terms
        key = members.get(letter.sender)
        if not own or key is None or not verified(bytes.fromhex(key), PURPOSE, text.encode(), signature):
            raise BundleError(
                "the message is not signed by the member in whose name it comes, or is of other terms",
                remedy="Each hospital signs with the key that the study's terms list.",
            )

    def _offered(self, letter: Letter) -> tuple[dict[str, str], str]:
        """Public keys of a study's members by name, and the digest of its terms."""
        sha256 = self._messages.find(Letter(letter.tenant, letter.study, *OFFER))
        if sha256 is None:
            raise BundleError(
                "no terms of this study lie here",
                remedy="Offer them first: blindtune study approve does, where nobody has.",
            )
        try:
            return _read(self._contents.path(letter.tenant, sha256))
        except (ValidationError, ValueError):
            raise BundleError(
                "what lies here are no terms that a member signed", remedy="Begin a new study."
            ) from None


def _read(path: Path) -> tuple[dict[str, str], str]:
    with path.open("rb") as file:
        message = file.read(MAX_TERMS + overhead())
    statement, text, signature, end = parsed(message)
    members = _Terms.model_validate_json(message[end:]).members
    if not verified(bytes.fromhex(members.get(statement.sender, "")), PURPOSE, text, signature):
        raise ValueError("not signed by a member")
    return members, statement.terms
