"""Choosing on validation patients: temperature and cut-off, never on the patients that test them.

A :class:`Selection` remembers whom it was chosen on, and refuses to be judged on any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from blindtune.errors import InputError

from ._bootstrap import Floats
from .labels import check_apart
from .predictions import Person, Predictions

#: Temperatures beyond this factor mean that the validation set is too small or not the model's.
_WIDEST = 20.0


@dataclass(frozen=True)
class Selection:
    """What was chosen on validation cases.

    Attributes:
        temperature: probabilities become softmax(ln p / temperature); 1 leaves them.
        cutoff: log-odds above which the second of two classes is called, after the temperature.
        rule: how the cut-off was chosen; empty where it was not.
        classes: of the model, in its order.
        n: validation cases.
        people: their patients.
    """

    temperature: float
    cutoff: float
    rule: str
    classes: tuple[str, ...]
    n: int
    people: frozenset[Person] = field(repr=False)

    @property
    def threshold(self) -> float:
        """The cut-off as a probability of the second class."""
        return float(1 / (1 + np.exp(-self.cutoff)))

    def apply(self, test: Predictions) -> Predictions:
        """Test predictions with this temperature and cut-off.

        Raises:
            InputError: a test patient is among those it was chosen on, or the classes are others or in
                another order.
        """
        if test.classes != self.classes:
            raise InputError(
                f"chosen for the classes {', '.join(self.classes)}, used for {', '.join(test.classes)}",
                where="validation",
                remedy="Write validation and test predictions with the same columns.",
            )
        check_apart(test, self.people, "the choice of threshold and calibration")
        return replace(test, probabilities=_tempered(test, self.temperature), cutoff=self.cutoff)

    def to_json(self) -> dict[str, Any]:
        """What was chosen, and on how many; nothing about a single patient."""
        return {
            "temperature": self.temperature,
            "threshold": self.threshold,
            "rule": self.rule,
            "n": self.n,
            "patients": len(self.people),
        }


def select(
    validation: Predictions,
    *,
    temperature: bool = True,
    cutoff: bool = True,
    sensitivity: float | None = None,
) -> Selection:
    """Choose on validation cases.

    Args:
        validation: predictions for patients that are not in the test set.
        temperature: fit one by log loss (Guo et al. 2017, "On Calibration of Modern Neural Networks",
            section 4.2).
        cutoff: of two classes, choose the one of the largest sensitivity + specificity (Youden, 1950); of
            more classes none is chosen.
        sensitivity: choose instead the highest cut-off that reaches this sensitivity, 0 … 1.

    Raises:
        InputError: a class without validation cases, or a sensitivity outside its range or for more than
            two classes.
    """
    binary = len(validation.classes) == 2
    if len(np.unique(validation.labels)) < len(validation.classes):
        raise InputError(
            "a class has no validation case",
            where="validation",
            remedy="Choose on a validation set with every class in it, or do not choose.",
        )
    if sensitivity is not None and not (binary and 0 < sensitivity <= 1):
        raise InputError(
            f"a sensitivity of {sensitivity:g} for {len(validation.classes)} classes",
            where="sensitivity",
            remedy="Give a share above 0 and up to 1, of two classes.",
        )
    chosen = _temperature(validation) if temperature else 1.0
    level, rule = 0.0, ""
    if binary and (cutoff or sensitivity is not None):
        tempered = replace(validation, probabilities=_tempered(validation, chosen))
        level = _cutoff(tempered, sensitivity)
        rule = "largest sensitivity + specificity"
        if sensitivity is not None:
            rule = f"highest with a sensitivity of {100 * sensitivity:g} % or more"
    return Selection(chosen, level, rule, validation.classes, len(validation), frozenset(validation.people))


def _tempered(predictions: Predictions, temperature: float) -> Floats:
    from scipy.special import softmax

    if temperature == 1:
        return predictions.probabilities
    return np.asarray(softmax(predictions.log_probabilities / temperature, axis=1), dtype=np.float64)


def _temperature(validation: Predictions) -> float:
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    logs, rows = validation.log_probabilities, np.arange(len(validation))

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logs / np.exp(log_temperature), axis=1)
        return -float(scaled[rows, validation.labels].mean())

    # The loss has one minimum in 1 / temperature, and so in its logarithm.
    widest = np.log(_WIDEST)
    return float(np.exp(minimize_scalar(loss, bounds=(-widest, widest), method="bounded").x))


def _cutoff(validation: Predictions, sensitivity: float | None) -> float:
    """Halfway between the chosen log-odds, the lowest that is still called, and the next below."""
    from sklearn.metrics import roc_curve

    wrong, right, level = roc_curve(validation.labels, validation.logits, drop_intermediate=False)
    # The first entry calls nothing.
    if sensitivity is None:
        at = 1 + int(np.argmax((right - wrong)[1:]))
    else:
        at = int(np.argmax(right >= sensitivity - 1e-12))
    below = level[at + 1] if at + 1 < len(level) else level[at] - 1
    return float(level[at] + below) / 2
