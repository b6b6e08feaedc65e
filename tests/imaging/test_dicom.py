"""DICOM: what is shown, what is refused, and that refusals say why."""

from __future__ import annotations

import zlib

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from blindtune.errors import BlindtuneError, InputError, MissingPackageError
from blindtune.imaging import dicom, formats, read_image
from blindtune.imaging.dicom import read_patient_id

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60


def test_without_a_window_the_range_of_the_data_is_shown(save_radiograph):
    image = read_image(save_radiograph(RAMP + 100))
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, RAMP / RAMP.max(), atol=1e-6)


def test_padding_does_not_stretch_the_range(save_radiograph):
    values = RAMP + 300
    values[0, 0] = 0
    image = read_image(save_radiograph(values, PixelPaddingValue=0))
    assert image[0, 0] == 0.0
    assert image[0, 1] == pytest.approx(0.0, abs=1e-6)
    assert image[-1, -1] == 1.0


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_agrees_with_pydicom(save_radiograph, function):
    tags = {
        "WindowCenter": [1500, 200],
        "WindowWidth": [2000, 50],
        "RescaleSlope": 2,
        "RescaleIntercept": -500,
    }
    if function:
        tags["VOILUTFunction"] = function
    path = save_radiograph(RAMP, **tags)
    dataset = pydicom.dcmread(path)
    values = pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset)
    theirs = pydicom.pixels.apply_windowing(values, dataset)
    low, high = -500.0, 4095 * 2 - 500.0
    np.testing.assert_allclose(read_image(path), (theirs - low) / (high - low), atol=1e-5)


def test_monochrome1_is_inverted(save_radiograph):
    window = {"WindowCenter": 2000, "WindowWidth": 3000}
    plain = read_image(save_radiograph(RAMP, **window))
    inverted = read_image(save_radiograph(RAMP, PhotometricInterpretation="MONOCHROME1", **window))
    np.testing.assert_allclose(plain + inverted, 1.0, atol=1e-6)


@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 1, "RescaleIntercept": 0}])
def test_voi_lut_goes_before_the_window(save_radiograph, rescale):
    lut = Dataset()
    lut.LUTDescriptor = [4096, 0, 12]
    lut.LUTData = np.arange(4096)[::-1].astype("<u2").tobytes()
    path = save_radiograph(RAMP, VOILUTSequence=[lut], WindowCenter=5, WindowWidth=4, **rescale)
    np.testing.assert_allclose(read_image(path), (4095 - RAMP) / 4095, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("MR_small_RLE.dcm", (64, 64)),
        ("MR_small_jp2klossless.dcm", (64, 64)),
        ("MR_small_bigendian.dcm", (64, 64)),
        ("MR_small_implicit.dcm", (64, 64)),
        ("SC_rgb_rle.dcm", (100, 100)),
        ("SC_rgb_jpeg_dcmtk.dcm", (100, 100)),
        ("SC_ybr_full_422_uncompressed.dcm", (100, 100)),
        ("examples_palette.dcm", (350, 800)),
        ("image_dfl.dcm", (512, 512)),
        ("JPEG2000.dcm", (1024, 256)),
    ],
)
def test_reads_every_syntax_of_the_base_install(bundled, name, shape):
    image = read_image(bundled(name))
    assert image.shape == shape
    assert image.dtype == np.float32
    assert 0.0 <= image.min() < image.max() <= 1.0


def test_the_same_picture_whatever_the_compression(bundled):
    plain = read_image(bundled("MR_small.dcm"))
    for name in ("MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_bigendian.dcm"):
        np.testing.assert_array_equal(plain, read_image(bundled(name)))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("reportsi.dcm", "without an image .Basic Text SR"),
        ("rtplan.dcm", "without an image"),
        ("waveform_ecg.dcm", "without an image"),
        ("SC_rgb_rle_2frame.dcm", "2 frames"),
        ("examples_ybr_color.dcm", "30 frames"),
        ("MR_truncated.dcm", "damaged or truncated"),
        ("badVR.dcm", "damaged or truncated"),
        ("no_meta.dcm", "not a DICOM, PNG or JPEG"),
        ("JPEG2000-embedded-sequence-delimiter.dcm", "header says"),
    ],
)
def test_refusals_name_file_reason_and_remedy(bundled, name, reason, capfd):
    with pytest.raises(InputError, match=reason) as caught:
        read_image(bundled(name))
    assert caught.value.where == name
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("MR_small_jpeg_ls_lossless.dcm", "libjpeg", r"blindtune\[jpeg\]"),
        ("JPGExtended.dcm", "libjpeg", "pylibjpeg-libjpeg"),
        ("MR_small_jp2klossless.dcm", "openjpeg", "pylibjpeg-openjpeg"),
    ],
)
def test_a_lacking_decoder_is_named(bundled, monkeypatch, name, module, package):
    def lacking(*_: object, **__: object) -> None:
        raise RuntimeError("no plugin")

    monkeypatch.setattr("pydicom.pixels.pixel_array", lacking)
    monkeypatch.setattr(dicom, "find_spec", lambda asked: None if asked == module else object())
    with pytest.raises(MissingPackageError, match=package):
        read_image(bundled(name))


