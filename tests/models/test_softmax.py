"""The softmax head: its start, what it encrypts of a row, its rates, its scale and its last step's length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from blindtune.client.encoding import Scaling
from blindtune.errors import InputError, PlanError
from blindtune.models import softmax as module
from blindtune.models.heads import Floats, Head, Start, one_vs_rest
from blindtune.models.linear import assemble
from blindtune.models.rehearsal import Choice, rehearse, tune
from blindtune.models.softmax import (
    DIAGONAL,
    LENGTHS,
    SHRINKAGES,
    TEMPERATURES,
    curvature,
    discriminant,
    log_loss,
    probabilities,
    softmax,
    step_length,
)
from blindtune.report import converged_softmax

SHAPES = {"seed": st.integers(0, 10_000), "classes": st.integers(2, 6), "features": st.integers(1, 7)}


def cohort(
    seed: int, classes: int = 4, features: int = 5, rows: int = 200
) -> tuple[Floats, np.ndarray[Any, Any]]:
    """Classes of one Gaussian each, every one of them there."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(rows) % classes)
    mixed = rng.normal(size=(features, features)) + 2 * np.eye(features)
    return (rng.normal(size=(rows, features)) + rng.normal(size=(classes, features))[labels]) @ mixed, labels


def moments(x: Floats, labels: np.ndarray[Any, Any], classes: int) -> tuple[Floats, Floats, Floats]:
    """Counts, sums and second moments, row by row."""
    counts, sums, second = np.zeros(classes), np.zeros((classes, x.shape[1])), np.zeros((x.shape[1],) * 2)
    for row, label in zip(x, labels, strict=True):
        counts[label] += 1
        sums[label] += row
        second += np.outer(row, row)
    return counts, sums, second


def dense_log_loss(logits: Floats, labels: np.ndarray[Any, Any]) -> float:
    return float(np.mean([-z[k] + np.log(sum(np.exp(z))) for z, k in zip(logits, labels, strict=True)]))


class TestDiscriminant:
    @given(**SHAPES, shrinkage=st.sampled_from([*SHRINKAGES, 0.0]))
    def test_the_textbook_formula(self, seed: int, classes: int, features: int, shrinkage: float) -> None:
        x, labels = cohort(seed, classes, features)
        weight, bias = discriminant(*moments(x, labels, classes), shrinkage)
        within = sum(
            (row - x[labels == k].mean(axis=0))[:, None] * (row - x[labels == k].mean(axis=0))
            for row, k in zip(x, labels, strict=True)
        ) / len(x)
        shrunk = np.linalg.inv(within + shrinkage * np.trace(within) / features * np.eye(features))
        for k in range(classes):
            mean = x[labels == k].mean(axis=0)
            np.testing.assert_allclose(weight[:, k], shrunk @ mean, rtol=1e-6, atol=1e-8)
            wanted = np.log((labels == k).mean()) - 0.5 * mean @ shrunk @ mean
            assert bias[k] == pytest.approx(wanted, rel=1e-6, abs=1e-8)

    @given(**{**SHAPES, "classes": st.integers(3, 6)}, share=st.floats(0.01, 0.9))
    def test_it_is_that_of_scikit_learn(self, seed: int, classes: int, features: int, share: float) -> None:
        x, labels = cohort(seed, classes, features)
        weight, bias = discriminant(*moments(x, labels, classes), share / (1 - share))
        # Theirs is (1 - s)·Σ + s·variance: ours divided by 1 - s, which scales all but the priors.
        theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=share).fit(x, labels)
        prior = np.log(np.bincount(labels) / len(labels))
        ours = np.vstack([weight / (1 - share), (bias - prior) / (1 - share) + prior]).T
        wanted = np.column_stack([theirs.coef_, theirs.intercept_])
        # One of theirs stands for two classes; differences between classes are what counts anyway.
        np.testing.assert_allclose(ours - ours[:1], wanted - wanted[:1], rtol=1e-5, atol=1e-7)

    @given(seed=st.integers(0, 1000), cut=st.integers(20, 180))
    def test_members_add_up_their_moments(self, seed: int, cut: int) -> None:
        x, labels = cohort(seed)
        both = [
            a + b
            for a, b in zip(moments(x[:cut], labels[:cut], 4), moments(x[cut:], labels[cut:], 4), strict=True)
        ]
        for found, wanted in zip(
            discriminant(*both, 0.1), discriminant(*moments(x, labels, 4), 0.1), strict=True
        ):
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


