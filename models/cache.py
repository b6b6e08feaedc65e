"""Embeddings on disk, so that an interrupted extraction goes on where it stopped.

A cache is a folder of safetensors chunks that are written once and never changed. A chunk holds the
SHA-256 of file contents and the features, no names and no paths; its own name begins with the
namespace (backbone and preparation) that it belongs to. Embeddings count as patient data: the folder
is readable by its owner only.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from blindtune.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["FeatureCache"]


class FeatureCache:
    """Features by content hash, for one namespace.

    Args:
        folder: where the chunks lie, created with mode 0700; ``None`` keeps everything in memory.
        namespace: hex digits that say what made the features; others' chunks are left alone.
        dimension: number of features, d.

    Raises:
        InputError: the folder cannot be made, or a chunk is damaged.
    """

    def __init__(self, folder: Path | None, namespace: str, dimension: int) -> None:
        self._folder, self._namespace, self._dimension = folder, namespace, dimension
        self._known: dict[bytes, npt.NDArray[np.float32]] = {}
        self._unsaved: list[bytes] = []
        if folder is None:
            return
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            chunks = sorted(folder.glob(f"{namespace}-*.safetensors"))
        except OSError as error:
            raise _unusable(folder, error) from error
        for chunk in chunks:
            self._read(chunk)

    def __contains__(self, key: bytes) -> bool:
        return key in self._known

    def __getitem__(self, key: bytes) -> npt.NDArray[np.float32]:
        return self._known[key]

    @property
    def unsaved(self) -> int:
        """Number of rows that are not on disk yet."""
        return len(self._unsaved)

    def add(self, key: bytes, features: npt.NDArray[np.float32]) -> None:
        """Remember float32 (d,) under a 32-byte content hash; :meth:`save` makes it last."""
        self._known[key] = features
        self._unsaved.append(key)

    def save(self) -> None:
        """Write what is new as one chunk, whole or not at all.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        if not self._unsaved or self._folder is None:
            return
        import numpy as np
        from safetensors.numpy import save

        data = save(
            {
                "keys": np.frombuffer(b"".join(self._unsaved), dtype=np.uint8).reshape(-1, 32),
                "features": np.stack([self._known[key] for key in self._unsaved]),
            }
        )
        chunk = self._folder / f"{self._namespace}-{secrets.token_hex(8)}.safetensors"
        draft = chunk.with_suffix(".tmp")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(chunk)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise _unusable(self._folder, error) from error
        self._unsaved.clear()

    def _read(self, chunk: Path) -> None:
        import numpy as np
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            tensors = load_file(chunk)
            keys, features = tensors["keys"], tensors["features"]
            if keys.dtype != np.uint8 or features.dtype != np.float32:
                raise ValueError("unexpected types")
            if keys.shape != (len(features), 32) or features.shape != (len(keys), self._dimension):
                raise ValueError("unexpected shapes")
            if not np.isfinite(features).all():
                raise ValueError("not finite")
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise InputError(
                "a file of cached embeddings is damaged",
                where=str(chunk),
                remedy="Delete it; its images are embedded anew.",
            ) from error
        for key, row in zip(keys, features, strict=True):
            self._known[key.tobytes()] = row


def _unusable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"the cache of embeddings cannot be used ({error.strerror})",
        where=str(folder),
        remedy="Name a folder that you can write and that has room.",
    )
