"""DICOM files → grey pictures as a radiologist's screen shows them, and the patient they belong to.

Nothing in a file is believed before it is checked: declared sizes, compressed sizes and the decoders
that a compression needs are looked at before pixels are decoded.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blindtune.errors import InputError, MissingPackageError
from blindtune.imaging.codestream import declared_size
from blindtune.imaging.formats import MAX_FILE_BYTES, GreyImage, check_declared_size, luma, one_line
from blindtune.imaging.quiet import quiet

_REMEDY = "Export the image again from the archive, or leave the file out of the study."

# By transfer syntax: the module that decodes it and what to install. Uncompressed, deflated and RLE data
# and 8 bit baseline JPEG need nothing beyond the base install.
_OPENJPEG = ("openjpeg", "pip install pylibjpeg pylibjpeg-openjpeg")
_LIBJPEG = ("libjpeg", "pip install 'blindtune[jpeg]' (pylibjpeg-libjpeg, GPL-3.0)")
_DECODER_BY_UID = {
    "1.2.840.10008.1.2.4.51": _LIBJPEG,  # JPEG Extended, 12 bit
    "1.2.840.10008.1.2.4.57": _LIBJPEG,  # JPEG Lossless
    "1.2.840.10008.1.2.4.70": _LIBJPEG,  # JPEG Lossless SV1
    "1.2.840.10008.1.2.4.80": _LIBJPEG,  # JPEG-LS
    "1.2.840.10008.1.2.4.81": _LIBJPEG,
    "1.2.840.10008.1.2.4.90": _OPENJPEG,  # JPEG 2000
    "1.2.840.10008.1.2.4.91": _OPENJPEG,
    "1.2.840.10008.1.2.4.201": _OPENJPEG,  # HTJ2K
    "1.2.840.10008.1.2.4.202": _OPENJPEG,
    "1.2.840.10008.1.2.4.203": _OPENJPEG,
}
_DEFLATED_UID = "1.2.840.10008.1.2.1.99"


def read_dicom(path: Path) -> GreyImage:
    """Read a single-frame DICOM image.

    Modality LUT or rescale, then VOI LUT, else window (the first one), else the range of the data
    without padding; MONOCHROME1 is inverted; colour becomes luma.

    Returns:
        float32 (height, width) in [0, 1], 1 the brightest.

    Raises:
        InputError: damaged, too large, multi-frame, or an object without an image.
        MissingPackageError: the decoder for its compression is not installed.
    """
    where = path.name
    with _pydicom_errors(where):
        _refuse_deflate_bomb(path)
        from pydicom import dcmread

        dataset = dcmread(path)
        _check_is_one_image(dataset, where)
        _check_compressed_frame(dataset, where)
        return _displayed(dataset, _decode(dataset, where), where)


def read_patient_id(path: Path) -> str:
    """The PatientID of a DICOM file, stripped; "" where it is absent or empty.

    Raises:
        InputError: not a readable DICOM file.
    """
    with _pydicom_errors(path.name):
        _refuse_deflate_bomb(path)
        from pydicom import dcmread

        dataset = dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
        return str(dataset.get("PatientID") or "").strip()


@contextmanager
def _pydicom_errors(where: str) -> Iterator[None]:
    """Keep pydicom's warnings off the terminal and turn its many exceptions into one.

    A hostile file can raise nearly anything inside a parser (KeyError, struct.error, RecursionError,
    a codec's own types), so everything but our own errors becomes InputError here.
    """
    try:
        with quiet():
            yield
    except (InputError, MissingPackageError):
        raise
    except Exception as error:
        raise InputError(
            f"damaged or truncated DICOM ({one_line(error)})", where=where, remedy=_REMEDY
        ) from error


def _refuse_deflate_bomb(path: Path) -> None:
    """Bound what a deflated dataset grows to: pydicom inflates it whole before parsing."""
    from pydicom.filereader import read_file_meta_info

    meta = read_file_meta_info(path)
    if str(meta.get("TransferSyntaxUID", "")) != _DEFLATED_UID:
        return
    with path.open("rb") as file:
        file.seek(128 + 4 + 12 + int(meta.FileMetaInformationGroupLength))
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        left = MAX_FILE_BYTES
        pending = b""
        while left > 0 and not inflate.eof:
            pending = pending or file.read(1 << 16)
            if not pending:
                return
            left -= len(inflate.decompress(pending, 1 << 20))
            pending = inflate.unconsumed_tail
    if left <= 0:
        raise InputError(f"inflates to more than {MAX_FILE_BYTES >> 20} MiB", where=path.name, remedy=_REMEDY)


def _check_is_one_image(dataset: Any, where: str) -> None:
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        kind = getattr(dataset.get("SOPClassUID"), "name", "") or dataset.get("Modality") or "unknown kind"
        raise InputError(f"DICOM without an image ({kind})", where=where, remedy="Leave it out of the study.")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise InputError(
            f"{frames} frames; only single-frame images can be read",
            where=where,
            remedy="Export the frame that matters as an image of its own.",
        )
    check_declared_size(int(dataset.Columns), int(dataset.Rows), where)


def _check_compressed_frame(dataset: Any, where: str) -> None:
    """The decoder allocates what the compressed stream declares, which need not be what the header says."""
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    from pydicom.encaps import get_frame

    size = declared_size(get_frame(dataset.PixelData, 0, number_of_frames=1))
    if size is None:
        return
    header = (int(dataset.Columns), int(dataset.Rows), int(dataset.SamplesPerPixel))
    if size != header:
        raise InputError(
            f"compressed picture is {'x'.join(map(str, size))} but the header says "
            f"{'x'.join(map(str, header))}",
            where=where,
            remedy=_REMEDY,
        )


def _decode(dataset: Any, where: str) -> npt.NDArray[Any]:
    """Stored values (height, width) or RGB (height, width, 3); never another shape."""
    from pydicom.pixels import get_decoder, pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    module, install = _DECODER_BY_UID.get(str(syntax), ("", ""))
    try:
        if syntax.is_encapsulated and not get_decoder(syntax).is_available:
            raise RuntimeError("no decoder")
        values: npt.NDArray[Any] = pixel_array(dataset, index=0)
    except Exception as error:
        if module and find_spec(module) is None:
            raise MissingPackageError(
                f"compressed as {syntax.name}, which needs pylibjpeg-{module}",
                where=where,
                remedy=f"Install it: {install}.",
            ) from error
        raise
    if values.ndim not in (2, 3) or values.shape[2:] not in ((), (3,)):
        raise InputError(
            f"pixel array of shape {values.shape}, expected one grey or RGB picture",
            where=where,
            remedy=_REMEDY,
        )
    return values


def _displayed(dataset: Any, stored: npt.NDArray[Any], where: str) -> GreyImage:
    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        coloured = apply_color_lut(stored, dataset)
        return luma(coloured, float(np.iinfo(coloured.dtype).max))
    if stored.ndim == 3:
        return luma(stored, float(2 ** int(dataset.BitsStored) - 1))
    from pydicom.pixels import apply_modality_lut, apply_voi

    values = apply_modality_lut(stored, dataset)
    if not np.isfinite(values).all():
        raise InputError("NaN or infinite pixels", where=where, remedy=_REMEDY)
    if dataset.get("VOILUTSequence"):
        # A rescale, even by 1, gives floats; a table is looked up by whole numbers.
        whole = np.rint(values).astype(np.int64)
        entries = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        grey = np.asarray(apply_voi(whole, dataset), dtype=np.float32) / np.float32(2**entries - 1)
    else:
        grey = _windowed(dataset, values.astype(np.float32), stored)
    grey = grey.clip(0.0, 1.0)
    return np.float32(1.0) - grey if photometric == "MONOCHROME1" else grey


def _windowed(dataset: Any, values: GreyImage, stored: npt.NDArray[Any]) -> GreyImage:
    """PS3.3 C.11.2.1.2 straight to [0, 1]; without a window, the range of the unpadded values."""
    center, width = (_first(dataset.get(tag)) for tag in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if center is not None and width is not None and width > (1.0 if function == "LINEAR" else 0.0):
        if function == "SIGMOID":
            return np.asarray(1.0 / (1.0 + np.exp(-4.0 * (values - center) / width)), dtype=np.float32)
        if function == "LINEAR_EXACT":
            return np.asarray((values - center) / width + 0.5, dtype=np.float32)
        return np.asarray((values - (center - 0.5)) / (width - 1.0) + 0.5, dtype=np.float32)
    padding = dataset.get("PixelPaddingValue")
    shown = values if padding is None else values[stored != int(padding)]
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 0.0)
    return (values - np.float32(low)) / np.float32(max(high - low, 1e-12))


def _first(value: Any) -> float | None:
    """The first of a multi-valued decimal, None where absent, empty or not finite."""
    if value is None or value == "":
        return None
    if not isinstance(value, (str, int, float)) and hasattr(value, "__len__"):
        if len(value) == 0:
            return None
        value = value[0]
    number = float(value)
    return number if np.isfinite(number) else None
