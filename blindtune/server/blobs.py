"""Contents by their SHA-256, each tenant's apart: in a directory, or wherever fsspec reads and writes.

A blob is written once and never changed. Which blobs there ought to be is the database's to say
(:mod:`blindtune.server.contents`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from blindtune.errors import InputError, MissingPackageError, StorageError
from blindtune.files import sync_directory

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class Blobs(Protocol):
    """Where contents are kept.

    All methods raise OSError when the storage fails; names are a tenant's identifier and a SHA-256 in hex.
    """

    local: bool
    """Whether only this host's processes see them."""

    def put(self, tenant: str, sha256: str, file: Path) -> None:
        """Take a checked file in; it is on stable storage afterwards, and ``file`` is gone."""
        ...

    def path(self, tenant: str, sha256: str) -> Path:
        """A local file with the content, not to be written to; FileNotFoundError if there is none."""
        ...

    def delete(self, tenant: str, sha256: str) -> None:
        """Remove a content; nothing happens if there is none."""
        ...

    def names(self) -> Iterator[tuple[str, str]]:
        """Everything that is kept."""
        ...


class DirectoryBlobs:
    """A directory: ``<tenant>/<first two digits>/<sha256>``.

    Args:
        directory: made if absent; on the file system that uploads arrive on.
    """

    local = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, tenant: str, sha256: str, file: Path) -> None:
        """See :class:`Blobs`."""
        place = self._place(tenant, sha256)
        with open(file, "rb+") as handle:
            os.fsync(handle.fileno())
        made = not place.parent.is_dir()
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, place)
        sync_directory(place.parent)
        if made:
            sync_directory(place.parent.parent)
            sync_directory(self._directory)

    def path(self, tenant: str, sha256: str) -> Path:
        """See :class:`Blobs`."""
        place = self._place(tenant, sha256)
        if not place.is_file():
            raise FileNotFoundError(sha256)
        return place

    def delete(self, tenant: str, sha256: str) -> None:
        """See :class:`Blobs`."""
        # Its directory stays, for a put beside this may just have made it.
        self._place(tenant, sha256).unlink(missing_ok=True)

    def names(self) -> Iterator[tuple[str, str]]:
        """See :class:`Blobs`."""
        for place in self._directory.glob("*/??/*"):
            yield place.parent.parent.name, place.name

    def _place(self, tenant: str, sha256: str) -> Path:
        return self._directory / tenant / sha256[:2] / sha256


class RemoteBlobs:
    """Any storage of fsspec's, such as ``s3://bucket/prefix``; contents are fetched once to a cache here.

    Args:
        url: of a directory there.
        cache: a local directory, made if absent; what it holds can go at any time.

    Raises:
        InputError: an address that fsspec does not know.
        MissingPackageError: fsspec, or what it needs for this address, is not installed.
    """

    local = False

    def __init__(self, url: str, cache: Path) -> None:
        self._files, self._root = _filesystem(url)
        self._cache = DirectoryBlobs(cache)
        self._arriving = cache.with_name(cache.name + ".arriving")
        self._arriving.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, tenant: str, sha256: str, file: Path) -> None:
        """See :class:`Blobs`."""
        place = self._place(tenant, sha256)
        with _as_oserror():
            self._files.makedirs(place.rsplit("/", 1)[0], exist_ok=True)
            self._files.put_file(str(file), place)
        file.unlink()

    def path(self, tenant: str, sha256: str) -> Path:
        """See :class:`Blobs`."""
        with suppress(FileNotFoundError):
            return self._cache.path(tenant, sha256)
        partial = self._arriving / f"{os.getpid()}-{tenant}-{sha256}"
        try:
            with _as_oserror():
                self._files.get_file(self._place(tenant, sha256), str(partial))
            self._cache.put(tenant, sha256, partial)
        finally:
            partial.unlink(missing_ok=True)
        return self._cache.path(tenant, sha256)

    def delete(self, tenant: str, sha256: str) -> None:
        """See :class:`Blobs`."""
        self._cache.delete(tenant, sha256)
        with suppress(FileNotFoundError), _as_oserror():
            self._files.rm_file(self._place(tenant, sha256))

    def names(self) -> Iterator[tuple[str, str]]:
        """See :class:`Blobs`."""
        with _as_oserror():
            found = self._files.find(self._root) if self._files.exists(self._root) else []
        for place in found:
            tenant, _, sha256 = str(place).rsplit("/", 3)[-3:]
            yield tenant, sha256

    def _place(self, tenant: str, sha256: str) -> str:
        return f"{self._root}/{tenant}/{sha256[:2]}/{sha256}"


def link(source: Path, target: Path) -> None:
    """Give a blob's file another name, or copy it where that is another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def open_blobs(url: str | None, data_dir: Path) -> Blobs:
    """The blobs at an address; in the data directory if there is none."""
    if url is None:
        return DirectoryBlobs(data_dir / "blobs")
    return RemoteBlobs(url, data_dir / "cache")


class _as_oserror:
    """Storage libraries have errors of their own; here they are all the storage's."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, OSError):
            raise StorageError(
                f"the blob storage failed ({type(error).__name__})",
                remedy="Try again; if it repeats, ask the server's operator.",
            ) from error


def _filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    try:
        import fsspec
    except ModuleNotFoundError:
        raise MissingPackageError(
            "fsspec is not installed", remedy="Run pip install 'blindtune[storage]'."
        ) from None
    try:
        files, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingPackageError(
            "a package for this kind of blob storage is not installed", remedy=str(error)
        ) from error
    except ValueError as error:
        raise InputError(
            "the blobs' address cannot be used",
            remedy="Give one that fsspec knows, such as s3://bucket/prefix.",
        ) from error
    found: Any = files
    return found, str(root).rstrip("/")
