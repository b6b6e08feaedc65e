"""Calibration: better or equal on what it was fitted for, and exactly foldable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import InputError
from blindtune.models.calibration import PRIOR, calibrate, identity


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    top = logits - logits.max(axis=1, keepdims=True)
    log_p = top - np.log(np.exp(top).sum(axis=1, keepdims=True))
    return float(-log_p[np.arange(len(labels)), labels].mean())


def binary_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.logaddexp(0, -np.where(labels > 0, 1, -1) * logits).mean())


def draw(seed: int, n: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % outputs
    return 2 * np.eye(outputs)[labels] + rng.normal(size=(n, outputs)), labels


@pytest.mark.parametrize("n", [60, 400])
def test_bad_scales_and_biases_of_classes_are_mended(n: int) -> None:
    logits, labels = draw(0, n, 3)
    bad = 5 * logits + np.array([0.0, 6.0, -4.0])
    fitted = calibrate(bad, labels, "multiclass")
    assert fitted.mode in ("vector", "matrix")
    fresh, truth = draw(1, 900, 3)
    before = 5 * fresh + np.array([0.0, 6.0, -4.0])
    after = fitted.apply(before)
    assert log_loss(after, truth) < log_loss(before, truth)
    assert (after.argmax(1) == truth).mean() > (before.argmax(1) == truth).mean()


def test_mixed_up_classes_take_a_matrix() -> None:
    logits, labels = draw(2, 600, 3)
    mixing = np.array([[1.0, 0.8, 0.0], [0.0, 1.0, 0.8], [0.8, 0.0, 1.0]])
    fitted = calibrate(logits @ mixing, labels, "multiclass")
    assert fitted.mode == "matrix"


def test_binary_scale_and_threshold() -> None:
    rng = np.random.default_rng(3)
    labels = (np.arange(300) % 3 == 0).astype(int)
    logits = (4 * labels - 2 + rng.normal(size=300))[:, None] * 7 + 20
    fitted = calibrate(logits, labels, "binary")
    after = fitted.apply(logits)[:, 0]
    assert fitted.mode == "scale"
    assert fitted.matrix[0, 0] > 0
    assert binary_loss(after, labels) < binary_loss(logits[:, 0], labels)
    assert ((after > 0) == labels).mean() > 0.95


def test_probabilities_have_the_prevalence_of_the_validation_split() -> None:
    rng = np.random.default_rng(8)
    labels = (np.arange(1000) % 10 == 0).astype(int)
    # As balanced training leaves them: centred between the classes.
    logits = (2.0 * labels - 1 + rng.normal(size=1000))[:, None]
    fitted = calibrate(logits, labels, "binary")
    p = 1 / (1 + np.exp(-fitted.apply(logits)))
    # The prior holds the threshold back, by no more than its own gradient.
    assert p.mean() - 0.1 == pytest.approx(-PRIOR * fitted.bias[0] / 1000, abs=1e-5)
    assert p.mean() == pytest.approx(0.1, abs=3e-3)
    three = (np.arange(1000) % 10).clip(max=2)
    logits = 2 * np.eye(3)[three] + rng.normal(size=(1000, 3))
    z = calibrate(logits, three, "multiclass").apply(logits)
    shares = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(shares, [0.1, 0.1, 0.8], atol=0.01)


def test_labels_are_calibrated_one_by_one() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, size=(200, 3))
    labels[:, 2] = 1
    logits = 3 * (2 * labels - 1) + rng.normal(size=(200, 3)) + np.array([5.0, -5.0, 0.0])
    fitted = calibrate(logits, labels, "multilabel")
    np.testing.assert_array_equal(fitted.matrix, np.diag(np.diag(fitted.matrix)))
    assert (fitted.matrix[2, 2], fitted.bias[2]) == (1, 0), "a label without negatives is left alone"
    assert ((fitted.apply(logits)[:, :2] > 0) == labels[:, :2]).mean() > 0.95


def test_a_head_that_is_worse_than_chance_is_not_turned_round() -> None:
    labels = np.arange(100) % 2
    logits = -(2.0 * labels - 1)[:, None] + np.random.default_rng(5).normal(size=(100, 1)) * 0.1
    fitted = calibrate(logits, labels, "binary")
    assert (fitted.matrix[0, 0], fitted.bias[0]) == (1, 0)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_separable_rows_do_not_grow_without_end(kind: str) -> None:
    """A few rows that a threshold separates say nothing about how sure to be."""
    outputs = 1 if kind == "binary" else 3
    labels = np.arange(30) % max(outputs, 2)
    truth = labels[:, None] if kind == "binary" else np.eye(3, dtype=int)[labels]
    fitted = calibrate(2.0 * truth - 1, truth if kind == "multilabel" else labels, kind)
    scale = np.diag(fitted.matrix)
    assert (scale > 1).all()
    assert np.abs(fitted.matrix).max() < 5
    assert np.abs(fitted.bias).max() < 5


def test_the_more_rows_the_less_the_prior_counts() -> None:
    rng = np.random.default_rng(9)
    found = []
    for n in (20, 200, 20_000):
        labels = np.arange(n) % 2
        # Three times too sure, and the threshold is off by three: a third of the logits is right.
        right = rng.normal(size=n) + 2.0 * labels - 1
        logits = 3 * (2 * right + 1)
        fitted = calibrate(logits[:, None], labels, "binary")
        found.append(abs(fitted.matrix[0, 0] - 1 / 3) + abs(fitted.bias[0] + 1))
    assert found[2] < 0.1
    assert found[2] < found[0]


@given(
    n=st.integers(0, 40),
    outputs=st.integers(2, 4),
    kind=st.sampled_from(["binary", "multiclass", "multilabel", "regression"]),
    scale=st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
    seed=st.integers(0, 20),
)
def test_anything_gives_a_finite_map_of_the_same_shape(
    n: int, outputs: int, kind: str, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    outputs = 1 if kind == "binary" else outputs
    logits = rng.normal(size=(n, outputs)) * scale
    labels = rng.integers(0, max(outputs, 2), size=n)
    if kind == "multilabel":
        labels = rng.integers(0, 2, size=(n, outputs))
    fitted = calibrate(logits, labels, kind)
    assert (fitted.matrix.shape, fitted.bias.shape) == ((outputs, outputs), (outputs,))
    assert np.isfinite(fitted.matrix).all()
    assert np.isfinite(fitted.bias).all()
    assert fitted.apply(logits).shape == logits.shape


def test_too_few_rows_or_a_missing_class_change_nothing() -> None:
    logits, labels = draw(6, 9, 3)
    assert calibrate(logits, labels, "multiclass").mode == "none"
    logits, labels = draw(6, 90, 3)
    assert calibrate(logits, labels % 2, "multiclass").mode == "none"
    assert calibrate(logits[:, :1], labels, "regression").mode == "none"


@given(seed=st.integers(0, 99), outputs=st.integers(1, 4))
def test_folding_is_exact(seed: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(outputs, 6)), rng.normal(size=outputs)
    x = rng.normal(size=(20, 6))
    c = type(identity(1))("matrix", rng.normal(size=(outputs, outputs)), rng.normal(size=outputs))
    folded, shift = c.fold(weight, bias)
    np.testing.assert_allclose(x @ folded.T + shift, c.apply(x @ weight.T + bias), atol=1e-10)
    np.testing.assert_array_equal(identity(outputs).fold(weight, bias)[0], weight)


def test_shapes_that_do_not_fit() -> None:
    logits, labels = draw(7, 30, 3)
    with pytest.raises(InputError):
        calibrate(logits, labels[:-1], "multiclass")
    with pytest.raises(InputError):
        calibrate(np.full((30, 3), np.nan), labels, "multiclass")