class TestStart:
    def test_the_best_of_its_grid_on_held_out_rows(self) -> None:
        (x, labels), (held, truth) = cohort(1, rows=40), cohort(1, rows=400)
        held = held + 0.5 * np.random.default_rng(3).normal(size=held.shape)
        start = softmax().begin(x, labels, held, truth, 4)
        losses = {}
        for shrinkage in SHRINKAGES:
            weight, bias = discriminant(*moments(x, labels, 4), shrinkage)
            for t in TEMPERATURES:
                losses[shrinkage, t] = dense_log_loss(t * (held @ weight + bias), truth)
        best = min(losses, key=losses.__getitem__)
        assert dense_log_loss(start.logits(held), truth) == pytest.approx(losses[best])
        # So few rows want neither the least shrinkage nor the Gaussians' own temperature.
        assert best[0] > min(SHRINKAGES)
        assert best[1] < 1
        weight, bias = discriminant(*moments(x, labels, 4), best[0])
        np.testing.assert_allclose(start.weight, best[1] * weight)
        np.testing.assert_allclose(start.bias, best[1] * bias)

    def test_held_out_rows_choose_and_do_not_fit(self) -> None:
        x, labels = cohort(2)
        one = softmax().begin(x, labels, x[:50], labels[:50], 4)
        other = softmax().begin(x, labels, np.tile(x[:50], (3, 1)), np.tile(labels[:50], 3), 4)
        np.testing.assert_array_equal(one.weight, other.weight)

    @pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
    def test_features_that_say_nothing(self, value: float) -> None:
        x, labels = cohort(2)
        with pytest.raises(InputError, match="no discriminant can be made of"):
            softmax().begin(np.full_like(x, value), labels, x, labels, 4)

    def test_a_class_without_training_rows(self) -> None:
        x, labels = cohort(2)
        few = labels < 3
        with pytest.raises(InputError, match="a class without training rows"):
            softmax().begin(x[few], labels[few], x, labels, 4)


