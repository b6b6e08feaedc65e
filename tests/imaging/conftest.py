"""Small files of every kind, made on the spot, and the shared data where it is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture
def bundled() -> Callable[[str], Path]:
    """A test file inside the pydicom wheel; nothing is downloaded."""

    def find(name: str) -> Path:
        path = BUNDLED / name
        if not path.is_file():
            pytest.skip(f"this pydicom does not ship {name}")
        return path

    return find


@pytest.fixture
def shared() -> Callable[[str], Path]:
    root = Path(os.environ.get("BLINDTUNE_SHARED", Path(__file__).parents[2].parent / "shared"))

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"shared data absent: {name}")
        return path

    return find


def radiograph(values: np.ndarray, **tags: object) -> Dataset:
    """A CR image of unsigned 16 bit values (height, width), 12 bits stored, without a window."""
    dataset = Dataset()
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.PatientID = "P1"
    dataset.Modality = "CR"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = values.astype("<u2").tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


@pytest.fixture
def save_radiograph(tmp_path: Path) -> Callable[..., Path]:
    def save(values: np.ndarray, name: str = "scan.dcm", **tags: object) -> Path:
        path = tmp_path / name
        radiograph(values, **tags).save_as(path, enforce_file_format=True)
        return path

    return save
