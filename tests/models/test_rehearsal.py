"""The rehearsal: the steps that the server will take, and refusals before a byte is encrypted."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.client.encoding import Scaling, encode
from blindtune.client.prepare import ENOUGH_ROWS, FOLDS, folds_of
from blindtune.errors import PlanError
from blindtune.he.clear import ClearEngine
from blindtune.imaging import Embeddings
from blindtune.kernels.blocks import Blocks
from blindtune.kernels.layout import Layout
from blindtune.kernels.packing import unpack_weights
from blindtune.kernels.training import Trainer
from blindtune.models.heads import Head, logistic, one_vs_rest, ridge
from blindtune.models.rehearsal import Rehearsal, refuse_outside, rehearse, tune
from blindtune.models.whitening import Whitening
from blindtune.params import ParametersLiteral

INTERVAL = 3.0
"""Small enough for one cohort to leave and another to stay on."""


def cohort(seed: int, rows: int = 300, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    centres = np.random.default_rng(7).normal(size=(classes, 10))
    return centres[labels] + rng.normal(size=(rows, 10)), labels


def slowly(x: np.ndarray, y: np.ndarray, s: np.ndarray, head: Head) -> np.ndarray:
    """The update of the documentation, row by row."""
    w = before = np.zeros((x.shape[1], y.shape[1]))
    for t, rate in enumerate(head.learning_rates):
        gradient = np.zeros_like(w)
        for row in range(len(x)):
            z = x[row] @ w
            p = sum(c * z ** (2 * k + 1) for k, c in enumerate(head.coefficients))
            gradient += np.outer(x[row], s[row] * (y[row] - p))
        pushed = min(head.momentum, t / (t + 3)) * (w - before)
        before, w = w, max(0.0, 1 - rate * head.decay) * w + pushed + rate / len(x) * gradient
    return w


@pytest.mark.parametrize(
    ("head", "classes"),
    [
        (logistic(learning_rates=(4.0, 3.0, 4.0), decay=0.02), 2),
        (one_vs_rest(degree=3, interval=6.0, learning_rates=(2.0, 2.0)), 3),
        (ridge("multiclass"), 3),
        (logistic(learning_rates=(3.0, 2.0, 3.0), momentum=0.3), 2),
        (ridge("multiclass", learning_rates=(0.9,) * 4, momentum=0.5, decay=0.05), 3),
    ],
)
def test_rehearsal_is_the_documented_update_and_the_engines(head: Head, classes: int) -> None:
    features, labels = cohort(0, classes=classes)
    outputs = 1 if classes == 2 else classes
    x = Whitening.fit(features, 7, 0.05, "north").apply(features)
    encoded = head.encode(labels, outputs)
    done = rehearse(x, encoded, head)
    np.testing.assert_allclose(done.weights, slowly(x, *head.weigh(labels, outputs), head), atol=1e-9)
    assert len(done.largest) == head.steps
    assert done.largest[0] == 0

    p = ParametersLiteral(1024, 11, 50, 58, 58, security=0).checked()
    layout = Layout(512, 4, (4,), 2, 3, 1)
    engine = ClearEngine(p, layout.keys())
    scaling = Scaling(head.interval, head.learning_rates[0], len(x))
    data, residuals = {}, {}
    for name, vectors in encode(x, encoded, head, layout, scaling):
        kind, *numbers = name.split("-")
        found = [engine.encrypt(v) for v in vectors]
        if kind == "data":
            i, j = map(int, numbers)
            data.update({(i, j, k // layout.baby, k % layout.baby): c for k, c in enumerate(found)})
        else:
            residuals[tuple(map(int, numbers))] = found
    trained = Trainer(Blocks(engine, layout, data, residuals)).train(head.program)
    slots = [engine.decrypt(c) for c in trained[0]]
    head_slots = unpack_weights(slots, layout)[: x.shape[1], :outputs]
    # The engine trains scaled weights: the rehearsal's, up to one public factor.
    factor = (head_slots * done.weights).sum() / (done.weights**2).sum()
    np.testing.assert_allclose(head_slots / factor, done.weights, atol=1e-5)


def test_logits_that_leave_the_interval_are_refused() -> None:
    features, labels = cohort(1)
    head = logistic(interval=1.0, learning_rates=(4.0, 4.0, 4.0))
    x = Whitening.fit(features, 9, 0.01, "north").apply(features)
    done = rehearse(x, head.encode(labels, 1), head)
    assert not done.inside(head)
    with pytest.raises(PlanError, match=r"step 2: the largest .* fitted up to 1\. Lower the learning rate"):
        refuse_outside(done, head)
    wide = logistic(interval=12.0, learning_rates=(2.0, 2.0))
    fine = rehearse(x, wide.encode(labels, 1), wide)
    assert fine.inside(wide)
    refuse_outside(fine, wide)


@pytest.mark.parametrize("head", [logistic(learning_rates=(900.0,) * 6), ridge(learning_rates=(900.0,) * 6)])
def test_divergence_is_refused_whatever_the_degree(head: Head) -> None:
    features, labels = cohort(2)
    x = Whitening.fit(features, 9, 0.01, "north").apply(features)
    done = rehearse(x, head.encode(labels, 1), head)
    assert np.isfinite(done.weights).all()
    assert not done.inside(head)
    with pytest.raises(PlanError, match="rehearsal"):
        refuse_outside(done, head)


def test_degree_one_has_no_interval_to_leave() -> None:
    assert Rehearsal(np.zeros((2, 1)), (0.0, 99.0)).inside(ridge())
    assert not Rehearsal(np.zeros((2, 1)), (0.0, 12.1)).inside(logistic())


Fold = tuple[np.ndarray, np.ndarray]


def rows_of(*counts: int) -> list[np.ndarray]:
    """Consecutive runs of rows."""
    return np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])


def five_folds(rows: np.ndarray) -> list[Fold]:
    return [(rows[rows % 5 != f], rows[rows % 5 == f]) for f in range(5)]


GRID = {"directions": (3, 9), "epsilons": (0.01, 0.1), "rates": (1.0, 4.0, 500.0)}


@pytest.mark.parametrize("classes", [2, 3])
def test_tuning_chooses_the_best_that_stays_inside(classes: int) -> None:
    outputs = 1 if classes == 2 else classes
    head = logistic() if classes == 2 else one_vs_rest()
    x, y = cohort(3, rows=400, classes=classes)
    train_rows, held, test = rows_of(240, 60, 100)
    folds = five_folds(np.concatenate([train_rows, held]))
    seen: list[tuple[int, int]] = []
    best = tune(
        x, y, train_rows, held, folds, head, outputs, "north", **GRID, on_done=lambda *done: seen.append(done)
    )
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert best.rehearsal.inside(best.head)
    assert best.head.learning_rates[0] in (1.0, 4.0)
    assert best.whitening.owner == "north"
    for k, epsilon, rate in product(GRID["directions"], GRID["epsilons"], (1.0, 4.0)):
        one = {"directions": (int(k),), "epsilons": (epsilon,), "rates": (rate,)}
        alone = tune(x, y, train_rows, held, folds, head, outputs, "north", **one)
        assert alone.loss >= best.loss - 1e-9
        if (best.whitening.columns - 1, best.whitening.epsilon, best.head.learning_rates[0]) == tuple(
            v[0] for v in one.values()
        ):
            assert alone.loss == pytest.approx(best.loss)
            np.testing.assert_allclose(alone.rehearsal.weights, best.rehearsal.weights)
    logits = best.whitening.apply(x[test]) @ best.rehearsal.weights
    guessed = logits[:, 0] > 0 if classes == 2 else logits.argmax(axis=1)
    assert (guessed == y[test]).mean() > 0.9


def test_the_choice_is_rehearsed_on_the_training_rows_alone() -> None:
    x, y = cohort(10, rows=300)
    train_rows = np.arange(200)
    best = tune(
        x, y, train_rows, np.arange(200, 300), five_folds(np.arange(300)), logistic(), 1, "north", **GRID
    )
    k, epsilon = best.whitening.columns - 1, best.whitening.epsilon
    white = Whitening.fit(x[train_rows], k, epsilon, "north")
    np.testing.assert_allclose(best.whitening.transform, white.transform)
    np.testing.assert_allclose(best.whitening.mean, white.mean)
    encoded = best.head.encode(y[train_rows], 1)
    np.testing.assert_array_equal(best.encoded.targets, encoded.targets)
    np.testing.assert_array_equal(best.encoded.coefficients, encoded.coefficients)
    assert best.start is None
    done = rehearse(white.apply(x[train_rows]), encoded, best.head)
    np.testing.assert_allclose(best.rehearsal.weights, done.weights)
    assert best.rehearsal.largest == pytest.approx(done.largest)


def test_rows_in_no_fold_and_not_in_training_have_no_say() -> None:
    x, y = cohort(11, rows=300)
    train_rows, held, test = rows_of(150, 50, 100)
    folds = five_folds(np.concatenate([train_rows, held]))
    one = tune(x, y, train_rows, held, folds, logistic(), 1, "north", **GRID)
    spoiled, wrong = x.copy(), y.copy()
    spoiled[test], wrong[test] = np.nan, 7
    other = tune(spoiled, wrong, train_rows, held, folds, logistic(), 1, "north", **GRID)
    assert other.loss == one.loss
    np.testing.assert_array_equal(other.rehearsal.weights, one.rehearsal.weights)


def test_the_loss_is_that_of_rows_that_were_not_fitted_on() -> None:
    """Labels without any pattern can be learnt by heart, but not foretold."""
    rng = np.random.default_rng(12)
    x, y = rng.normal(size=(60, 40)), np.arange(60) % 2
    one = {"directions": (39,), "epsilons": (0.01,), "rates": (4.0,)}
    rows = np.arange(60)
    honest = tune(x, y, rows, rows, five_folds(rows), logistic(), 1, "north", **one)
    fitted = tune(x, y, rows, rows, [(rows, rows)], logistic(), 1, "north", **one)
    assert fitted.loss < 0.4
    assert honest.loss > 0.6


def test_a_larger_fold_counts_for_more() -> None:
    x, y = cohort(13, rows=200)
    rows = np.arange(200)
    small, large = (rows[40:], rows[:40]), (rows[:120], rows[120:])
    one = {"directions": (9,), "epsilons": (0.1,), "rates": (4.0,)}
    a, b, both = (
        tune(x, y, rows, rows, f, logistic(), 1, "north", **one).loss
        for f in ([small], [large], [small, large])
    )
    assert both == pytest.approx((40 * a + 80 * b) / 120)


def test_a_choice_that_leaves_the_interval_on_the_training_rows_gives_way_to_the_next() -> None:
    # What the folds fit on has noisy labels and so small logits; the training rows are far apart.
    x, y = cohort(14, rows=500)
    noisy, held, train_rows = rows_of(200, 100, 200)
    x[train_rows] += 6 * (2 * y[train_rows, None] - 1) * np.ones(10) / np.sqrt(10)
    y[noisy] = np.where(np.arange(200) % 10 < 3, 1 - y[noisy], y[noisy])
    folds = [(noisy, held)]
    options = {"directions": (9,), "epsilons": (0.03,)}
    fast, slow = (4.0,), (0.5,)
    head = logistic(interval=INTERVAL)
    judged = {
        r: tune(x, y, noisy, held, folds, head, 1, "north", rates=r, **options).loss for r in (fast, slow)
    }
    assert judged[fast] < judged[slow]
    with pytest.raises(PlanError, match="leaves the polynomial's interval in step"):
        tune(x, y, train_rows, held, folds, head, 1, "north", rates=fast, **options)
    best = tune(x, y, train_rows, held, folds, head, 1, "north", rates=fast + slow, **options)
    assert best.head.learning_rates[0] == slow[0]
    assert best.loss == judged[slow]


def test_tuning_without_any_safe_configuration_says_so() -> None:
    x, y = cohort(5)
    rows = np.arange(300)
    one = {"directions": (9,), "epsilons": (0.03,), "rates": (50.0,)}
    with pytest.raises(
        PlanError, match=r"leaves the polynomial's interval in step 2.*Lower the learning rate"
    ):
        tune(x, y, rows, rows, five_folds(rows), logistic(interval=0.5), 1, "north", **one)


def test_a_fold_that_leaves_the_interval_is_enough_for_a_refusal() -> None:
    x, y = cohort(15)
    train_rows, fit, held = rows_of(150, 100, 50)
    x[fit] += 8 * (2 * y[fit, None] - 1) * np.ones(10) / np.sqrt(10)
    y[train_rows] = np.where(np.arange(150) % 10 < 4, 1 - y[train_rows], y[train_rows])
    one = {"directions": (9,), "epsilons": (0.03,), "rates": (4.0,)}
    head = logistic(interval=INTERVAL)
    tune(x, y, train_rows, held, [(train_rows, held)], head, 1, "north", **one)
    with pytest.raises(PlanError, match=r"every configuration leaves .* interval on some fold"):
        tune(x, y, train_rows, held, [(train_rows, held), (fit, held)], head, 1, "north", **one)


def test_tuning_for_regression() -> None:
    x = np.concatenate([cohort(8)[0], cohort(9)[0]])
    truth = x @ np.linspace(-1, 1, 10)
    train_rows, held = rows_of(300, 300)
    one = {"directions": (9,), "epsilons": (0.03,), "rates": (0.9,)}
    best = tune(x, truth, train_rows, held, five_folds(train_rows), ridge(), 1, "north", **one)
    predicted = best.whitening.apply(x[held]) @ best.rehearsal.weights
    assert np.corrcoef(predicted[:, 0], truth[held])[0, 1] > 0.95


def embedded(seed: int, patients: int, *, rows: int = 4, classes: int = 3) -> Embeddings:
    """Patients with up to so many rows, in any order; a fifth of them each in val and test."""
    rng = np.random.default_rng(seed)
    owner = rng.permutation(np.repeat(np.arange(patients), rng.integers(1, rows + 1, size=patients)))
    split = rng.permutation(np.array(["train", "train", "train", "val", "test"])[np.arange(patients) % 5])
    return Embeddings(
        rng.normal(size=(len(owner), 5)).astype(np.float32),
        rng.integers(0, classes, size=len(owner)),
        tuple(f"class {k}" for k in range(classes)),
        tuple(f"patient {p}" for p in owner),
        split[owner],
    )


@given(seed=st.integers(0, 200), patients=st.integers(100, 200))
def test_folds_are_of_whole_patients_and_never_of_the_test_split(seed: int, patients: int) -> None:
    # So many patients of two classes that no fold lacks one.
    data = embedded(seed, patients, classes=2)
    folds = folds_of(data)
    pool = np.sort(np.concatenate([data.indices("train"), data.indices("val")]))
    assert len(folds) == FOLDS == 5
    owner = np.array(data.patients)
    for fit, held in folds:
        np.testing.assert_array_equal(np.sort(np.concatenate([fit, held])), pool)
        assert not set(owner[fit]) & set(owner[held])
        assert len(np.unique(data.labels[fit])) == len(np.unique(data.labels[held])) == 2
    # Every row of train and val is judged once.
    np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in folds])), pool)
    judged = [len(set(owner[held])) for _, held in folds]
    assert max(judged) - min(judged) <= 1
    for one, other in zip(folds, folds_of(data), strict=True):
        np.testing.assert_array_equal(one[1], other[1])


def test_folds_that_would_lack_a_class_give_way_to_the_validation_split() -> None:
    data = embedded(3, 100)
    rare = np.zeros(len(data), int)
    rare[[data.indices("train")[0], data.indices("val")[0]]] = 1
    data = replace(data, labels=rare, classes=("common", "rare"))
    ((fit, held),) = folds_of(data)
    np.testing.assert_array_equal(fit, data.indices("train"))
    np.testing.assert_array_equal(held, data.indices("val"))


def test_many_rows_are_judged_by_the_validation_split() -> None:
    ((fit, held),) = folds_of(embedded(4, ENOUGH_ROWS, rows=2))
    assert len(fit) > len(held) > 0
    assert len(folds_of(embedded(4, ENOUGH_ROWS // 2, rows=2))) == 5
