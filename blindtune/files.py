"""Files that hold secrets or must survive a crash: whole or not at all, and for their owner alone."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blindtune.errors import BlindtuneError, InputError


def sync_directory(directory: Path) -> None:
    """Wait until a directory's entries are on the disk, so that a power cut cannot lose them.

    Some network file systems cannot, and some directories cannot be read: that is no error.
    """
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file of mode 0600; never replaces one, and leaves none that is incomplete.

    Raises:
        OSError: the file exists (FileExistsError), its directory does not, or the disk is full.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


class whole_file:
    """A file of mode 0600 that appears, or replaces the one before, whole or not at all.

    Entering gives the path to write it to.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._partial = path, path.with_name(path.name + ".partial")

    def __enter__(self) -> Path:
        self._partial.unlink(missing_ok=True)
        os.close(os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        return self._partial

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            os.chmod(self._partial, 0o600)
            os.replace(self._partial, self._path)
        else:
            self._partial.unlink(missing_ok=True)


@contextmanager
def writing(what: str, where: str) -> Iterator[None]:
    """Files that a person asked for are written in the block.

    Args:
        what: such as ``the report``.
        where: the file or directory.

    Raises:
        InputError: the system did not take them.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{what} cannot be written ({error.strerror})",
            where=where,
            remedy="Choose a place that you may write to, on a disk with room.",
        ) from error


@contextmanager
def transaction(db: sqlite3.Connection, failure: BlindtuneError) -> Iterator[None]:
    """One transaction that others wait for from its first statement on; undone if the block raises.

    Args:
        db: opened with ``isolation_level=None``.
        failure: raised when the database cannot be written.
    """
    try:
        # Taken before reading: of two processes that look for room, the second sees what the first took.
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise failure from error


@contextmanager
def exclusive(path: Path, busy: BlindtuneError) -> Iterator[None]:
    """Hold a lock file while the block runs; the system frees it when the process ends, however it ends.

    Args:
        busy: raised when another process holds it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise busy from error
        yield
    finally:
        os.close(handle)
