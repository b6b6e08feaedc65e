"""Bundles: a directory with ``manifest.json`` and ``parts/``, written whole or not at all.

A part is a frame of items (:mod:`blindtune.he.blob`): ``BTP1``, the number of items (u32), their sizes
(u64 each), then the items, little endian. Reading checks names, counts, sizes and SHA-256 before anything
is loaded.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blindtune.errors import BundleError
from blindtune.files import sync_directory
from blindtune.wire.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    Part,
    expected_parts,
    parse_manifest,
)

MAGIC = b"BTP1"
MANIFEST = "manifest.json"
PARTS = "parts"
SECRET_MARK = b"blindtune-secret-key"
"""Every secret key file of ours begins with these bytes within its first line."""


def frame(items: Sequence[bytes]) -> Iterator[bytes]:
    """A part's bytes, in pieces."""
    yield MAGIC + struct.pack("<I", len(items)) + struct.pack(f"<{len(items)}Q", *map(len, items))
    yield from items


def write_bundle(
    directory: Path,
    manifest: Manifest,
    parts: Iterable[tuple[str, Sequence[bytes]]],
    on_part: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Write a bundle; the directory appears only when it is complete and on the disk.

    Args:
        manifest: without parts; they are filled in.
        parts: names and items, in the order of :func:`~blindtune.wire.manifest.expected_parts`.
        on_part: called with the bytes of each part written.

    Raises:
        BundleError: the directory exists, or the parts or their items are not the expected ones.
    """
    if directory.exists():
        raise BundleError("the bundle exists already", where=directory.name, remedy="Choose another --out.")
    wanted = expected_parts(manifest)
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / PARTS).mkdir(parents=True)
    try:
        listed = []
        for name, items in parts:
            if name not in wanted:
                raise BundleError(f"{name} is not one of the parts that layout and program call for")
            if len(items) != wanted[name][0]:
                raise BundleError(f"part {name} has {len(items)} items instead of {wanted[name][0]}")
            digest, size = hashlib.sha256(), 0
            with open(partial / PARTS / name, "wb") as file:
                for piece in frame(items):
                    file.write(piece)
                    digest.update(piece)
                    size += len(piece)
                file.flush()
                os.fsync(file.fileno())
            listed.append(Part(name=name, sha256=digest.hexdigest(), size=size))
            on_part(size)
        done = manifest.model_copy(update={"parts": listed})
        text = done.model_dump_json(indent=1)
        parse_manifest(text, insecure=True)
        with open(partial / MANIFEST, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        sync_directory(partial / PARTS)
        sync_directory(partial)
        os.replace(partial, directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_directory(directory.parent)
    return done


class Bundle:
    """A bundle on disk, its manifest checked; :meth:`verify` checks the parts.

    Args:
        directory: where it lies.
        insecure: accept test parameters without a security level.

    Raises:
        BundleError: missing, malformed, with parts missing or of another size, or holding anything else.
    """

    def __init__(self, directory: Path, *, insecure: bool = False) -> None:
        self.directory = directory
        path = directory / MANIFEST
        if not path.is_file():
            raise BundleError("no manifest.json here", where=directory.name, remedy="Give a bundle.")
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError("the manifest is too large", where=directory.name)
        _refuse_strangers(directory)
        self.manifest = parse_manifest(path.read_bytes(), insecure=insecure)
        self._counts = expected_parts(self.manifest)
        named = {p.name for p in self.manifest.parts}
        for found in (directory / PARTS).iterdir():
            if found.name not in named:
                raise BundleError("a file that the manifest does not list", where=f"{PARTS}/…")
        for part in self.manifest.parts:
            size = self._path(part.name).stat().st_size if self._path(part.name).is_file() else -1
            if size != part.size:
                state = "missing" if size < 0 else f"{size} bytes instead of {part.size}"
                raise BundleError(f"part {part.name} is {state}", remedy="Copy or write the bundle again.")

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(p.size for p in self.manifest.parts)

    def verify(self, on_part: Callable[[int], None] = lambda _: None) -> None:
        """Check every part's SHA-256, several at a time.

        Raises:
            BundleError: a part was altered.
        """
        parts = self.manifest.parts
        with ThreadPoolExecutor(min(len(parts), os.cpu_count() or 1)) as pool:
            sums = pool.map(lambda part: file_sha256(self._path(part.name)), parts)
            for part, found in zip(parts, sums, strict=True):
                if found != part.sha256:
                    pool.shutdown(cancel_futures=True)
                    raise BundleError(
                        f"part {part.name} was altered: its SHA-256 is not the manifest's",
                        remedy="Copy or write the bundle again.",
                    )
                on_part(part.size)

    def open_part(self, name: str) -> Path:
        """The path of a listed part."""
        if name not in self._counts:
            raise BundleError(f"no part {name}")
        return self._path(name)

    def items(self, name: str) -> Iterator[bytes]:
        """The items of a part, one at a time.

        Raises:
            BundleError: the frame contradicts the manifest.
        """
        count, largest = self._counts[name]
        yield from framed(self._path(name), f"part {name}", count, largest)

    def _path(self, name: str) -> Path:
        return self.directory / PARTS / name


def framed(path: Path, what: str, count: int, largest: int, start: int = 0) -> Iterator[bytes]:
    """The items of a frame on the disk, one at a time.

    Args:
        what: it is, for errors.
        largest: size of an item in bytes.
        start: where in the file the frame begins.

    Raises:
        BundleError: other counts or sizes, or truncated.
    """
    with open(path, "rb") as file:
        file.seek(start)
        head = file.read(8)
        if head[:4] != MAGIC or len(head) < 8 or struct.unpack("<I", head[4:])[0] != count:
            raise BundleError(f"{what} is not a frame of {count} items")
        sizes = struct.unpack(f"<{count}Q", _exactly(file.read(8 * count), 8 * count, what))
        if any(s > largest for s in sizes) or start + 8 + 8 * count + sum(sizes) != path.stat().st_size:
            raise BundleError(f"the item sizes in {what} do not add up")
        for size in sizes:
            yield _exactly(file.read(size), size, what)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def holds_secret_key(path: Path) -> bool:
    """Whether a file is one of our secret key files."""
    with open(path, "rb") as file:
        return SECRET_MARK in file.read(256)


def _exactly(data: bytes, size: int, what: str) -> bytes:
    if len(data) != size:
        raise BundleError(f"{what} is truncated", remedy="Copy or write the bundle again.")
    return data


def _refuse_strangers(directory: Path) -> None:
    for found in sorted(directory.rglob("*")):
        if found.is_symlink():
            raise BundleError("a link inside a bundle", where=directory.name)
        if found.is_file() and holds_secret_key(found):
            raise BundleError(
                "the bundle holds a secret key",
                where=directory.name,
                remedy="Take it out; if it was ever sent, treat the key as disclosed and encrypt anew.",
            )
    allowed = {MANIFEST, PARTS}
    if {p.name for p in directory.iterdir()} - allowed or not (directory / PARTS).is_dir():
        raise BundleError(
            "a bundle holds manifest.json and parts/, nothing else",
            where=directory.name,
            remedy="Remove what does not belong there.",
        )
