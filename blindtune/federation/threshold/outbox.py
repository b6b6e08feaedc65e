"""What a hospital said and heard, on its own disk: it never says two things, nor forgets what it heard."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from blindtune.errors import FederationError
from blindtune.files import sync_directory, whole_file

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,199}")


class Outbox:
    """Files of mode 0600 that are written once.

    Answers with fresh noise to the same question would average it away, so an answer that was made once is
    given again byte by byte, after a crash too.

    Args:
        directory: the hospital's own, mode 0700; made if it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What was written under ``name``, or what ``make`` gives, which is then on the disk."""
        path = self._path(name)
        if (before := self.recall(name)) is not None:
            return before
        data = make()
        with whole_file(path) as partial, partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(self._directory)
        return data

    def recall(self, name: str) -> bytes | None:
        """What was written under ``name``; None if nothing was."""
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None

    def count(self, prefix: str) -> int:
        """How many names with this prefix there are."""
        return sum(1 for path in self._directory.iterdir() if path.name.startswith(prefix))

    def pin(self, name: str, data: bytes, what: str) -> None:
        """Remember ``data`` under ``name``.

        Raises:
            FederationError: something else is remembered.
        """
        if self.once(name, lambda: data) != data:
            raise FederationError(
                f"{what} differs from what was heard before",
                where="mailbox",
                remedy="Nothing was decrypted. Ask the sender and whoever runs the mailbox.",
            )

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise FederationError("a name that nothing can have", where="outbox")
        return self._directory / name


class Glance(Outbox):
    """An outbox for looking on beside the process that speaks: nothing is written."""

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What was written under ``name``, or what ``make`` gives."""
        before = self.recall(name)
        return make() if before is None else before
