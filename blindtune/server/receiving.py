"""Bytes of an upload on their way to its file: never too many, of bundles' parts and messages."""

from __future__ import annotations

import fcntl
import hashlib
import os

from blindtune.errors import BundleError, PlanError
from blindtune.server.contents import Contents, Upload
from blindtune.wire import bundle, message
from blindtune.wire.bundle import SECRET_MARK, file_sha256

START = 256
"""Bytes that tell what a file is; the first piece has at least so many, or all there are."""


class Busy(Exception):
    """Somebody else is writing to this upload."""


class Receiver:
    """Appends to an upload's file, alone, until it is closed. All calls block.

    Args:
        offset: where the sender means to go on.

    Raises:
        Busy: somebody else is writing to it.
        PlanError: the upload stands elsewhere.
    """

    def __init__(self, upload: Upload, offset: int) -> None:
        self._upload, self._offset, self._end = upload, offset, offset
        self._digest = hashlib.sha256()
        self._handle = os.open(upload.file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._handle).st_size != offset:
                raise PlanError("the upload stands at another offset", remedy="Ask for it with HEAD.")
        except BlockingIOError:
            os.close(self._handle)
            raise Busy from None
        except BaseException:
            os.close(self._handle)
            raise

    def close(self, *, keep: bool) -> None:
        """Keep what came on stable storage, or take it back: the upload then stands where it stood."""
        try:
            if not keep:
                os.ftruncate(self._handle, self._offset)
            os.fsync(self._handle)
        finally:
            os.close(self._handle)

    @property
    def end(self) -> int:
        """Where the upload stands."""
        return self._end

    def write(self, piece: bytes) -> None:
        """Append a piece.

        Raises:
            BundleError: more than announced, or no part or message; nothing of it is written then.
            OSError: the disk is full, or fails.
        """
        if not piece:
            return
        if self._end + len(piece) > self._upload.size:
            raise TooLong(f"more than the {self._upload.size} bytes that were announced")
        if self._end == 0:
            check_start(piece[:START])
        self._digest.update(piece)
        view = memoryview(piece)
        while view:
            written = os.pwrite(self._handle, view, self._end)
            self._end += written
            view = view[written:]

    def holds(self, sha256: bytes) -> bool:
        """Whether what came has this SHA-256."""
        return self._digest.digest() == sha256


class TooLong(BundleError):
    """More bytes than were announced."""


def check_start(start: bytes) -> None:
    """Refuse a file by its first bytes.

    Raises:
        BundleError: it is neither a part of a bundle nor a message.
    """
    if SECRET_MARK in start:
        raise BundleError(
            "this is a secret key, not a part of a bundle; nothing was stored",
            remedy="It has left the hospital: treat the key as disclosed and encrypt anew.",
        )
    if not start.startswith((bundle.MAGIC, message.MAGIC)):
        raise BundleError("this is not a part of a bundle", remedy="Write the bundle again.")


def finish(contents: Contents, upload: Upload) -> None:
    """Check the whole of an upload and keep it; forget it if it is not what was announced.

    Raises:
        BundleError: it arrived altered.
    """
    if file_sha256(upload.file) != upload.sha256:
        contents.abandon(upload)
        raise BundleError(
            "the content arrived altered: its SHA-256 is not the announced one",
            remedy="Run submit again; if it repeats, write the bundle again.",
        )
    contents.place(upload)
