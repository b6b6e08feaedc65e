"""The picture size that a compressed stream declares, read without decoding it."""

from __future__ import annotations

_J2K_START = b"\xff\x4f\xff\x51"
_SOF_MARKERS = frozenset(
    {*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7}
)


def declared_size(stream: bytes) -> tuple[int, int, int] | None:
    """(width, height, components) of a JPEG, JPEG-LS or JPEG 2000 stream; None without a header (RLE).

    Args:
        stream: one encapsulated frame.
    """
    if stream.startswith(b"\xff\xd8"):
        return _jpeg_size(stream)
    # A JP2 box wrapper may stand before the codestream, though DICOM forbids it.
    start = stream[:4096].find(_J2K_START)
    return _j2k_size(stream, start) if start >= 0 else None


def _j2k_size(stream: bytes, start: int) -> tuple[int, int, int] | None:
    # SOC, SIZ marker, Lsiz, Rsiz, then Xsiz, Ysiz, XOsiz, YOsiz and four tile sizes of four bytes each,
    # then Csiz of two (T.800 A.5.1).
    fields = stream[start + 8 : start + 42]
    if len(fields) < 34:
        return None
    x1, y1, x0, y0 = (int.from_bytes(fields[i : i + 4], "big") for i in range(0, 16, 4))
    return x1 - x0, y1 - y0, int.from_bytes(fields[32:34], "big")


def _jpeg_size(stream: bytes) -> tuple[int, int, int] | None:
    position = 2
    while position + 9 < len(stream):
        if stream[position] != 0xFF:
            return None
        marker = stream[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _SOF_MARKERS:
            height = int.from_bytes(stream[position + 5 : position + 7], "big")
            width = int.from_bytes(stream[position + 7 : position + 9], "big")
            return width, height, stream[position + 9]
        position += 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
    return None
