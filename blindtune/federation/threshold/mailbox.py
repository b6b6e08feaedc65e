"""Where messages lie until all have read them: blind, for everything in it is public or sealed.

A message is written once. Whoever runs a mailbox can drop or withhold messages, which stops a study, but
cannot alter them: they are signed.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Protocol

from blindtune.errors import FederationError
from blindtune.wire.message import NAME


class Mailbox(Protocol):
    """A place for a study's messages."""

    def post(self, stage: str, item: str, sender: str, message: bytes) -> None:
        """Leave a message; the same one again changes nothing.

        Raises:
            FederationError: another one lies there.
        """

    def fetch(self, stage: str, item: str, sender: str, most: int) -> bytes | None:
        """The first so many bytes of a message; None where there is none yet."""


class DirectoryMailbox:
    """A mailbox in a directory that all members can reach, such as a share or a synchronised folder.

    Args:
        directory: of one study; made if it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def post(self, stage: str, item: str, sender: str, message: bytes) -> None:
        """See :class:`Mailbox`."""
        path = self._path(stage, item, sender)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            partial.write_bytes(message)
            try:
                # Links never replace: of two that write at once, one fails.
                os.link(partial, path)
            except FileExistsError:
                if path.read_bytes() != message:
                    raise FederationError(
                        f"another message of {sender} lies in the mailbox",
                        where=stage,
                        remedy="Someone uses this hospital's name or an old mailbox: begin a new study.",
                    ) from None
        finally:
            partial.unlink(missing_ok=True)

    def fetch(self, stage: str, item: str, sender: str, most: int) -> bytes | None:
        """See :class:`Mailbox`."""
        try:
            with self._path(stage, item, sender).open("rb") as file:
                return file.read(most)
        except FileNotFoundError:
            return None

    def _path(self, stage: str, item: str, sender: str) -> Path:
        if not all(NAME.fullmatch(name) for name in (stage, item, sender)):
            raise FederationError("a name that no message can have", where="mailbox")
        return self._directory / stage / f"{item}.{sender}"
