"""Heads: polynomial fit, encoded targets and weights, the public program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import InputError, PlanError
from blindtune.models.heads import Head, head_for, logistic, one_vs_rest, ridge, sigmoid_residual


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


@given(st.lists(st.integers(0, 4), min_size=30, max_size=60), st.booleans())
def test_each_outputs_weights_average_to_one(labels: list[int], balanced: bool) -> None:
    y = np.array([*labels, 0, 1, 2, 3, 4])
    targets, weights = one_vs_rest(balanced=balanced).encode(y, 5)
    np.testing.assert_array_equal(targets, np.where(y[:, None] == np.arange(5), 0.5, -0.5))
    np.testing.assert_allclose(weights.mean(axis=0), 1)
    if balanced:
        for k in range(5):
            assert weights[y == k, k].sum() == pytest.approx(weights[y != k, k].sum())
    else:
        assert (weights == 1).all()


def test_encodings_of_every_kind() -> None:
    binary = np.array([0, 1, 1, 0])
    np.testing.assert_array_equal(logistic().encode(binary, 1)[0], [[-0.5], [0.5], [0.5], [-0.5]])
    np.testing.assert_array_equal(ridge("binary").encode(binary, 1)[0], [[-1], [1], [1], [-1]])
    columns = np.array([[0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(one_vs_rest("multilabel").encode(columns, 2)[0], columns - 0.5)
    np.testing.assert_array_equal(ridge("multiclass").encode(np.array([0, 1, 0]), 2)[0][:, 0], [1, -1, 1])
    values = np.array([0.5, -2.0])
    targets, weights = ridge().encode(values, 1)
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
    ],
)
def test_heads_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(PlanError):
        logistic(**options)


def test_heads_by_name() -> None:
    assert head_for("logistic", 1).kind == "binary"
    assert head_for("logistic", 3).kind == "multiclass"
    assert head_for("ridge", 1).kind == "binary"
    assert head_for("ridge", 4).kind == "multiclass"
    assert head_for("logistic", 1, degree=3).degree == 3
    with pytest.raises(PlanError, match=r"no head named svm.*one-vs-rest"):
        head_for("svm", 1)
