"""Whitening: what it makes of a covariance, folding, members that add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import InputError
from blindtune.models.whitening import Spectrum, Whitening


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


def test_no_direction_is_taken_to_have_less_than_the_floor() -> None:
    x = features(3)
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1]
    floor = values[5]
    z = Spectrum.of_rows(x).whitening(12, 0.0, "north", floor).apply(x)[:, :-1]
    np.testing.assert_allclose(z.var(axis=0), np.minimum(1, values / floor), rtol=1e-6)


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


@given(seed=st.integers(0, 50), rows=st.integers(2, 60))
def test_a_spectrum_is_the_covariances(seed: int, rows: int) -> None:
    x = features(seed, rows)
    found = Spectrum.of_rows(x)
    np.testing.assert_allclose(found.mean, x.mean(axis=0))
    assert (np.diff(found.values) <= 0).all()
    assert (found.values >= 0).all()
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(12), atol=1e-9)
    covariance = np.cov(x.T, bias=True)
    size = np.abs(covariance).max()
    rebuilt = found.vectors * found.values @ found.vectors.T
    np.testing.assert_allclose(rebuilt, covariance, atol=1e-9 * size)
    moments = Spectrum.of(rows, x.sum(axis=0), x.T @ x)
    np.testing.assert_array_equal(moments.values, found.values)
    np.testing.assert_array_equal(moments.vectors, found.vectors)


@given(k=st.integers(1, 12), epsilon=st.floats(1e-3, 1))
def test_one_spectrum_makes_every_whitening(k: int, epsilon: float) -> None:
    x = features(2)
    spectrum = Spectrum.of_rows(x)
    one, alone = spectrum.whitening(k, epsilon, "north"), Whitening.fit(x, k, epsilon, "north")
    np.testing.assert_array_equal(one.transform, alone.transform)
    np.testing.assert_array_equal(one.mean, alone.mean)
    assert (one.epsilon, one.owner, one.columns) == (epsilon, "north", k + 1)
    # Fewer directions are the first of more, up to the shrinkage, which is relative to their mean.
    whole = spectrum.whitening(12, epsilon, "north").transform[:, :k]
    ratio = one.transform / whole
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[0], ratio.shape), rtol=1e-6)


def test_a_spectrum_of_too_few_directions() -> None:
    spectrum = Spectrum.of_rows(features(0, rows=5))
    assert spectrum.whitening(10, 0.05, "north").columns == 11
    assert spectrum.whitening(4, 0.0, "north").columns == 5
    flat = Spectrum(np.zeros(3), np.array([2.0, 1.0, 0.0]), np.eye(3))
    with pytest.raises(InputError, match=r"span fewer than 3 directions\. Use fewer directions"):
        flat.whitening(3, 0.0, "north")
    for k in (0, -1, 4):
        with pytest.raises(InputError, match=f"{k} directions of 3 features"):
            flat.whitening(k, 0.1, "north")


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