class TestEncoding:
    @given(seed=st.integers(0, 10_000), classes=st.integers(2, 8), size=st.sampled_from([0.1, 1.0, 30.0]))
    def test_residual_and_curvature_row_by_row(self, seed: int, classes: int, size: float) -> None:
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.arange(30) % classes)
        offset = size * rng.normal(size=(30, classes))
        encoded = softmax().encode(labels, classes, offset)
        assert encoded.targets.shape == (30, classes)
        assert encoded.coefficients.shape == (1, 30, classes)
        assert np.abs(encoded.targets).max() == pytest.approx(1)
        rows = [np.exp(row - row.max()) / sum(np.exp(row - row.max())) for row in offset]
        # Both up to one factor, which the learning rate takes back.
        pairs = list(zip(rows, labels, strict=True))
        factor = max(abs((k == label) - p[k]) for p, label in pairs for k in range(classes))
        for row, (p, label) in enumerate(pairs):
            for k in range(classes):
                target, coefficient = (
                    factor * encoded.targets[row, k],
                    factor * encoded.coefficients[0, row, k],
                )
                assert target == pytest.approx((k == label) - p[k], abs=1e-12)
                assert coefficient == pytest.approx(1.5 * p[k] * (1 - p[k]), abs=1e-12)

    def test_a_start_that_settles_every_row_is_refused(self) -> None:
        labels = np.arange(20) % 4
        with pytest.raises(PlanError, match="nothing to train"):
            softmax().encode(labels, 4, 1e3 * np.eye(4)[labels])
        # One that nearly does is trained on, in numbers of order one.
        nearly = softmax().encode(labels, 4, 25 * np.eye(4)[labels])
        assert np.abs(nearly.targets).max() == pytest.approx(1)

    @given(seed=st.integers(0, 10_000), shift=st.floats(-1e3, 1e3))
    def test_only_differences_between_classes_count(self, seed: int, shift: float) -> None:
        rng = np.random.default_rng(seed)
        labels, offset = np.arange(20) % 4, rng.normal(size=(20, 4))
        one = softmax().encode(labels, 4, offset)
        other = softmax().encode(labels, 4, offset + shift * rng.normal(size=(20, 1)))
        np.testing.assert_allclose(one.targets, other.targets, atol=1e-9)
        np.testing.assert_allclose(one.coefficients, other.coefficients, atol=1e-9)

    def test_without_a_start_all_classes_are_as_likely(self) -> None:
        labels = np.arange(20) % 5
        encoded, zeros = softmax().encode(labels, 5), softmax().encode(labels, 5, np.zeros((20, 5)))
        np.testing.assert_allclose(encoded.targets, (np.eye(5)[labels] - 0.2) / 0.8)
        np.testing.assert_allclose(encoded.coefficients, DIAGONAL * 0.2 * 0.8 / 0.8)
        np.testing.assert_array_equal(zeros.targets, encoded.targets)
        np.testing.assert_array_equal(zeros.coefficients, encoded.coefficients)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (np.array([0, 1, 3]), r"labels outside 0 … 2"),
            (np.array([0, 1, -1]), r"labels outside 0 … 2"),
            (np.array([0, 1, 0.5, 2]), r"labels outside 0 … 2"),
            (np.array([0, 1, np.nan, 2]), r"labels outside 0 … 2"),
            (np.eye(3), r"labels outside 0 … 2"),
            (np.array([0, 1, 1]), "a class without training rows"),
            (np.array([], int), "a class without training rows"),
        ],
    )
    def test_labels_that_do_not_fit(self, labels: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            softmax().encode(labels, 3)


class TestSteps:
    def test_the_program(self) -> None:
        program = softmax().program
        assert (program.steps, program.degree, program.levels, program.terms) == (4, 1, 10, 2)
        assert program.retain == (1.0,) * 4
        assert program.momentum == (0.0, 0.25, 0.4, 0.5)
        assert softmax(steps=2, momentum=0.0).program.levels == 4
        assert softmax().coefficients == pytest.approx([1.0])

    @given(
        seed=st.integers(0, 10_000),
        rows=st.integers(1, 80),
        columns=st.integers(1, 20),
        classes=st.integers(1, 6),
    )
    def test_the_largest_curvature(self, seed: int, rows: int, columns: int, classes: int) -> None:
        rng = np.random.default_rng(seed)
        x, h = rng.normal(size=(rows, columns)), rng.uniform(0.01, 0.375, size=(rows, classes))
        wanted = max(np.linalg.eigvalsh((x.T * h[:, k]) @ x / rows)[-1] for k in range(classes))
        # Power iteration comes from below; twelve rounds leave less than the third that rates have to spare.
        assert 0.8 * wanted < curvature(x, h) <= wanted * (1 + 1e-9)
        assert curvature(x, h, 4000) == pytest.approx(wanted, rel=1e-4)

    def test_no_curvature_at_all(self) -> None:
        assert curvature(np.zeros((5, 3)), np.ones((5, 2))) > 0

    @given(seed=st.integers(0, 10_000), size=st.sampled_from([1e-3, 1.0, 1e3]))
    def test_rates_are_relative_to_the_curvature(self, seed: int, size: float) -> None:
        x, labels = cohort(seed)
        head = softmax(steps=40)
        encoded = head.encode(labels, 4)
        adapted = head.adapted(size * x, encoded, 2.0)
        assert adapted.learning_rates == pytest.approx(
            (2.0 / curvature(size * x, encoded.coefficients[0]),) * 40
        )
        # However the features are scaled, the steps are the same and diverge for none.
        plain = head.adapted(x, encoded, 2.0)
        found, wanted = rehearse(size * x, encoded, adapted), rehearse(x, encoded, plain)
        assert found.inside(adapted)
        np.testing.assert_allclose(size * x @ found.weights, x @ wanted.weights, atol=1e-9)
        assert max(found.largest) < 50

    def test_above_the_stable_rate_it_diverges(self) -> None:
        x, labels = cohort(3)
        head = softmax(steps=200)
        encoded = head.encode(labels, 4)
        fine, wild = (
            rehearse(x, encoded, head.adapted(x, encoded, 2 * (1 + head.momentum) * f)) for f in (0.9, 1.1)
        )
        assert fine.inside(head)
        assert not wild.inside(head)

    @pytest.mark.parametrize("largest", [0.0, 0.3, 0.8, 4.0, 100.0])
    def test_the_scale_follows_the_rehearsal(self, largest: float) -> None:
        head = softmax().scaled_for(largest)
        assert head.interval == max(1.0, module.MARGIN * largest)
        assert (head.learning_rates, head.program) == (softmax().learning_rates, softmax().program)
        # What is encrypted of the logits stays below one.
        assert largest / Scaling(head.interval, 1.0, 10).interval < 1


class TestLength:
    @given(seed=st.integers(0, 10_000))
    def test_the_length_of_least_loss(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        start, change, labels = rng.normal(size=(30, 3)), rng.normal(size=(30, 3)), np.arange(30) % 3
        change += rng.uniform(-1, 3) * np.eye(3)[labels]
        losses = [dense_log_loss(start + t * change, labels) for t in LENGTHS]
        assert step_length(start, change, labels) == LENGTHS[int(np.argmin(losses))]
        assert softmax().loss(change, labels, start) == pytest.approx(min(losses))
        assert log_loss(start, labels) == pytest.approx(losses[0])

    def test_a_change_for_the_worse_is_not_made(self) -> None:
        labels = np.arange(30) % 3
        assert step_length(4 * np.eye(3)[labels], -np.eye(3)[labels], labels) == 0
        assert step_length(np.zeros((30, 3)), np.eye(3)[labels], labels) == max(LENGTHS)

    def test_one_where_nothing_changes(self) -> None:
        assert step_length(np.eye(3), np.zeros((3, 3)), np.arange(3)) == 1

    def test_loss_without_a_start(self) -> None:
        rng = np.random.default_rng(0)
        logits, labels = rng.normal(size=(30, 3)), np.arange(30) % 3
        assert softmax().loss(logits, labels) == softmax().loss(logits, labels, np.zeros((30, 3)))

    def test_extreme_logits_stay_finite(self) -> None:
        logits = 1e5 * np.random.default_rng(0).normal(size=(30, 3))
        assert np.isfinite(log_loss(logits, np.arange(30) % 3))
        np.testing.assert_allclose(probabilities(logits).sum(axis=1), 1)


class TestAssembly:
    """``start + τ · change`` as one linear layer on raw features."""

    def choice(self) -> tuple[Choice, Floats, np.ndarray[Any, Any]]:
        x, labels = cohort(5, rows=300)
        train, held = np.arange(200), np.arange(200, 300)
        head = softmax()
        options = {"directions": (5,), "epsilons": (0.1,), "rates": head.learning_rates[:1]}
        return (
            tune(x, labels, train, held, [(train, held)], head, 4, "north", **options),
            x[held],
            labels[held],
        )

    def test_start_and_change_add_up(self) -> None:
        choice, held, truth = self.choice()
        assert isinstance(choice.start, Start)
        for scale in (1.0, -1.0, 0.5):
            weights = scale * choice.rehearsal.weights
            weight, bias = assemble(choice.whitening, choice.start, weights, held, truth)
            begun, change = choice.start.logits(held), choice.whitening.apply(held) @ weights
            length = step_length(begun, change, truth)
            np.testing.assert_allclose(held @ weight.T + bias, begun + length * change, atol=1e-9)

    def test_a_useless_change_leaves_the_start(self) -> None:
        choice, held, truth = self.choice()
        assert choice.start is not None
        weight, bias = assemble(choice.whitening, choice.start, -50 * choice.rehearsal.weights, held, truth)
        np.testing.assert_array_equal(weight, choice.start.weight.T)
        np.testing.assert_array_equal(bias, choice.start.bias)

    def test_tuning_judges_the_start_by_the_validation_rows(self) -> None:
        choice, held, truth = self.choice()
        x, labels = cohort(5, rows=300)
        start = softmax().begin(x[:200], labels[:200], held, truth, 4)
        assert choice.start is not None
        np.testing.assert_array_equal(choice.start.weight, start.weight)
        np.testing.assert_array_equal(choice.start.bias, start.bias)
        encoded = softmax().encode(labels[:200], 4, start.logits(x[:200]))
        np.testing.assert_array_equal(choice.encoded.targets, encoded.targets)
        np.testing.assert_array_equal(choice.encoded.coefficients, encoded.coefficients)
        white = choice.whitening.apply(x[:200])
        rate = 2.0 / curvature(white, encoded.coefficients[0])
        assert choice.head.learning_rates == pytest.approx((rate,) * 4)
        assert choice.head.interval == max(1.0, module.MARGIN * max(choice.rehearsal.largest))
        np.testing.assert_allclose(choice.rehearsal.weights, newton(white, encoded, rate), atol=1e-9)


def newton(x: Floats, encoded: Any, rate: float, steps: int = 4, momentum: float = 0.5) -> Floats:
    """The update of the module's documentation, row by row."""
    change = before = np.zeros((x.shape[1], encoded.targets.shape[1]))
    for t in range(steps):
        gradient = np.zeros_like(change)
        for row in range(len(x)):
            bend = encoded.coefficients[0, row] * (x[row] @ change)
            gradient += np.outer(x[row], encoded.targets[row] - bend)
        pushed = min(momentum, t / (t + 3)) * (change - before)
        before, change = change, change + pushed + rate / len(x) * gradient
    return change


def skewed(seed: int) -> tuple[Floats, np.ndarray[Any, Any]]:
    """Six classes in a row, so that those in the middle are between others; half of the last lie far out."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(3000) % 6)
    x = rng.normal(size=(3000, 8))
    x[:, 0] += 2.2 * labels
    x[:, 1] += 2.0 * (labels % 2)
    x[(labels == 5) & (rng.random(3000) < 0.5), 0] += 4
    x[(labels == 0) & (rng.random(3000) < 0.4), 1] -= 3
    return x @ rng.normal(size=(8, 8)), labels


def test_four_steps_reach_the_converged_head_where_one_vs_rest_falls_behind() -> None:
    train, held, test = np.arange(1000), np.arange(1000, 1400), np.arange(1400, 3000)

    def accuracies(seed: int) -> list[float]:
        x, labels = skewed(seed)

        def trained(head: Head, *rates: float) -> Choice:
            options = {"directions": (8,), "epsilons": (0.01, 0.1), "rates": rates}
            return tune(x, labels, train, held, [(train, held)], head, 6, "north", **options)

        def logits(found: Choice) -> Floats:
            weights = found.rehearsal.weights
            weight, bias = assemble(found.whitening, found.start, weights, x[held], labels[held])
            return np.asarray(x[test] @ weight.T + bias)

        four, three = trained(softmax(), 2.0), trained(one_vs_rest(), 1.0, 3.0, 6.0)
        assert four.start is not None
        converged = converged_softmax(x[train], labels[train], x[held], labels[held], weights=None)
        heads = four.start.logits(x[test]), logits(four), logits(three), converged.logits(x[test])
        return [float((np.asarray(z).argmax(axis=1) == labels[test]).mean()) for z in heads]

    start, four, three, converged = np.mean([accuracies(seed) for seed in (2, 3, 4)], axis=0)
    assert four > converged - 0.01
    assert four > start + 0.01
    assert three < converged - 0.05


def test_the_loss_is_that_of_rows_that_no_start_was_fitted_on() -> None:
    """Labels without any pattern can be learnt by heart, but not foretold."""
    rng = np.random.default_rng(12)
    x, labels = rng.normal(size=(120, 40)), np.arange(120) % 4
    rows = np.arange(120)
    folds = [(rows[rows % 10 // 2 != f], rows[rows % 10 // 2 == f]) for f in range(5)]
    one = {"directions": (39,), "epsilons": (0.01,), "rates": (2.0,)}
    honest = tune(x, labels, rows, rows, folds, softmax(), 4, "north", **one)
    fitted = tune(x, labels, rows, rows, [(rows, rows)], softmax(), 4, "north", **one)
    assert fitted.loss < 0.9
    assert honest.loss > np.log(4) - 0.05
