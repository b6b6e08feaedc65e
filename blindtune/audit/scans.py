"""The scans that an audit attacks, a hospital's or invented ones; half of the patients are the attacker's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import InputError
from blindtune.imaging import SYNTHETIC_CLASSES, Cohort, GreyImage, load_cohort, prepare, read_image

Pixels = NDArray[np.float32]
FEWEST = 8
"""Patients on either side: with fewer, a nearest neighbour means nothing."""

INVENTED = 120
"""Patients that are drawn where no scans are given."""

_DRAWN = (128, 128)


@dataclass(frozen=True, eq=False)
class Scans:
    """Labelled scans.

    Attributes:
        labels: class numbers, shape (n,).
        patients: patient numbers, shape (n,).
        classes: names.
        files: one a scan; none for invented ones.
        source: what they are, in words that tell nothing of a patient.
        picture: a scan's grey picture of any shape, by its row.
    """

    labels: NDArray[np.int64]
    patients: NDArray[np.int64]
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    source: str
    picture: Callable[[int], GreyImage]

    @classmethod
    def of(cls, cohort: Cohort) -> Scans:
        """A hospital's scans."""
        files = cohort.files
        patients = np.unique(np.array(cohort.patients), return_inverse=True)[1].astype(np.int64)
        source = f"{len(files):,} scans of {patients.max() + 1:,} patients"
        return cls(cohort.labels, patients, cohort.classes, files, source, lambda row: read_image(files[row]))

    @classmethod
    def invented(cls, patients: int, seed: int = 0) -> Scans:
        """Drawn chests, two of each patient: one anatomy, two exposures."""
        from blindtune.imaging.anatomy import Anatomy, Exposure
        from blindtune.imaging.phantom import render
        from blindtune.imaging.synthetic import draw_severity

        labels = np.repeat(np.random.default_rng(seed).integers(0, 3, patients), 2)

        def picture(row: int) -> GreyImage:
            patient, take = divmod(row, 2)
            finding = SYNTHETIC_CLASSES[labels[row]]
            rng = np.random.default_rng([seed, 1, patient, take])
            exposure = Exposure.draw(rng, portable=bool(rng.random() < 0.4))
            anatomy = Anatomy.draw(np.random.default_rng([seed, 0, patient]))
            return render(_DRAWN, anatomy, exposure, finding, draw_severity(rng, 0.3), rng)

        source = f"{2 * patients:,} invented scans of {patients:,} invented patients"
        return cls(labels, np.repeat(np.arange(patients), 2), SYNTHETIC_CLASSES, (), source, picture)

    @classmethod
    def read(cls, folder: Path | None, labels: Path | None = None) -> Scans:
        """A folder's scans with their labels, or invented ones without a folder.

        Raises:
            InputError: labels without a folder; see :func:`~blindtune.imaging.load_cohort`.
        """
        if folder is not None:
            return cls.of(load_cohort(folder, labels))
        if labels is not None:
            raise InputError("labels without scans", where=labels.name, remedy="Name the folder of scans.")
        return cls.invented(INVENTED)

    def __len__(self) -> int:
        return len(self.labels)

    def halves(self, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the patients that stand for public images, and of those that are attacked.

        Raises:
            InputError: too few patients.
        """
        names = np.random.default_rng(seed).permutation(np.unique(self.patients))
        if len(names) < 2 * FEWEST:
            raise InputError(
                f"{len(names)} patients",
                where="scans",
                remedy=f"An audit needs {2 * FEWEST} or more; leave the scans out to attack invented ones.",
            )
        public = np.isin(self.patients, names[: len(names) // 2])
        return np.flatnonzero(public), np.flatnonzero(~public)

    def one_each(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first row of each patient among ``rows``: intervals want independent images."""
        return rows[np.sort(np.unique(self.patients[rows], return_index=True)[1])]

    def pixels(
        self, rows: NDArray[np.int64], side: int, progress: Callable[[], None] | None = None
    ) -> Pixels:
        """Squares of some scans, centre cropped, in [0, 1]: shape (len(rows), side, side)."""
        found = np.empty((len(rows), side, side), np.float32)
        for at, row in enumerate(rows):
            found[at] = prepare(self.picture(int(row)), side)
            if progress:
                progress()
        return found
