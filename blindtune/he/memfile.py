"""Bytes for a library that reads and writes by path only, without touching a disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from tempfile import NamedTemporaryFile


def to_bytes(save: Callable[[str], object]) -> bytes:
    """What ``save(path)`` writes."""
    if sys.platform == "linux":
        fd = os.memfd_create("blindtune")
        try:
            save(f"/proc/self/fd/{fd}")
            size = os.fstat(fd).st_size
            return os.pread(fd, size, 0) if size < 2**30 else _read_all(fd, size)
        finally:
            os.close(fd)
    with NamedTemporaryFile() as file:  # pragma: no cover - not on Linux
        save(file.name)
        return file.read()


def from_bytes(load: Callable[[str], object], data: bytes) -> None:
    """Call ``load(path)`` on a file that holds ``data``."""
    if sys.platform == "linux":
        fd = os.memfd_create("blindtune")
        try:
            with os.fdopen(os.dup(fd), "wb") as file:
                file.write(data)
            load(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        return
    with NamedTemporaryFile() as file:  # pragma: no cover - not on Linux
        file.write(data)
        file.flush()
        load(file.name)


def _read_all(fd: int, size: int) -> bytes:
    parts = []
    offset = 0
    while offset < size:
        part = os.pread(fd, min(2**30, size - offset), offset)
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
