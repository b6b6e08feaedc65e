"""A hospital's rows in a study with a joint key: whitened as all agreed, encrypted; and the opened head.

Class weights and the scale of steps follow from the pooled counts, so the program over all hospitals' row
blocks is the program over their pooled rows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from blindtune.client.encoding import Scaling, encode
from blindtune.errors import FederationError, InputError
from blindtune.federation.agreement import Local
from blindtune.federation.contributions import moment_count, row_moments
from blindtune.federation.heads import Cases, Floats, HeadLearner, agreed_whitening, vote
from blindtune.federation.parcel import Parcel, Part
from blindtune.federation.threshold.party import Party
from blindtune.federation.threshold.private import NoisySum
from blindtune.federation.threshold.sums import MaskedSum
from blindtune.federation.threshold.terms import Task, Terms
from blindtune.federation.threshold.transcript import Transcript
from blindtune.models.heads import Encoded
from blindtune.privacy.ledger import Ledger
from blindtune.wire.bundle import write_bundle
from blindtune.wire.manifest import LayoutModel, Manifest, layout_model


class JointRows(HeadLearner):
    """One hospital's training rows.

    Args:
        party: the hospital, its keys made.
        training: its cases.

    Raises:
        FederationError: terms without a task, or rows that do not fit it.
    """

    def __init__(self, party: Party, training: Cases) -> None:
        self._task, self._party = task_of(party.terms), party
        local = Local(rate=self._task.rates[0], class_weights=self._task.balanced)
        classes = len(self._task.classes)
        super().__init__(self._task.model, training, training, classes, local)
        self._sum = rows_sum(party)

    @property
    def sum(self) -> MaskedSum:
        """The sum that all hospitals' whitening follows from."""
        return self._sum

    def contribute(self, ledger: Ledger | None = None) -> None:
        """Add this hospital's counts and moments, under its noise where the task has any.

        Args:
            ledger: of this hospital's patients; charged before noise is drawn.

        Raises:
            FederationError: noise without a ledger, or sums that do not fit. Nothing is sent.
            PrivacyError: noise that the patients' budget does not hold. Nothing is sent.
        """
        self._sum.add(lambda: self._summands(ledger))

    def _summands(self, ledger: Ledger | None) -> dict[str, ArrayLike]:
        task, terms, training = self._task, self._party.terms, self.training
        if noisy := noisy_of(terms):
            return dict(noisy.charged(training, ledger, terms.study))
        counts = np.bincount(training.labels, minlength=len(task.classes))
        moments = sum(part.sum(axis=0) for part in row_moments(task.model, training.features))
        return {"images": counts, "moments": moments}

    def write(self, target: Path) -> Manifest:
        """Encrypt the rows under the joint key into a data bundle, which may leave the hospital.

        Raises:
            FederationError: someone has not contributed yet, or nobody has a training row of a class.
        """
        totals = pooled(self._party)
        self._check_classes(totals["images"])
        self.begin(totals)
        head, terms = self._task.head, self._party.terms
        labels = np.eye(len(self._task.classes))[self.training.labels] - 0.5
        # Noisy counts are of patients, and the steps' scale follows from them.
        weights = self._weights * vote(self.training.patients) if self._task.privacy else self._weights
        encoded = Encoded(weights * labels, weights * head.coefficients[:, None, None])
        features = np.hstack([self._x, np.ones((len(self._x), 1))])
        blocks = -(-len(features) // terms.checked_layout.rows)
        layout = replace(terms.checked_layout, row_blocks=max(1, blocks))
        scaling = scaling_of(self._task, int(totals["rows"][0]))
        encrypt = self._party.public_key.encrypt
        parts = (
            (name, [encrypt(v) for v in vectors])
            for name, vectors in encode(features, encoded, head, layout, scaling)
        )
        manifest = manifest_of(terms, "data", self._party.name, layout_model(layout))
        return write_bundle(target, manifest, parts)

    def raw(self, head: Floats) -> tuple[Floats, Floats]:
        """See :func:`raw`."""
        return raw(self._party, head)

    def _check_classes(self, images: Floats) -> None:
        """A hospital may lack a class, all of them together may not."""
        missing = [name for name, count in zip(self._task.classes, images, strict=True) if count <= 0]
        if missing:
            raise FederationError(
                f"no hospital has a training row of {', '.join(missing)}",
                where="rows",
                remedy="Begin a new study without it: blindtune study refuse ends this one for all.",
            )


def rows_sum(party: Party) -> MaskedSum:
    """The sum of all hospitals' counts and moments.

    Raises:
        FederationError: terms without a task.
    """
    return MaskedSum(party, "rows", rows_parcel(party.terms))


def afford(party: Party, ledger: Ledger | None) -> None:
    """Refuse to begin where the sum's noise could not be paid for; nothing is charged yet.

    Raises:
        FederationError: noise without a ledger.
        PrivacyError: noise that the patients' budget does not hold.
    """
    noisy = noisy_of(party.terms)
    if noisy and not rows_sum(party).added:
        noisy.needed(ledger).afford(noisy.privacy.release)


def noisy_of(terms: Terms) -> NoisySum | None:
    """The sum under noise; None where the hospitals sum exactly."""
    return terms.task.noisy_sum(len(terms.members)) if terms.task else None


def pooled(party: Party) -> dict[str, Floats]:
    """Counts of each class, moments, and the number of rows, over all hospitals; of patients under noise.

    Raises:
        FederationError: someone has not contributed yet.
    """
    totals = rows_sum(party).total()
    if noisy := noisy_of(party.terms):
        totals = noisy.known(totals)
    return {**totals, "rows": np.array([totals["images"].sum()])}


def raw(party: Party, head: Floats) -> tuple[Floats, Floats]:
    """An opened head (columns, lanes) on raw features: weights (classes, features), biases (classes,)."""
    task, totals = task_of(party.terms), pooled(party)
    whitening = agreed_whitening(task.model, totals)
    if whitening is None:
        raise InputError("a task without whitening")
    scaling = scaling_of(task, int(totals["rows"][0]))
    weights = head[: whitening.columns, : len(task.classes)] * scaling.weight_factor
    return whitening.fold(weights)


def scaling_of(task: Task, rows: int) -> Scaling:
    """How numbers are scaled with so many rows of all hospitals."""
    return Scaling.balanced(task.model.interval, task.rates[0], rows)


def rows_parcel(terms: Terms) -> Parcel:
    """What the hospitals sum: cases of each class, and moments of their features.

    Raises:
        FederationError: terms without a task.
    """
    task = task_of(terms)
    if noisy := noisy_of(terms):
        return noisy.parcel
    images = Part("images", len(task.classes), count=True)
    return Parcel((images, Part("moments", moment_count(task.model), float(task.model.rows))))


def write_keys(transcript: Transcript, target: Path) -> Manifest:
    """The bundle of joint evaluation keys, from public messages: for whoever trains."""
    relinearisation, galois = transcript.evaluation_keys()
    terms = transcript.terms
    manifest = manifest_of(terms, "keys", terms.roster.names[0], terms.layout)
    parts = [("relinearisation", [relinearisation]), ("galois", list(galois.values()))]
    return write_bundle(target, manifest, parts)


def manifest_of(terms: Terms, kind: Literal["keys", "data"], member: str, layout: LayoutModel) -> Manifest:
    """A manifest without parts; a joint key's identifier is the beginning of the terms' digest."""
    return Manifest(
        kind=kind,
        study=terms.study,
        members=list(terms.roster.names),
        member=member,
        key=terms.digest.hex()[:32],
        parameters=terms.parameters,
        layout=layout,
        program=terms.program,
        parts=[],
    )


def task_of(terms: Terms) -> Task:
    """The terms' task.

    Raises:
        FederationError: they have none.
    """
    if terms.task is None:
        raise FederationError("these terms do not say what is trained", where="terms")
    return terms.task
