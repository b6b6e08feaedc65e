"""A linear head on frozen features: the smallest learner, and the head-only path of federation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import FederationError
from blindtune.federation.agreement import HeadModel, Local
from blindtune.federation.contributions import moments, row_moments
from blindtune.federation.learner import Totals, Values, class_weights, local_batches
from blindtune.models.heads import STEEPEST, Head, one_vs_rest
from blindtune.models.softmax import probabilities
from blindtune.models.whitening import Whitening

Floats = NDArray[np.float64]
VALUES_AT_ONCE = 1 << 18
"""Of gradients in memory together: what is done to them next finds them in the processor's cache."""


@dataclass(frozen=True)
class Cases:
    """Features and labels of a site.

    Args:
        features: shape (n, d).
        labels: class numbers, shape (n,).
        patients: patient numbers, shape (n,); every case is a patient's only one if left out.

    Raises:
        FederationError: shapes that do not fit, or features that are not numbers.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    patients: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        patients = patients_of(self.labels, self.patients)
        object.__setattr__(self, "patients", patients)
        if self.features.ndim != 2 or self.labels.shape != self.features.shape[:1]:
            raise FederationError(
                f"features of shape {self.features.shape} with labels of shape {self.labels.shape}",
                where="site",
                remedy="Give a row of features for each label.",
            )
        if not np.isfinite(self.features).all():
            raise FederationError("features that are not numbers", where="site", remedy="Look at the scans.")


def patients_of(labels: NDArray[np.int64], patients: NDArray[np.int64]) -> NDArray[np.int64]:
    """Patient numbers of cases: their own, or one each.

    Raises:
        FederationError: as many patients as there are not labels.
    """
    found = patients if len(patients) else np.arange(len(labels))
    if found.shape != labels.shape:
        raise FederationError(
            f"patients of shape {found.shape} with labels of shape {labels.shape}", where="site"
        )
    return found


def vote(patients: NDArray[np.int64]) -> Floats:
    """Weight of each case where a patient's cases share one vote, shape (n, 1)."""
    _, where, images = np.unique(patients, return_inverse=True, return_counts=True)
    return np.asarray(1 / images[where][:, None])


