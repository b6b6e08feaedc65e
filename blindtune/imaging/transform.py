"""Grey pictures of any shape → the square that a backbone takes."""

from __future__ import annotations

import numpy as np

from blindtune.errors import InputError
from blindtune.imaging.formats import GreyImage


def centre_crop(image: GreyImage) -> GreyImage:
    """The central square of side ``min(height, width)``, a view of ``image`` (height, width)."""
    height, width = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def prepare(image: GreyImage, size: int) -> GreyImage:
    """Crop to the central square, then resize (bicubic, antialiased).

    Never squashed: in public X-ray sets the aspect ratio alone tells the classes apart, and a
    squashed picture carries it.

    Args:
        image: float32 (height, width) in [0, 1].
        size: side of the result in pixels.

    Returns:
        float32 (size, size) in [0, 1].

    Raises:
        InputError: not a finite, non-empty 2-D array, or a size below 1.
    """
    from PIL import Image

    if size < 1:
        raise InputError(f"image size {size}", where="size", remedy="Ask for at least 1 pixel.")
    if image.ndim != 2 or image.size == 0 or not np.isfinite(image).all():
        raise InputError(
            f"expected one finite grey picture (height, width), got shape {image.shape}",
            where="image",
            remedy="Read it with blindtune.imaging.read_image.",
        )
    square = np.ascontiguousarray(centre_crop(image), dtype=np.float32)
    if square.shape[0] != size:
        resized = Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC)
        square = np.asarray(resized, dtype=np.float32)
    return square.clip(0.0, 1.0)  # bicubic overshoots at edges
