"""Images → features: decoding beside the network, an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from blindtune.errors import InputError
from blindtune.models.backbone import Backbone
from blindtune.models.cache import FeatureCache

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Load = Callable[[Path, int], npt.NDArray[np.float32]]
    Decoded = tuple[bytes, npt.NDArray[np.float32] | None]

__all__ = ["extract"]


def extract(
    backbone: Backbone,
    items: Sequence[Path],
    *,
    load: Load,
    cache: Path | None,
    progress: Callable[[int, int], None] | None = None,
    preparation: str = "centre-crop",
    batch: int = 32,
    save_every: int = 256,
) -> npt.NDArray[np.float32]:
    """Features of image files, in their order.

    Files with equal bytes are embedded once. Threads decode up to two batches ahead of the network.

    Args:
        backbone: from :func:`blindtune.models.load_backbone`.
        items: image files.
        load: (path, size) -> float32 (size, size) in [0, 1]; called from several threads.
        cache: folder of embeddings, see :class:`blindtune.models.cache.FeatureCache`; ``None`` keeps nothing.
        progress: called in this thread with (images done, images in all) after every batch.
        preparation: what ``load`` does, in a word or two; features made under another one are not reused.
        batch: images in one pass of the network.
        save_every: new features held in memory before a chunk of the cache is written. They are also
            written on an error and on Ctrl-C.

    Returns:
        float32 (n, d), d = ``backbone.dimension``.

    Raises:
        InputError: an unreadable file, an image of the wrong shape, features that are not finite, or a
            cache that is damaged or cannot be written; and whatever ``load`` raises.
    """
    import numpy as np

    if batch < 1 or save_every < 1:
        raise InputError("must be at least 1", where="batch, save_every", remedy="Use the defaults.")
    known = FeatureCache(cache, _namespace(backbone, preparation), backbone.dimension)
    keys: list[bytes] = []
    waiting: dict[bytes, tuple[Path, npt.NDArray[np.float32]]] = {}
    try:
        for path, (key, image) in _decoded(items, known, load, backbone.size, ahead=2 * batch):
            keys.append(key)
            if image is not None and key not in known:  # an equal file may have come just before
                waiting.setdefault(key, (path, image))
            if len(waiting) == batch:
                _embed(backbone, waiting, known)
                if known.unsaved >= save_every:
                    known.save()
            if progress and len(keys) % batch == 0:
                progress(len(keys) - len(waiting), len(items))
        _embed(backbone, waiting, known)
    finally:
        known.save()
    if progress:
        progress(len(items), len(items))
    if not keys:
        return np.empty((0, backbone.dimension), dtype=np.float32)
    return np.stack([known[key] for key in keys])


def _namespace(backbone: Backbone, preparation: str) -> str:
    return hashlib.sha256(f"{backbone.fingerprint} {preparation}".encode()).hexdigest()[:16]


def _decoded(
    items: Sequence[Path], known: FeatureCache, load: Load, size: int, *, ahead: int
) -> Iterator[tuple[Path, Decoded]]:
    """Each file with its content hash and, unless its features are known, its image; in order."""

    def work(path: Path) -> Decoded:
        key = _content_hash(path)
        return key, None if key in known else _checked_image(load(path, size), path, size)

    # The network keeps every core busy: few threads, or decoding slows it more than it hides.
    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="decode")
    running: deque[tuple[Path, Future[Decoded]]] = deque()
    rest = iter(items)
    try:
        while True:
            while len(running) < ahead and (path := next(rest, None)) is not None:
                running.append((path, pool.submit(work, path)))
            if not running:
                return
            path, future = running.popleft()
            yield path, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _content_hash(path: Path) -> bytes:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})",
            where=str(path),
            remedy="Check the path and its permissions.",
        ) from error
    return digest.digest()


def _checked_image(image: npt.NDArray[np.float32], path: Path, size: int) -> npt.NDArray[np.float32]:
    import numpy as np

    if image.shape != (size, size) or image.dtype != np.float32:
        raise InputError(
            f"decoded to {image.dtype} {image.shape} instead of float32 ({size}, {size})",
            where=str(path),
            remedy="Prepare images with blindtune.imaging.prepare.",
        )
    return image


def _embed(
    backbone: Backbone, waiting: dict[bytes, tuple[Path, npt.NDArray[np.float32]]], known: FeatureCache
) -> None:
    """Move what is waiting through the network into the cache."""
    import numpy as np

    if not waiting:
        return
    features = backbone.embed(np.stack([image for _, image in waiting.values()]))
    for (key, (path, _)), row in zip(waiting.items(), features, strict=True):
        if not np.isfinite(row).all():
            raise InputError(
                "the backbone's features are not finite", where=str(path), remedy="Leave this image out."
            )
        known.add(key, row)
    waiting.clear()
