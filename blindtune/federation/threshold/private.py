"""Noise on the counts and moments that hospitals with a joint key sum: what each adds, and what it costs.

The unit is the patient: neighbouring data of a hospital differ by all rows of one patient, added or removed.
One row of each patient, drawn at random, is cut to the plan's reach and enters with its class and moments.

Each hospital adds all of the noise by itself, not a share of it: the others together, with the server, take
what they added off the sum and hold this hospital's part of it. The sum of ``m`` hospitals carries ``√m``
times the noise. It is drawn once and kept, so that nobody gets to average it.

Counts and moments lie on grids of their own, each with noise of its own scale. Together they are one
Gaussian mechanism with the multiplier ``noise``: of ``1 / noise²``, counts have the share ``COUNTS`` and
moments the rest.

Rows themselves are encrypted as they are. What is trained on them is not covered by this account.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from blindtune.errors import FederationError
from blindtune.federation.agreement import HeadModel, Schema
from blindtune.federation.contributions import moments_mechanism, row_moments, whole_part
from blindtune.federation.heads import Cases, Floats
from blindtune.federation.parcel import Parcel
from blindtune.federation.private import noisy_sum
from blindtune.privacy.account import Release, epsilon, noise_for
from blindtune.privacy.ledger import Ledger
from blindtune.privacy.mechanism import Mechanism, sampled

COUNTS = 0.2
"""Share of the budget that the counts of classes take."""

TAIL = 8.0
"""Standard deviations that a hospital's noise never leaves."""


class SumPrivacy(Schema):
    """Gaussian noise on a hospital's part of the sums.

    Attributes:
        noise: standard deviation over the most that a patient adds (noise multiplier), of each hospital.
        delta: at which epsilon is told.
    """

    noise: Annotated[float, Field(ge=0.05, le=1e4)]
    delta: Annotated[float, Field(gt=0, lt=1)]

    @classmethod
    def within(cls, target: float, delta: float) -> SumPrivacy:
        """The least noise for an epsilon.

        Raises:
            PrivacyError: an epsilon or a delta that cannot be.
            MissingPackageError: dp-accounting is not installed.
        """
        return cls(noise=noise_for(target, delta), delta=delta)

    @property
    def release(self) -> Release:
        """What the sums cost the patients of each hospital."""
        return Release(self.noise)

    @property
    def epsilon(self) -> float:
        """What they cost alone, at ``delta``.

        Raises:
            MissingPackageError: dp-accounting is not installed.
        """
        return epsilon([self.release], self.delta)


@dataclass(frozen=True)
class NoisySum:
    """A study's sum of counts and moments under noise.

    Attributes:
        classes: how many.
        members: hospitals.
    """

    model: HeadModel
    classes: int
    privacy: SumPrivacy
    members: int

    @property
    def counts(self) -> Mechanism:
        """Patients of each class: a patient adds one."""
        return Mechanism(self.classes, 1.0, self.privacy.noise / math.sqrt(COUNTS))

    @property
    def moments(self) -> Mechanism:
        """Moments of one row of each patient, relative to the reach."""
        return moments_mechanism(self.model, self.privacy.noise / math.sqrt(1 - COUNTS))

    @property
    def parcel(self) -> Parcel:
        """Counts and moments in steps of their grids."""
        parts = (("images", self.counts), ("moments", self.moments))
        return Parcel(tuple(whole_part(name, found.length, self.members) for name, found in parts))

    def check(self) -> None:
        """Refuse noise and numbers of rows that no sum holds. What rows add to moments is not known yet.

        Raises:
            FederationError: saying what would.
        """
        for part, mechanism, most in zip(
            self.parcel.parts,
            (self.counts, self.moments),
            (self.model.rows * self._one, 0.0),
            strict=True,
        ):
            if most + TAIL * mechanism.scale > part.bound:
                raise FederationError(
                    f"noisy {part.name} of so many rows and hospitals do not fit a sum",
                    where="terms",
                    remedy="Agree on a larger epsilon, fewer rows or fewer hospitals.",
                )

    def needed(self, ledger: Ledger | None) -> Ledger:
        """The ledger of a hospital's patients.

        Raises:
            FederationError: there is none.
        """
        if ledger is None:
            raise FederationError(
                "this study adds noise, which needs this hospital's privacy ledger",
                where="--ledger",
                remedy="Open one with blindtune dp open, and approve the study with --ledger.",
            )
        return ledger

    def charged(self, cases: Cases, ledger: Ledger | None, study: str) -> dict[str, NDArray[np.int64]]:
        """This hospital's part of the sum, its noise in it; the ledger is charged before it is drawn.

        Raises:
            FederationError: no ledger, or moments too large for the sum.
            PrivacyError: the budget does not hold it.
        """
        self.needed(ledger).charge(f"{study}: counts and moments", self.privacy.release)
        rows = sampled(cases.patients, 1.0)
        classes = np.eye(self.classes)[cases.labels[rows]]
        found = {
            "images": noisy_sum(self.counts, [classes]),
            "moments": noisy_sum(self.moments, row_moments(self.model, cases.features[rows])),
        }
        for part in self.parcel.parts:
            # Of what the noise has hidden already: that a hospital refuses tells nothing more.
            if np.abs(found[part.name]).max() > part.bound:
                raise FederationError(
                    f"noisy {part.name} beyond what a sum holds",
                    where="contribute",
                    remedy="Nothing was sent. Agree on a study with a larger reach or fewer rows.",
                )
        return found

    def known(self, totals: Mapping[str, Floats]) -> dict[str, Floats]:
        """The sums in their own units.

        A count below its noise tells no more than that: it becomes the noise's standard deviation, so that no
        class weighs more than is known of it. So do variances, by ``floor``.
        """
        many, moments = math.sqrt(self.members), self.moments
        images = np.maximum(totals["images"] / self._one, many * self.counts.scale / self._one)
        floor = covariance_noise(self.model, many * moments.scale * moments.step, images.sum())
        return {"images": images, "moments": totals["moments"] * moments.step, "floor": floor}

    @property
    def _one(self) -> float:
        """What a patient adds to the count of a class, in steps: clipped and rounded, and so known."""
        return float(self.counts.whole(np.eye(1, self.classes))[0, 0])


def covariance_noise(model: HeadModel, deviation: float, rows: float) -> Floats:
    """The length of what noise on summed moments adds to a covariance, as one value.

    The noise of the products is a symmetric Gaussian matrix, whose eigenvalues end at twice the standard
    deviation off its diagonal times the root of the features (Wigner's semicircle). A direction of which a
    noisy covariance says less may have that much variance. Taken to have it, no whitened direction has more
    than about twice its share, and steps do not diverge.

    Args:
        deviation: of the noise on a sum of moments, as they are relative to the reach.
    """
    off_diagonal = deviation * model.reach**2 / (math.sqrt(2) * rows)
    return np.array([2 * math.sqrt(model.features) * off_diagonal])
