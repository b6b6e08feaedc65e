"""The rehearsal: the steps that the server will take, and refusals before a byte is encrypted."""

from __future__ import annotations

import numpy as np
import pytest

from blindtune.client.encoding import Scaling, encode
from blindtune.errors import PlanError
from blindtune.he.clear import ClearEngine
from blindtune.kernels.executor import SerialExecutor
from blindtune.kernels.layout import Layout
from blindtune.kernels.packing import unpack_weights
from blindtune.kernels.training import Trainer, train
from blindtune.models.heads import Head, logistic, one_vs_rest, ridge
from blindtune.models.rehearsal import Rehearsal, refuse_outside, rehearse, tune
from blindtune.models.whitening import Whitening
from blindtune.params import ParametersLiteral


def cohort(seed: int, rows: int = 300, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    centres = np.random.default_rng(7).normal(size=(classes, 10))
    return centres[labels] + rng.normal(size=(rows, 10)), labels


def slowly(x: np.ndarray, y: np.ndarray, s: np.ndarray, head: Head) -> np.ndarray:
    """The update of the documentation, row by row."""
    w = np.zeros((x.shape[1], y.shape[1]))
    for rate in head.learning_rates:
        gradient = np.zeros_like(w)
        for row in range(len(x)):
            z = x[row] @ w
            p = sum(c * z ** (2 * k + 1) for k, c in enumerate(head.coefficients))
            gradient += np.outer(x[row], s[row] * (y[row] - p))
        w = max(0.0, 1 - rate * head.decay) * w + rate / len(x) * gradient
    return w


@pytest.mark.parametrize(
    ("head", "classes"),
    [
        (logistic(learning_rates=(4.0, 3.0, 4.0), decay=0.02), 2),
        (one_vs_rest(degree=3, interval=6.0, learning_rates=(2.0, 2.0)), 3),
        (ridge("multiclass"), 3),
    ],
)
def test_rehearsal_is_the_documented_update_and_the_engines(head: Head, classes: int) -> None:
    features, labels = cohort(0, classes=classes)
    outputs = 1 if classes == 2 else classes
    x = Whitening.fit(features, 7, 0.05, "north").apply(features)
    y, s = head.encode(labels, outputs)
    done = rehearse(x, y, s, head)
    np.testing.assert_allclose(done.weights, slowly(x, y, s, head), atol=1e-9)
    assert len(done.largest) == head.steps
    assert done.largest[0] == 0

    p = ParametersLiteral(1024, 11, 50, 58, 58, security=0).checked()
    layout = Layout(512, 4, (4,), 2, 3, 1)
    engine = ClearEngine(p, layout.keys())
    scaling = Scaling(head.interval, head.learning_rates[0], len(x))
    data, residuals = {}, {}
    for name, vectors in encode(x, y, s, head, layout, scaling):
        kind, *numbers = name.split("-")
        found = [engine.encrypt(v) for v in vectors]
        if kind == "data":
            i, j = map(int, numbers)
            data.update({(i, j, k // layout.baby, k % layout.baby): c for k, c in enumerate(found)})
        else:
            residuals[tuple(map(int, numbers))] = found
    trained = train(SerialExecutor(Trainer(engine, layout, data, residuals)), layout, head.program, p.levels)
    slots = [engine.decrypt(c) for c in trained[0]]
    head_slots = unpack_weights(slots, layout)[: x.shape[1], :outputs]
    # The engine trains scaled weights: the rehearsal's, up to one public factor.
    factor = (head_slots * done.weights).sum() / (done.weights**2).sum()
    np.testing.assert_allclose(head_slots / factor, done.weights, atol=1e-5)


def test_logits_that_leave_the_interval_are_refused() -> None:
    features, labels = cohort(1)
    head = logistic(interval=1.0, learning_rates=(4.0, 4.0, 4.0))
    x = Whitening.fit(features, 9, 0.01, "north").apply(features)
    done = rehearse(x, *head.encode(labels, 1), head)
    assert not done.inside(head)
    with pytest.raises(PlanError, match=r"step 2: the largest .* fitted up to 1\. Lower the learning rate"):
        refuse_outside(done, head)
    wide = logistic(interval=12.0, learning_rates=(2.0, 2.0))
    fine = rehearse(x, *wide.encode(labels, 1), wide)
    assert fine.inside(wide)
    refuse_outside(fine, wide)


@pytest.mark.parametrize("head", [logistic(learning_rates=(900.0,) * 6), ridge(learning_rates=(900.0,) * 6)])
def test_divergence_is_refused_whatever_the_degree(head: Head) -> None:
    features, labels = cohort(2)
    x = Whitening.fit(features, 9, 0.01, "north").apply(features)
    done = rehearse(x, *head.encode(labels, 1), head)
    assert np.isfinite(done.weights).all()
    assert not done.inside(head)
    with pytest.raises(PlanError, match="rehearsal"):
        refuse_outside(done, head)


def test_degree_one_has_no_interval_to_leave() -> None:
    assert Rehearsal(np.zeros((2, 1)), (0.0, 99.0)).inside(ridge())
    assert not Rehearsal(np.zeros((2, 1)), (0.0, 12.1)).inside(logistic())


@pytest.mark.parametrize("classes", [2, 3])
def test_tuning_chooses_the_best_that_stays_inside(classes: int) -> None:
    outputs = 1 if classes == 2 else classes
    head = logistic() if classes == 2 else one_vs_rest()
    train_set, held = cohort(3, classes=classes), cohort(4, classes=classes)
    options = {"directions": (3, 9), "epsilons": (0.01, 0.1), "rates": (1.0, 4.0, 500.0)}
    best = tune(train_set, held, head, outputs, "north", **options)
    assert best.rehearsal.inside(best.head)
    assert best.head.learning_rates[0] in (1.0, 4.0)
    assert best.whitening.owner == "north"
    for k in options["directions"]:
        for epsilon in options["epsilons"]:
            for rate in (1.0, 4.0):
                one = {"directions": (int(k),), "epsilons": (epsilon,), "rates": (rate,)}
                assert tune(train_set, held, head, outputs, "north", **one).loss >= best.loss - 1e-9
    logits = best.whitening.apply(held[0]) @ best.rehearsal.weights
    guessed = logits[:, 0] > 0 if classes == 2 else logits.argmax(axis=1)
    assert (guessed == held[1]).mean() > 0.9


def test_tuning_without_any_safe_configuration_says_so() -> None:
    with pytest.raises(PlanError, match="leaves the polynomial's interval"):
        tune(cohort(5), cohort(6), logistic(interval=0.5), 1, "north", directions=(9,), rates=(50.0,))


def test_tuning_for_regression() -> None:
    (x, _), (held, _) = cohort(8), cohort(9)
    truth = np.linspace(-1, 1, 10)
    best = tune((x, x @ truth), (held, held @ truth), ridge(), 1, "north", directions=(9,), rates=(0.9,))
    predicted = best.whitening.apply(held) @ best.rehearsal.weights
    assert np.corrcoef(predicted[:, 0], held @ truth)[0, 1] > 0.95
