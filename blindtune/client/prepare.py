"""Before encryption: the head, the whitening, the rehearsal and the plan of a study, all in clear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import InputError
from blindtune.imaging import Embeddings
from blindtune.models.calibration import calibrate
from blindtune.models.heads import Head, head_for
from blindtune.models.rehearsal import Choice, tune
from blindtune.plan import Plan, plan

Floats = NDArray[np.float64]
MOST_DIRECTIONS = 767
FEWEST_ROWS = 10


@dataclass(frozen=True)
class Prepared:
    """A study that is ready to be encrypted.

    Attributes:
        data: embeddings, labels, splits.
        choice: whitening, head and rehearsal.
        plan: parameters, packing, cost.
        outputs: K.
        accuracy: validation accuracy of the same steps in clear, calibrated; None for regression.
        converged: that of the converged plaintext head.
    """

    data: Embeddings
    choice: Choice
    plan: Plan
    outputs: int
    accuracy: float | None
    converged: float | None


def prepare(
    data: Embeddings,
    *,
    head: Head | None = None,
    directions: Sequence[int] | None = None,
    epsilons: Sequence[float] | None = None,
    rates: Sequence[float] | None = None,
    owner: str = "hospital",
    **planning: Any,
) -> Prepared:
    """Choose and rehearse on the training and validation splits, then plan.

    Args:
        head: without one, logistic for two classes, one-vs-rest for more.
        directions, epsilons, rates: what to try; sensible grids without them.
        planning: further arguments of :func:`blindtune.plan.plan`.

    Raises:
        InputError: too few rows, or labels that do not fit the head.
        PlanError: the rehearsal leaves the interval, or nothing fits.
    """
    train, held = data.indices("train"), data.indices("val")
    if len(train) < FEWEST_ROWS or len(held) < 2:
        raise InputError(
            f"{len(train)} training and {len(held)} validation rows",
            remedy=f"Give at least {FEWEST_ROWS} training and 2 validation rows.",
        )
    outputs = outputs_of(data.classes)
    if head is None:
        head = head_for("logistic", outputs)
    x, held_x = (data.features[rows].astype(np.float64) for rows in (train, held))
    labels, held_labels = data.labels[train], data.labels[held]
    _refuse_missing_class(held_labels, data.classes)
    options: dict[str, Any] = {"directions": directions or default_directions(x.shape[1])}
    if epsilons:
        options["epsilons"] = epsilons
    if rates or head.name == "ridge":
        options["rates"] = rates or (0.9,)
    choice = tune((x, labels), (held_x, held_labels), head, outputs, owner, **options)
    planned = plan(len(train), choice.whitening.columns, outputs, choice.head, **planning)
    accuracy, converged = _compare(choice, (x, labels), (held_x, held_labels))
    return Prepared(data, choice, planned, outputs, accuracy, converged)


def outputs_of(classes: Sequence[str]) -> int:
    """Logits of a classifier: one for two classes, else one a class."""
    return 1 if len(classes) == 2 else len(classes)


def default_directions(features: int) -> list[int]:
    """Directions worth trying: with the bias they fill column blocks."""
    most = min(features, MOST_DIRECTIONS + 1)
    sizes = [n for n in (16, 32, 64, 96, 128, 192, 256, 384, 512, 768) if n <= most]
    return [n - 1 for n in sizes[-4:]] or [min(features, most)]


def _refuse_missing_class(labels: NDArray[Any], classes: tuple[str, ...]) -> None:
    missing = len(classes) - len(np.unique(labels))
    if missing:
        raise InputError(
            f"{missing} of {len(classes)} classes have no validation row",
            remedy="Give a split in the labels with every class in train, val and test.",
        )


def _compare(
    choice: Choice, train: tuple[Floats, NDArray[Any]], held: tuple[Floats, NDArray[Any]]
) -> tuple[float | None, float | None]:
    """Validation accuracy of the rehearsed head and of the converged plaintext head."""
    if choice.head.kind not in ("binary", "multiclass"):
        return None, None
    from blindtune.report import converged_softmax

    logits = choice.whitening.apply(held[0]) @ choice.rehearsal.weights
    logits = calibrate(logits, held[1], choice.head.kind).apply(logits)
    reference = converged_softmax(*train, *held, weights=None).logits(held[0])
    return accuracy(logits, held[1]), accuracy(reference.reshape(len(held[0]), -1), held[1])


def accuracy(logits: Floats, labels: NDArray[Any]) -> float:
    """Share of rows whose predicted class is right; logits (n, K)."""
    called = logits.argmax(axis=1) if logits.shape[1] > 1 else logits[:, 0] > 0
    return float((called == labels).mean())
