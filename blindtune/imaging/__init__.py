"""Scans → arrays: DICOM, PNG, JPEG, embeddings; cohorts, patients, splits. No encryption here."""

from blindtune.imaging.arrays import Embeddings, load_embeddings
from blindtune.imaging.cohort import Cohort, list_scans, load_cohort
from blindtune.imaging.formats import GreyImage, read_image
from blindtune.imaging.synthetic import SYNTHETIC_CLASSES, write_synthetic_cohort
from blindtune.imaging.transform import centre_crop, prepare

__all__ = [
    "SYNTHETIC_CLASSES",
    "Cohort",
    "Embeddings",
    "GreyImage",
    "centre_crop",
    "list_scans",
    "load_cohort",
    "load_embeddings",
    "prepare",
    "read_image",
    "write_synthetic_cohort",
]