class HeadLearner:
    """A linear head: weights (classes, columns) and biases (classes,), one after the other.

    Args:
        model: what the plan says of it.
        training, validation: this site's cases, of the same patients in neither both.
        classes: how many.
        local: what is done between two syncs.
        seed: of the order of batches; from the system's entropy if None.
        cut: length that a patient adds to a full step's gradient at most: rows are cut before anything is
            made of them, and a patient's rows share one vote. None leaves them.

    Attributes:
        training, validation, cut: as given.

    Raises:
        FederationError: features or labels that do not fit the plan.
    """

    def __init__(
        self,
        model: HeadModel,
        training: Cases,
        validation: Cases,
        classes: int,
        local: Local,
        seed: int | None = None,
        cut: float | None = None,
    ) -> None:
        for cases in (training, validation):
            if cases.features.shape[1] != model.features:
                raise FederationError(
                    f"rows of {cases.features.shape[1]} features, the plan has {model.features}",
                    where="site",
                    remedy="Use the plan's backbone.",
                )
            if len(cases.labels) and not 0 <= cases.labels.min() <= cases.labels.max() < classes:
                raise FederationError(
                    "a label that is no class of the plan", where="site", remedy="Compare the class names."
                )
        if len(training.labels) > model.rows:
            raise FederationError(
                f"more training rows than the plan's {model.rows:,}",
                where="site",
                remedy="Agree on a larger number of rows.",
            )
        self.training, self.validation, self.cut = training, validation, cut
        self._model, self._classes, self._local = model, classes, local
        self._random = np.random.default_rng(seed)
        self._polynomial = blind_head(model, local).coefficients if model.blind else None
        self._whitening: Whitening | None = None
        self._x, self._held = (c.features.astype(np.float64) for c in (training, validation))
        self._weights: Floats = np.ones((len(training.labels), classes))

    def summands(self, rows: NDArray[np.int64]) -> Iterator[Floats]:
        """Moments of single rows."""
        return row_moments(self._model, self.training.features[rows])

    def begin(self, totals: Totals) -> None:
        """Whiten by the confederation's moments, and weigh classes by its counts."""
        self._whitening = agreed_whitening(self._model, totals)
        x, held = self.training.features, self.validation.features
        if self._whitening is None:
            self._x, self._held = x.astype(np.float64), held.astype(np.float64)
        else:
            self._x, self._held = (self._whitening.apply(rows)[:, :-1] for rows in (x, held))
        if self._local.class_weights:
            self._weights = self._class_weights(totals["images"])
        if self.cut:
            self._cut(self.cut)

    def train(self, values: Values) -> Values:
        """Local steps of minibatch gradient descent."""
        local, n = self._local, len(self.training.labels)
        found, velocity = values.astype(np.float64), np.zeros(len(values))
        for batch in local_batches(n, local, self._random.permutation):
            apart, x = self._residuals(found, batch), self._x[batch]
            slope = np.concatenate([(apart.T @ x).ravel(), apart.sum(axis=0)]) / len(batch)
            slope += local.decay * found + local.proximal * (found - values)
            velocity = local.momentum * velocity + slope
            found = found - local.rate * velocity
        return found.astype(np.float32)

    def whole_slope(self, values: Values) -> Floats:
        """The sum of all rows' gradients: each patient's part is at most :attr:`cut` long.

        Raises:
            FederationError: logits could leave the polynomial's interval, whatever the rows.
        """
        k = self._classes
        weights = values.astype(np.float64)
        longest = float(
            np.linalg.norm(np.vstack([weights[:-k].reshape(k, -1).T, weights[-k:]]), axis=0).max()
        )
        if longest * self._row_length > self._model.interval:
            raise FederationError(
                f"logits of up to {longest * self._row_length:.1f} could leave the polynomial's interval",
                where="round",
                remedy="Agree on a lower learning rate, fewer rounds or a larger interval.",
            )
        return (weights - self.step(values)) * len(self.training.labels) / self._local.rate

    def step(self, values: Values) -> Floats:
        """Values after one step over all rows, before anything hides what was computed."""
        return self.train(values).astype(np.float64)

    def slopes(self, values: Values, rows: NDArray[np.int64]) -> Iterator[Floats]:
        """Gradients of single rows."""
        together = max(1, VALUES_AT_ONCE // len(values))
        for start in range(0, len(rows), together):
            piece = rows[start : start + together]
            apart = self._residuals(values.astype(np.float64), piece)
            products = apart[:, :, None] * self._x[piece][:, None, :]
            yield np.hstack([products.reshape(len(piece), -1), apart])

    def predict(self, values: Values) -> Floats:
        """Probabilities of the validation cases."""
        return probabilities(self._logits(values.astype(np.float64), self._held))

    def _logits(self, values: Floats, x: Floats) -> Floats:
        k = self._classes
        return np.asarray(x @ values[:-k].reshape(k, -1).T + values[-k:])

    def _residuals(self, values: Floats, rows: NDArray[np.int64]) -> Floats:
        """The loss's derivative by the logits, shape (rows, classes)."""
        logits = self._logits(values, self._x[rows])
        truth = np.eye(self._classes)[self.training.labels[rows]]
        if self._model.loss == "softmax":
            apart = probabilities(logits) - truth
        else:
            apart = self._sigmoid(logits) - (truth - 0.5)
        return np.asarray(apart * self._weights[rows])

    def _sigmoid(self, logits: Floats) -> Floats:
        """The logistic function less a half; in blind rounds the polynomial that stands for it."""
        if self._polynomial is None:
            return 0.5 * np.tanh(logits / 2)
        powers = np.arange(1, self._model.degree + 1, 2)
        return np.asarray((logits[..., None] ** powers) @ self._polynomial)

    def _cut(self, length: float) -> None:
        self._row_length = 0.98 * length / (STEEPEST * np.sqrt(self._classes))
        if self._row_length <= 1:
            raise FederationError(
                f"a clip of {length:g} is too little for {self._classes} classes",
                where="plan",
                remedy=f"Agree on more than {STEEPEST * np.sqrt(self._classes) / 0.98:.2f}.",
            )
        # The bias's one stays.
        longest = np.sqrt(self._row_length**2 - 1)
        self._x = (
            self._x * np.minimum(1, longest / np.maximum(np.linalg.norm(self._x, axis=1), 1e-300))[:, None]
        )
        self._weights = np.repeat(vote(self.training.patients), self._classes, axis=1)

    def _class_weights(self, images: Floats) -> Floats:
        labels = self.training.labels
        if self._model.loss == "softmax":
            return np.repeat(class_weights(images)[labels][:, None], self._classes, axis=1)
        # Every class against the rest, both sides weighing the same.
        share = np.clip(images / images.sum(), 1e-9, 1 - 1e-9)
        return np.asarray(np.where(np.eye(self._classes)[labels] > 0, 0.5 / share, 0.5 / (1 - share)))


def agreed_whitening(model: HeadModel, totals: Totals) -> Whitening | None:
    """The whitening, or centring, that all sites make of the confederation's moments; None if there is none.

    Args:
        totals: with ``moments``, and the rows they are of as ``rows`` (one value); under noise also with
            ``floor``, the least variance of a direction.
    """
    if not model.summed:
        return None
    rows = round(float(totals["rows"][0]))
    if model.centre:
        return Whitening(totals["moments"] * model.reach / rows, np.eye(model.features), 0.0, "study")
    total, second = moments(model, totals["moments"])
    floor = float(totals["floor"][0]) if "floor" in totals else 0.0
    found = Whitening.from_moments(rows, total, second, model.directions, model.epsilon, "study", floor)
    # Directions have no sign of their own: sites with other libraries must not choose another.
    largest = np.abs(found.transform).argmax(axis=0)
    signs = np.sign(found.transform[largest, np.arange(model.directions)])
    return Whitening(found.mean, found.transform * signs, found.epsilon, found.owner)


def blind_head(model: HeadModel, local: Local) -> Head:
    """The head whose single step is a blind round."""
    return one_vs_rest(
        degree=model.degree,
        interval=model.interval,
        learning_rates=(local.rate,),
        balanced=False,
        started=True,
    )
