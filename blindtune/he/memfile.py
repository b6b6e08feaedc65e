"""Bytes for a library that reads and writes by path only, without touching a disk (Linux)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence


def to_bytes(save: Callable[[str], object]) -> bytes:
    """What ``save(path)`` writes."""
    with open(os.memfd_create("blindtune"), "rb") as file:
        save(f"/proc/self/fd/{file.fileno()}")
        return file.read()


class Scratch:
    """A memory file that is used again and again: fresh pages cost more than copying does.

    For one process: a fork makes its own. Threads take turns.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handle, self._owner = -1, 0

    def load(self, load: Callable[[str], object], pieces: Sequence[bytes | memoryview]) -> None:
        """Call ``load(path)`` on a file that begins with the pieces.

        What an earlier call left may follow: for formats that say where they end, from a trusted writer.
        """
        with self._lock:
            if self._owner != os.getpid():
                self._handle, self._owner = os.memfd_create("blindtune"), os.getpid()
            at = 0
            for piece in pieces:
                left = memoryview(piece)
                while left:
                    written = os.pwrite(self._handle, left, at)
                    left, at = left[written:], at + written
            load(f"/proc/self/fd/{self._handle}")

    def __del__(self) -> None:
        if self._owner == os.getpid():
            os.close(self._handle)


def from_bytes(load: Callable[[str], object], data: bytes) -> None:
    """Call ``load(path)`` on a file that holds ``data``."""
    with open(os.memfd_create("blindtune"), "wb") as file:
        file.write(data)
        file.flush()
        load(f"/proc/self/fd/{file.fileno()}")