def test_declared_pixels_are_limited_before_decoding(save_radiograph, monkeypatch):
    path = save_radiograph(RAMP, Rows=60000, Columns=60000)
    monkeypatch.setattr("pydicom.pixels.pixel_array", pytest.fail)
    with pytest.raises(InputError, match="60000x60000"):
        read_image(path)


def test_a_compressed_stream_may_not_be_larger_than_its_header(save_radiograph, monkeypatch):
    stream = b"\xff\x4f\xff\x51\x00\x29\x00\x00" + b"".join(
        n.to_bytes(4, "big") for n in (60000, 60000, 0, 0)
    )
    stream += bytes(16) + b"\x00\x01"
    path = save_radiograph(RAMP)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([stream + bytes(64)])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(path)
    monkeypatch.setattr("pydicom.pixels.pixel_array", pytest.fail)
    with pytest.raises(InputError, match="60000x60000x1 but the header says 8x8x1"):
        read_image(path)


def test_a_jpeg_that_is_no_jpeg(save_radiograph):
    path = save_radiograph(RAMP)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xe0" + bytes(60)])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.save_as(path)
    with pytest.raises(InputError, match="damaged"):
        read_image(path)


def test_a_deflate_bomb_is_refused(save_radiograph, monkeypatch):
    path = save_radiograph(RAMP)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    assert read_image(path).shape == (8, 8)
    length = pydicom.filereader.read_file_meta_info(path).FileMetaInformationGroupLength
    head = path.read_bytes()[: 128 + 4 + 12 + length]
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(head + squeeze.compress(bytes(8 << 20)) + squeeze.flush())
    monkeypatch.setattr(dicom, "MAX_FILE_BYTES", 4 << 20)
    with pytest.raises(InputError, match="inflates to more than 4 MiB"):
        read_image(path)


def test_files_above_the_size_limit_are_refused(save_radiograph, monkeypatch):
    monkeypatch.setattr(formats, "MAX_FILE_BYTES", 100)
    with pytest.raises(InputError, match="the limit is"):
        read_image(save_radiograph(RAMP))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(133, 1000), at=st.integers(132, 700), byte=st.integers(0, 255))
def test_damage_gives_a_picture_or_our_error(save_radiograph, cut, at, byte):
    path = save_radiograph(RAMP, WindowCenter=2000, WindowWidth=3000)
    data = bytearray(path.read_bytes()[:cut])
    data[min(at, len(data) - 1)] = byte
    path.write_bytes(data)
    try:
        image = read_image(path)
    except BlindtuneError:
        return
    assert np.isfinite(image).all()
    assert image.ndim == 2


def test_patient_id(save_radiograph):
    assert read_patient_id(save_radiograph(RAMP, PatientID=" A7 ")) == "A7"
    assert read_patient_id(save_radiograph(RAMP, PatientID="")) == ""


def test_real_chest(shared):
    image = read_image(shared("data/dicom/rsna_chest_PA_mono2.dcm"))
    assert image.shape == (1024, 1024)
    # The mediastinum is brighter than the lung beside it.
    assert image[450:550, 480:540].mean() > image[400:500, 300:400].mean() + 0.2


def test_real_leg_bone_is_bright(shared):
    image = read_image(shared("data/dicom/RG3_J2KR.dcm"))
    assert image.shape == (1760, 1760)
    shin, air = image[400:800, 860:900].mean(), image[400:800, 480:520].mean()
    assert shin > 0.5 > air
