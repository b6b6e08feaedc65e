"""True and rebuilt images side by side, as one small PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill

import numpy as np
from numpy.typing import NDArray

from blindtune.files import whole_file, writing

_SHOWN, _GAP, _LABEL, _WORDS = 96, 6, 150, 20


def side_by_side(path: Path, rows: Mapping[str, NDArray[np.floating]], most: int = 6) -> None:
    """Write a picture with a labelled row for each set of images; a patient's images stand in one column.

    Args:
        path: a PNG file, replaced whole.
        rows: label to images, shape (n, side, side) in [0, 1]; rows may be of different length.
        most: columns.

    Raises:
        InputError: it cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    columns = min(most, max(map(len, rows.values())))
    step = _SHOWN + _GAP
    canvas = Image.new("L", (_LABEL + columns * step, len(rows) * step + _GAP), 255)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for line, (label, images) in enumerate(rows.items()):
        top = line * step + _GAP
        words = fill(label, _WORDS)
        pen.multiline_text((_GAP, top + _SHOWN / 2), words, fill=0, font=font, anchor="lm")
        for at, image in enumerate(images[:columns]):
            grey = Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))
            canvas.paste(grey.resize((_SHOWN, _SHOWN), Image.Resampling.NEAREST), (_LABEL + at * step, top))
    with writing("the picture", path.name), whole_file(path) as partial:
        # Sixty-four greys make a small file, and are enough to see what was rebuilt.
        canvas.point([v & 252 | v >> 6 for v in range(256)]).save(partial, format="PNG", optimize=True)
