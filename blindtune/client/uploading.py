"""One part on its way to the server in pieces, each checked; after a break it goes on where the server is."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from blindtune.client.transport import BLOCK, StatusError, Transport
from blindtune.wire.manifest import Part

CHUNK = 8 << 20
"""Bytes of a piece: what a break costs at most."""

TURNS = 8
"""Times in a row that the server may stand elsewhere than expected, without anything new arriving.

Together they are longer than a server holds an upload for a connection that it does not know is gone."""

AGAIN = "Run submit again to continue."
TUS = {"Tus-Resumable": "1.0.0"}
UNEXPECTED = (404, 408, 409, 429, 460)
"""The server forgot the upload or has it whole, waited in vain, stands elsewhere, still waits for an earlier
connection, or a piece arrived altered."""


class Uploading:
    """Sends a content (tus 1.0).

    Args:
        content: a file, or the bytes themselves.
        on_bytes: called with bytes that are there; negative when some have to be sent again.
    """

    def __init__(
        self, http: Transport, content: Path | bytes, part: Part, on_bytes: Callable[[int], None]
    ) -> None:
        self._http, self._content, self._part = http, content, part
        self._on_bytes, self._told = on_bytes, 0

    def run(self) -> None:
        """Announce the part, and send what the server lacks of it.

        Raises:
            RemoteError: refused, or the connection broke for good.
        """
        furthest, turns = -1, 0
        while True:
            place, offset = self._announce()
            self._tell(offset)
            if place is None:
                return
            turns = turns + 1 if offset <= furthest else 0
            furthest = max(furthest, offset)
            try:
                while True:
                    offset = self._send(place, offset)
                    if offset == self._part.size:
                        return
            except StatusError as error:
                if error.status not in UNEXPECTED or turns == TURNS:
                    raise

    def _announce(self) -> tuple[str | None, int]:
        """Where to send to, None if nowhere any more, and where the server stands."""
        sha256 = base64.b64encode(self._part.sha256.encode()).decode()
        _, told = self._http.call(
            "POST",
            "/uploads",
            headers={**TUS, "Upload-Length": str(self._part.size), "Upload-Metadata": f"sha256 {sha256}"},
            remedy=AGAIN,
        )
        place, offset = told.get("location"), told.get("upload-offset", "")
        if not offset.isdecimal() or not int(offset) <= self._part.size:
            raise self._http.strange()
        if place is None:
            return None, self._part.size
        found = re.search(r"/uploads/[0-9a-f]{32}$", place)
        if not found:
            raise self._http.strange()
        return found[0], int(offset)

    def _send(self, place: str, offset: int) -> int:
        """Send one piece; where the server stands then."""
        size = min(CHUNK, self._part.size - offset)
        digest = hashlib.sha256()
        for piece in self._read(offset, size):
            digest.update(piece)

        def body() -> Iterator[bytes]:
            # Called anew for each try.
            self._tell(offset)
            for piece in self._read(offset, size):
                yield piece
                self._tell(self._told + len(piece))

        self._http.call(
            "PATCH",
            place,
            body=body,
            headers={
                **TUS,
                "Content-Type": "application/offset+octet-stream",
                "Content-Length": str(size),
                "Upload-Offset": str(offset),
                "Upload-Checksum": f"sha256 {base64.b64encode(digest.digest()).decode()}",
            },
            # After the last piece the server hashes all of the part before it answers.
            patience=3600,
            remedy=AGAIN,
        )
        return offset + size

    def _read(self, offset: int, size: int) -> Iterator[bytes]:
        with self._opened() as file:
            file.seek(offset)
            while size and (piece := file.read(min(size, BLOCK))):
                size -= len(piece)
                yield piece

    def _opened(self) -> BinaryIO:
        return io.BytesIO(self._content) if isinstance(self._content, bytes) else open(self._content, "rb")

    def _tell(self, there: int) -> None:
        if there != self._told:
            self._on_bytes(there - self._told)
            self._told = there
