"""Write a cohort of synthetic chest radiographs as DICOM, for demos and tests without any download.

Tags, sizes, windows and exposures are drawn from streams that never see the class, so that only
the lungs can tell the classes apart.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from blindtune.errors import InputError
from blindtune.imaging.anatomy import Anatomy, Exposure
from blindtune.imaging.fields import Field
from blindtune.imaging.phantom import Finding, render
from blindtune.imaging.splits import draw_splits

SYNTHETIC_CLASSES: tuple[Finding, ...] = ("clear", "diffuse-pattern", "focal-opacity")
"""The classes, in the order of ``load_cohort``."""

_SHARES = (0.4, 0.3, 0.3)
_LEVELS = 4095  # 12 bits stored in 16


def write_synthetic_cohort(
    directory: str | Path, *, patients: int = 280, seed: int = 0, difficulty: float = 0.5
) -> Path:
    """Write DICOM files and ``labels.csv`` (file,label,patient,split) for invented patients.

    About half of the patients have two or three images, all of one class and in one split
    (70/10/20 of patients). CR and DX, PA and AP, MONOCHROME1 and 2, 12 bit, sides of 256 to 320
    pixels. The same arguments give the same bytes.

    Args:
        directory: made if missing; must hold no labels.csv.
        patients: how many; 280 give about 420 images.
        seed: which cohort.
        difficulty: 0 for findings that are plain to see, 1 for findings close to nothing.

    Returns:
        The path of labels.csv.

    Raises:
        InputError: arguments out of range, or the directory cannot be written or holds a cohort.
    """
    if not 0.0 <= difficulty <= 1.0:
        raise InputError(f"difficulty {difficulty}", where="difficulty", remedy="Give 0 to 1.")
    if patients < 10:
        raise InputError(f"{patients} patients", where="patients", remedy="Give 10 or more.")
    if seed < 0:
        raise InputError(f"seed {seed}", where="seed", remedy="Give 0 or more.")
    directory = Path(directory)
    table = directory / "labels.csv"
    if table.exists():
        raise InputError(
            "the folder holds a labels.csv already", where=str(directory), remedy="Name another folder."
        )
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0]))
    classes = rng.permutation(
        np.repeat(np.arange(3), np.diff(np.rint(np.cumsum((0.0, *_SHARES)) * patients).astype(int)))
    )
    images = rng.choice([1, 2, 3], size=patients, p=[0.6, 0.3, 0.1])
    names = [f"SYN-{seed:04d}-{number:04d}" for number in range(patients)]
    splits = draw_splits(names, classes.astype(np.int64), seed=seed)
    rows = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(names):
            finding = SYNTHETIC_CLASSES[classes[number]]
            for image in range(int(images[number])):
                file = f"{name}_{image + 1}.dcm"
                _write_image(directory / file, name, (seed, number, image), finding, difficulty)
                rows.append((file, finding, name, splits[number]))
        with table.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(("file", "label", "patient", "split"))
            writer.writerows(rows)
    except OSError as error:
        raise InputError(
            f"cannot be written ({error.strerror})", where=str(directory), remedy="Name another folder."
        ) from error
    return table


def draw_severity(rng: np.random.Generator, difficulty: float) -> float:
    """Strength of a finding: a spread whose middle falls as ``difficulty`` in [0, 1] rises."""
    middle = 1.5 - 1.3 * difficulty
    return float(middle * (0.55 + 0.9 * rng.beta(2.0, 2.0)))


def _write_image(
    path: Path, patient: str, key: tuple[int, int, int], finding: Finding, difficulty: float
) -> None:
    seed, number, image = key
    # Three streams: the patient's, the exposure's and the finding's. Only the last one serves the class.
    anatomy = Anatomy.draw(np.random.default_rng([seed, 1, number]))
    take = np.random.default_rng([seed, 2, number, image])
    lesion = np.random.default_rng([seed, 3, number, image])
    portable = bool(take.random() < 0.4)
    shape = (int(take.integers(32, 41)) * 8, int(take.integers(32, 41)) * 8)
    exposure = Exposure.draw(take, portable=portable)
    picture = render(shape, anatomy, exposure, finding, draw_severity(lesion, difficulty), lesion)
    dataset = _header(patient, key, take, portable)
    _store(dataset, picture, take)
    dataset.save_as(path, enforce_file_format=True)


def _header(patient: str, key: tuple[int, int, int], take: np.random.Generator, portable: bool) -> Any:
    """Tags of an invented study; every identifying tag says that it is synthetic."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import (
        ComputedRadiographyImageStorage,
        DigitalXRayImageStorageForPresentation,
        ExplicitVRLittleEndian,
    )

    seed, number, image = key
    digital = not portable and take.random() < 0.7

    def uid(*parts: object) -> str:
        digest = hashlib.sha256(repr(("blindtune synthetic", seed, number, *parts)).encode()).digest()
        return f"2.25.{int.from_bytes(digest[:16], 'big')}"

    dataset = Dataset()
    dataset.SOPClassUID = (
        DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    )
    dataset.SOPInstanceUID = uid("image", image)
    dataset.StudyInstanceUID = uid("study", image)
    dataset.SeriesInstanceUID = uid("series", image)
    dataset.PatientID = patient
    dataset.PatientName = f"Synthetic^{patient}"
    dataset.PatientSex = "O"
    dataset.PatientBirthDate = ""
    dataset.StudyDate = f"20{20 + image:02d}{1 + number % 12:02d}{1 + number % 28:02d}"
    dataset.StudyTime = "120000"
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = str(image + 1)
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    dataset.Modality = "DX" if digital else "CR"
    dataset.Manufacturer = "blindtune synthetic"
    dataset.ManufacturerModelName = "bedside" if portable else "wall stand"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "AP" if portable else "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.BurnedInAnnotation = "NO"
    dataset.ImageComments = "Synthetic picture; no person was imaged."
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _store(dataset: Any, picture: Field, take: np.random.Generator) -> None:
    """Put [0, 1] into 12 of 16 bits around a window that belongs to the exposure, not to the picture."""
    inverted = bool(take.random() < 0.4)
    offset, span = take.uniform(100.0, 400.0), take.uniform(2800.0, 3500.0)
    stored = offset + span * (1.0 - picture if inverted else picture)
    height, width = picture.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.Rows, dataset.Columns = height, width
    dataset.PixelSpacing = [round(350.0 / width, 4)] * 2
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.WindowCenter, dataset.WindowWidth = round(offset + span / 2), round(span)
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    dataset.PixelData = np.rint(stored).clip(0, _LEVELS).astype("<u2").tobytes()
