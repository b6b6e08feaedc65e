"""PNG and JPEG, and what is neither."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from blindtune.errors import InputError
from blindtune.imaging import read_image
from blindtune.imaging.formats import sniff_format

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_png_of_8_bit(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), RAMP / 255, atol=1e-7)


def test_png_of_16_bit_keeps_its_depth(tmp_path):
    deep = RAMP.astype(np.uint16) * 257
    deep[0, 1] += 1
    Image.fromarray(deep).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), deep / 65535, atol=1e-7)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "LA", "CMYK"])
def test_other_modes_become_luma(tmp_path, mode):
    grey = np.where(RAMP > 127, 255, 0).astype(np.uint8)
    name = "a.jpg" if mode == "CMYK" else "a.png"
    Image.fromarray(grey).convert("RGB" if mode in ("P", "CMYK") else "L").convert(mode).save(tmp_path / name)
    np.testing.assert_allclose(read_image(str(tmp_path / name)), grey / 255, atol=0.03)


def test_luma_weights(tmp_path):
    Image.fromarray(np.full((4, 4, 3), (255, 0, 0), dtype=np.uint8)).save(tmp_path / "red.png")
    assert read_image(tmp_path / "red.png").mean() == pytest.approx(0.299, abs=1e-4)


def test_jpeg_whatever_its_suffix(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.bin", format="JPEG")
    assert sniff_format(tmp_path / "a.bin") == "jpeg"
    assert read_image(tmp_path / "a.bin").shape == (16, 16)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged or truncated") as caught:
        read_image(path)
    assert caught.value.where == path.name


def test_pixel_bomb(tmp_path):
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    data = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    idat = b"IDAT" + zlib.compress(bytes(100))
    data += struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(InputError, match="pixels"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty"), (b"GIF89a" + bytes(99), "not a DICOM"), (b"hello", "not a DICOM")]
)
def test_other_files(tmp_path, content, reason):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_image(tmp_path / "x")


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(InputError, match="cannot be opened"):
            read_image(path)


def test_one_pixel_is_no_picture(tmp_path):
    Image.fromarray(RAMP[:1, :1]).save(tmp_path / "dot.png")
    with pytest.raises(InputError, match="declares 1x1"):
        read_image(tmp_path / "dot.png")
