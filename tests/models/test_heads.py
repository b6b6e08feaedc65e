"""Heads: polynomial fit, encoded targets and weights, the public program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import InputError, PlanError
from blindtune.models.heads import Head, logistic, one_vs_rest, ridge, sigmoid_residual


def polynomial(head: Head, z: np.ndarray) -> np.ndarray:
    return np.asarray(sum(c * z ** (2 * k + 1) for k, c in enumerate(head.coefficients)))


@pytest.mark.parametrize("degree", [1, 3, 5, 7])
@pytest.mark.parametrize("interval", [2.0, 8.0, 12.0])
def test_the_fit_is_the_best_odd_polynomial(degree: int, interval: float) -> None:
    head = logistic(degree=degree, interval=interval)
    z = np.linspace(-interval, interval, 4001)
    error = polynomial(head, z) - sigmoid_residual(z)
    for k in range(1, degree + 1, 2):
        # Least squares: the error is orthogonal to every term.
        assert abs(np.mean(error * (z / interval) ** k)) < 1e-9
    if degree > 1:
        less = logistic(degree=degree - 2, interval=interval)
        assert np.mean(error**2) < np.mean((polynomial(less, z) - sigmoid_residual(z)) ** 2)


def test_degree_seven_is_near_the_sigmoid_up_to_eight() -> None:
    head = logistic(degree=7, interval=8.0)
    z = np.linspace(-8, 8, 999)
    assert np.abs(polynomial(head, z) - (1 / (1 + np.exp(-z)) - 0.5)).max() < 0.04


def test_ridge_needs_no_approximation() -> None:
    np.testing.assert_allclose(ridge().coefficients, [1.0])


def test_programs() -> None:
    head = logistic(learning_rates=(4.0, 2.0, 4.0), decay=0.1)
    assert head.program.sets == (0, 1, 0)
    assert head.rates == (4.0, 2.0)
    assert head.program.retain == pytest.approx((0.6, 0.8, 0.6))
    assert (head.program.steps, head.program.degree) == (3, 7)
    assert logistic(decay=9.0).program.retain == (0.0, 0.0, 0.0)
    assert head.with_rate(3.0).learning_rates == (3.0, 3.0, 3.0)
    assert head.program.momentum == ()


@given(momentum=st.floats(0.01, 0.99), steps=st.integers(1, 12))
def test_momentum_is_reached_over_the_first_steps(momentum: float, steps: int) -> None:
    found = logistic(learning_rates=(1.0,) * steps, momentum=momentum).program.momentum
    assert len(found) == steps
    assert found[0] == 0
    for t, value in enumerate(found):
        assert value == min(momentum, t / (t + 3))


def test_only_heads_that_know_better_start_adapt_or_scale() -> None:
    head, x, y = one_vs_rest(), np.eye(3), np.arange(3)
    assert head.begin(x, y, x, y, 3) is None
    assert head.adapted(x, head.encode(y, 3), 2.5) == head.with_rate(2.5)
    assert head.scaled_for(99.0) is head


@given(st.lists(st.integers(0, 4), min_size=30, max_size=60), st.booleans())
def test_each_outputs_weights_average_to_one(labels: list[int], balanced: bool) -> None:
    y = np.array([*labels, 0, 1, 2, 3, 4])
    targets, weights = one_vs_rest(balanced=balanced).weigh(y, 5)
    np.testing.assert_array_equal(targets, np.where(y[:, None] == np.arange(5), 0.5, -0.5))
    np.testing.assert_allclose(weights.mean(axis=0), 1)
    if balanced:
        for k in range(5):
            assert weights[y == k, k].sum() == pytest.approx(weights[y != k, k].sum())
    else:
        assert (weights == 1).all()


@given(
    head=st.sampled_from([logistic(degree=3), logistic(balanced=False), ridge("binary"), logistic(degree=1)]),
    labels=st.lists(st.integers(0, 1), min_size=1, max_size=20),
)
def test_what_is_encrypted_of_a_row_is_weighted(head: Head, labels: list[int]) -> None:
    y = np.array([*labels, 0, 1])
    targets, weights = head.weigh(y, 1)
    encoded = head.encode(y, 1)
    assert encoded.targets.shape == (len(y), 1)
    assert encoded.coefficients.shape == ((head.degree + 1) // 2, len(y), 1)
    for row in range(len(y)):
        assert encoded.targets[row, 0] == pytest.approx(weights[row, 0] * targets[row, 0])
        for power, c in enumerate(head.coefficients):
            assert encoded.coefficients[power, row, 0] == pytest.approx(weights[row, 0] * c)


def test_targets_of_every_kind() -> None:
    binary = np.array([0, 1, 1, 0])
    np.testing.assert_array_equal(logistic().weigh(binary, 1)[0], [[-0.5], [0.5], [0.5], [-0.5]])
    np.testing.assert_array_equal(ridge("binary").weigh(binary, 1)[0], [[-1], [1], [1], [-1]])
    columns = np.array([[0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(one_vs_rest("multilabel").weigh(columns, 2)[0], columns - 0.5)
    np.testing.assert_array_equal(ridge("multiclass").weigh(np.array([0, 1, 0]), 2)[0][:, 0], [1, -1, 1])
    values = np.array([0.5, -2.0])
    targets, weights = ridge().weigh(values, 1)
    np.testing.assert_array_equal(targets[:, 0], values)
    assert (weights == 1).all()


@pytest.mark.parametrize(
    ("head", "labels", "outputs"),
    [
        (logistic(), np.array([0, 1, 2]), 1),
        (logistic(), np.array([0, 0, 0]), 1),
        (logistic(), np.array([1, 1]), 1),
        (logistic(), np.array([[0, 1], [1, 0]]), 1),
        (logistic(), np.array([0.0, np.nan, 1.0]), 1),
        (one_vs_rest(), np.array([0, 1, 3]), 3),
        (one_vs_rest(), np.array([0, 1, -1]), 3),
        (one_vs_rest(), np.array([0, 1, 1]), 3),
        (one_vs_rest(), np.array([0, 1, 0.5, 2]), 3),
        (one_vs_rest(), np.array([0, 1, np.nan, 2]), 3),
        (one_vs_rest(), np.array([], int), 3),
        (one_vs_rest("multilabel"), np.array([[0, 2], [1, 0]]), 2),
        (one_vs_rest("multilabel"), np.array([[0, 1], [1, 0]]), 3),
        (ridge(), np.array([1.0, np.inf]), 1),
        (ridge(), np.array([1.0, 2.0, 3.0]), 2),
    ],
)
def test_labels_that_do_not_fit(head: Head, labels: Any, outputs: int) -> None:
    with pytest.raises(InputError):
        head.encode(labels, outputs)


@pytest.mark.parametrize(
    "options",
    [
        {"degree": 2},
        {"degree": 9},
        {"learning_rates": ()},
        {"learning_rates": (4.0, 0.0)},
        {"interval": 0.0},
        {"decay": -0.1},
        {"momentum": -0.1},
        {"momentum": 1.0},
    ],
)
def test_heads_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(PlanError):
        logistic(**options)
