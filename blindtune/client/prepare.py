"""Before encryption: the head, the whitening, the rehearsal and the plan of a study, all in clear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import InputError, PlanError
from blindtune.imaging import Embeddings
from blindtune.models.builtin import head_for
from blindtune.models.calibration import calibrate
from blindtune.models.grid import split
from blindtune.models.heads import Head
from blindtune.models.linear import assemble
from blindtune.models.rehearsal import Choice, tune
from blindtune.plan import Plan, plan

Floats = NDArray[np.float64]
MOST_DIRECTIONS = 767
FEWEST_ROWS = 10
EPSILONS = (0.01, 0.03, 0.1, 0.3, 1.0)
RATES = (3.0, 6.0)
FOLDS = 5
ENOUGH_ROWS = 10_000
"""Above this, the validation split alone is large enough to choose by."""


@dataclass(frozen=True)
class Prepared:
    """A study that is ready to be encrypted.

    Attributes:
        data: embeddings, labels, splits.
        choice: whitening, head and rehearsal.
        plan: parameters, packing, cost.
        alone: what one setting would take by itself, for a grid of several; else ``plan``.
        outputs: K.
        accuracy: validation accuracy of the same steps in clear, calibrated, of the best setting; None for
            regression.
        converged: that of the converged plaintext head; None for many rows, where it takes minutes.
    """

    data: Embeddings
    choice: Choice
    plan: Plan
    alone: Plan
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
    on_fold: Callable[[int, int], None] = lambda _done, _total: None,
    **planning: Any,
) -> Prepared:
    """Choose by cross-validation on the training and validation splits, rehearse, then plan.

    Args:
        head: without one, the built-in for so many classes. The settings of a
            :func:`~blindtune.models.grid.grid` are encrypted side by side, on one whitening.
        directions, epsilons, rates: what to try; sensible grids without them.
        on_fold: called with folds done and in all.
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
        head = head_for("auto", outputs)
    _refuse_missing_class(data.labels[held], data.classes)
    if rates and len({s.learning_rates for s in head.settings}) > 1:
        raise PlanError("learning rates beside those of a grid", remedy="Name them in the grid only.")
    x = data.features.astype(np.float64)
    choice = tune(
        x,
        data.labels,
        train,
        held,
        folds_of(data),
        head,
        outputs,
        owner,
        directions=directions or default_directions(x.shape[1]),
        epsilons=epsilons or EPSILONS,
        rates=rates or _rates(head),
        on_done=on_fold,
    )
    size = len(train), choice.whitening.columns, outputs
    planned = plan(*size, choice.head, **planning)
    alone = planned if planned.settings == 1 else plan(*size, choice.head.settings[0], **planning)
    accuracy, converged = _compare(choice, (x[train], data.labels[train]), (x[held], data.labels[held]))
    return Prepared(data, choice, planned, alone, outputs, accuracy, converged)


def _rates(head: Head) -> Sequence[float]:
    """Learning rates worth trying in clear: none but its own for a head that has them, or a grid of them."""
    several = len({s.learning_rates for s in head.settings}) > 1
    return head.learning_rates[:1] if head.degree == 1 or several else RATES


def folds_of(data: Embeddings) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows to fit on and to judge on: folds by patient over train and val, the test split untouched.

    A validation split alone is too small to choose by on a few hundred scans; on many it suffices.
    """
    train, held = data.indices("train"), data.indices("val")
    pool = np.concatenate([train, held])
    if len(pool) > ENOUGH_ROWS:
        return [(train, held)]
    _, patient = np.unique(np.array(data.patients)[pool], return_inverse=True)
    order = np.random.default_rng(0).permutation(int(patient.max()) + 1)
    fold = order[patient] % FOLDS
    found = [(pool[fold != f], pool[fold == f]) for f in range(FOLDS)]
    classes = len(data.classes)
    if any(len(np.unique(data.labels[rows])) < classes for pair in found for rows in pair):
        return [(train, held)]
    return found


def outputs_of(classes: Sequence[str]) -> int:
    """Logits of a classifier: one for two classes, else one a class."""
    return 1 if len(classes) == 2 else len(classes)


def default_directions(features: int) -> list[int]:
    """Directions worth trying: with the bias they fill column blocks, but for few features all of them."""
    most = min(features, MOST_DIRECTIONS + 1)
    sizes = [n - 1 for n in (16, 32, 64, 128, 192, 256, 384, 512, 768) if n <= most][-3:]
    # Between two sizes, more directions than the smaller one may be worth their padding.
    return sizes if sizes and sizes[-1] > 0.9 * most else [*sizes, most]


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

    own = max(
        _accuracy(choice, part, held) for part in split(choice.rehearsal.weights, len(choice.head.settings))
    )
    if len(train[0]) > ENOUGH_ROWS:
        return own, None
    reference = converged_softmax(*train, *held, weights=None).logits(held[0])
    return own, accuracy(reference.reshape(len(held[0]), -1), held[1])


def _accuracy(choice: Choice, weights: Floats, held: tuple[Floats, NDArray[Any]]) -> float:
    weight, bias = assemble(choice.whitening, choice.start, weights, *held)
    logits = held[0] @ weight.T + bias
    if choice.start is None:
        logits = calibrate(logits, held[1], choice.head.kind).apply(logits)
    return accuracy(logits, held[1])


def accuracy(logits: Floats, labels: NDArray[Any]) -> float:
    """Share of rows whose predicted class is right; logits (n, K)."""
    called = logits.argmax(axis=1) if logits.shape[1] > 1 else logits[:, 0] > 0
    return float((called == labels).mean())
