"""Whitening: what it makes of a covariance, folding, members that add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import InputError
from blindtune.models.whitening import Whitening


def features(seed: int, rows: int = 200, columns: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns)) + rng.normal(size=columns)


def test_without_shrinkage_the_covariance_is_the_identity() -> None:
    x = features(0)
    white = Whitening.fit(x, 7, 0.0, "north")
    z = white.apply(x)
    assert z.shape == (200, 8)
    assert white.columns == 8
    np.testing.assert_allclose(z[:, :-1].T @ z[:, :-1] / 200, np.eye(7), atol=1e-9)
    np.testing.assert_allclose(z[:, :-1].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_array_equal(z[:, -1], 1)


@given(seed=st.integers(0, 50), k=st.integers(1, 12), epsilon=st.floats(1e-3, 1))
def test_variances_follow_the_shrinkage(seed: int, k: int, epsilon: float) -> None:
    x = features(seed)
    z = Whitening.fit(x, k, epsilon, "north").apply(x)[:, :-1]
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1][:k]
    expected = values / (values + epsilon * values.mean())
    np.testing.assert_allclose(z.var(axis=0), expected, rtol=1e-6)


@given(seed=st.integers(0, 50), k=st.integers(1, 12), outputs=st.integers(1, 4))
def test_folding_is_exact(seed: int, k: int, outputs: int) -> None:
    x, rng = features(seed), np.random.default_rng(seed)
    white = Whitening.fit(x, k, 0.05, "north")
    w = rng.normal(size=(k + 1, outputs))
    weight, bias = white.fold(w)
    assert (weight.shape, bias.shape) == ((outputs, 12), (outputs,))
    np.testing.assert_allclose(x @ weight.T + bias, white.apply(x) @ w, atol=1e-9)


@given(cuts=st.lists(st.integers(1, 199), max_size=3, unique=True))
def test_members_moments_add_up(cuts: list[int]) -> None:
    x = features(1)
    parts = np.split(x, sorted(cuts))
    total = sum(p.sum(axis=0) for p in parts)
    second = sum(p.T @ p for p in parts)
    pooled = Whitening.from_moments(sum(map(len, parts)), total, second, 9, 0.03, "study")  # type: ignore[arg-type]
    alone = Whitening.fit(x, 9, 0.03, "north")
    a, b = pooled.apply(x), alone.apply(x)
    # Directions have no sign of their own.
    np.testing.assert_allclose(np.abs(a), np.abs(b), atol=1e-7)
    np.testing.assert_allclose(a @ a.T, b @ b.T, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "k", "epsilon"),
    [
        (np.zeros((1, 4)), 2, 0.1),
        (np.zeros(4), 2, 0.1),
        (np.full((9, 4), np.nan), 2, 0.1),
        (np.ones((9, 4)), 2, 0.0),
        (np.ones((9, 4)), 2, 0.1),
        (features(0), 13, 0.1),
        (features(0), 0, 0.1),
    ],
)
def test_features_that_cannot_be_whitened(x: np.ndarray, k: int, epsilon: float) -> None:
    with pytest.raises(InputError):
        Whitening.fit(x, k, epsilon, "north")


def test_fewer_rows_than_directions_need_a_positive_epsilon() -> None:
    x = features(0, rows=5)
    assert np.isfinite(Whitening.fit(x, 10, 0.05, "north").apply(x)).all()
