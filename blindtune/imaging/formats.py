"""Read one radiograph from an untrusted file, whatever its format, as a grey picture in [0, 1]."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from blindtune.errors import InputError
from blindtune.imaging.quiet import quiet

GreyImage = npt.NDArray[np.float32]
"""A greyscale picture: float32 (height, width) in [0, 1], 1 the brightest."""

Format = Literal["dicom", "png", "jpeg"]

MAX_PIXELS = 100_000_000
"""Declared pixels above which a file is refused before anything is decoded."""

MAX_FILE_BYTES = 1 << 30

_MIN_SIDE = 2
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_REEXPORT = "Export the image again from its source, or leave the file out of the study."


def sniff_format(path: Path) -> Format | None:
    """Name the format of a file from its first bytes; None when it is no format that we read.

    Suffixes are not asked: archives name DICOM files with anything or nothing.

    Raises:
        InputError: the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise InputError(
            f"cannot be opened ({error.strerror})", where=path.name, remedy="Check the path and its rights."
        ) from error
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return None


def read_image(path: str | Path) -> GreyImage:
    """Read a DICOM, PNG or JPEG radiograph.

    Args:
        path: a single-frame DICOM file, an 8 or 16 bit PNG, or a JPEG.

    Returns:
        float32 (height, width) in [0, 1], 1 the brightest. DICOM values went through modality LUT,
        VOI LUT or window and, for MONOCHROME1, inversion; colour became luma.

    Raises:
        InputError: missing, damaged, too large, multi-frame or not an image.
        MissingPackageError: a DICOM compression whose decoder is not installed.
    """
    path = Path(path)
    kind = sniff_format(path)
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise InputError(
            f"file of {size >> 20} MiB, the limit is {MAX_FILE_BYTES >> 20} MiB",
            where=path.name,
            remedy=_REEXPORT,
        )
    if kind == "dicom":
        from blindtune.imaging.dicom import read_dicom

        return read_dicom(path)
    if kind is None:
        what = "the file is empty" if size == 0 else "not a DICOM, PNG or JPEG file"
        raise InputError(what, where=path.name, remedy="Convert it to one of these or leave it out.")
    return _read_with_pillow(path, kind)


def check_declared_size(width: int, height: int, where: str) -> None:
    """Refuse a declared picture size that is degenerate or above ``MAX_PIXELS``.

    Raises:
        InputError: the size is out of bounds.
    """
    if width < _MIN_SIDE or height < _MIN_SIDE or width * height > MAX_PIXELS:
        raise InputError(
            f"declares {width}x{height} pixels; from {_MIN_SIDE}x{_MIN_SIDE} to "
            f"{MAX_PIXELS // 1_000_000} megapixels can be read",
            where=where,
            remedy=_REEXPORT,
        )


def luma(rgb: npt.NDArray[Any], maximum: float) -> GreyImage:
    """Grey (height, width) in [0, 1] from RGB values (height, width, 3) in [0, maximum]."""
    return np.asarray(rgb[..., :3].astype(np.float32) @ _LUMA / np.float32(maximum), dtype=np.float32).clip(
        0.0, 1.0
    )


def _read_with_pillow(path: Path, kind: Format) -> GreyImage:
    from PIL import Image

    try:
        # Pillow only warns between one and two times its own limit; ours, checked below, is the one.
        with quiet(), Image.open(path, formats=(kind.upper(),)) as image:
            check_declared_size(image.width, image.height, path.name)
            if getattr(image, "n_frames", 1) > 1:
                raise InputError(
                    "an animated picture", where=path.name, remedy="Save the one frame that matters."
                )
            return _grey(image)
    except Image.DecompressionBombError as error:
        raise InputError("declares too many pixels", where=path.name, remedy=_REEXPORT) from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        # Pillow reports a damaged PNG as SyntaxError, a truncated one as OSError.
        raise InputError(
            f"damaged or truncated {kind.upper()} ({one_line(error)})", where=path.name, remedy=_REEXPORT
        ) from error


def _grey(image: Any) -> GreyImage:
    """Luma of an opened pillow image at the depth that the file holds; transparency is ignored."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        values = np.asarray(image, dtype=np.float32)
        return (values / np.float32(65535.0)).clip(0.0, 1.0)
    if image.mode == "L":
        return np.asarray(image, dtype=np.float32) / np.float32(255.0)
    return luma(np.asarray(image.convert("RGB")), 255.0)


def one_line(error: BaseException) -> str:
    """The first line of a library's message, short enough for a one-line report."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:120].rstrip(".")
