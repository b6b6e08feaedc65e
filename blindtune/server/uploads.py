"""Receiving a part: streamed to disk, never more than declared, checked before it counts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from blindtune.errors import BundleError
from blindtune.wire.bundle import MAGIC, SECRET_MARK
from blindtune.wire.manifest import Part

BLOCK = 1 << 20
"""Bytes held in memory for each upload."""


async def bounded(stream: AsyncIterator[bytes], limit: int) -> bytes | None:
    """A body of at most ``limit`` bytes; None if there is more."""
    body = bytearray()
    async for piece in stream:
        body += piece
        if len(body) > limit:
            return None
    return bytes(body)


async def receive(stream: AsyncIterator[bytes], part: Part, file: Path) -> bool:
    """Stream a part into ``file``; False if the body is longer than declared.

    The file stays only if the part is whole and its SHA-256 is the manifest's.

    Raises:
        BundleError: truncated, altered, or not a part at all.
    """
    digest, size, first, block = hashlib.sha256(), 0, True, bytearray()

    def flush() -> None:
        nonlocal first
        if first:
            _check_start(bytes(block[:256]))
            first = False
        digest.update(block)
        with open(file, "ab") as out:
            out.write(block)
        block.clear()

    try:
        async for piece in stream:
            size += len(piece)
            if size > part.size:
                file.unlink(missing_ok=True)
                return False
            block += piece
            if len(block) >= BLOCK:
                await run_in_threadpool(flush)
        await run_in_threadpool(flush)
        if size != part.size:
            raise BundleError(f"part {part.name} is truncated", remedy="Run submit again to continue.")
        if digest.hexdigest() != part.sha256:
            raise BundleError(
                f"part {part.name} arrived altered: its SHA-256 is not the manifest's",
                remedy="Run submit again; if it repeats, write the bundle again.",
            )
        await run_in_threadpool(_sync, file)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return True


def _check_start(start: bytes) -> None:
    # Before the first byte reaches the disk.
    if SECRET_MARK in start:
        raise BundleError(
            "this is a secret key, not a part of a bundle; nothing was stored",
            remedy="It has left the hospital: treat the key as disclosed and encrypt anew.",
        )
    if not start.startswith(MAGIC):
        raise BundleError("this is not a part of a bundle", remedy="Write the bundle again.")


def _sync(file: Path) -> None:
    with open(file, "rb+") as out:
        os.fsync(out.fileno())
