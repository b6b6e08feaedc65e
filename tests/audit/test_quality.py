"""Figures of rebuilt images, against definitions and known cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from blindtune.audit import quality


def images(n=6, side=24, seed=0):
    rng = np.random.default_rng(seed)
    smooth = np.add.outer(np.linspace(0, 0.5, side), np.linspace(0, 0.3, side))
    return np.clip(smooth + 0.2 * rng.random((n, side, side)), 0, 1).astype(np.float32)


def test_errors_of_known_images():
    x = np.zeros((2, 8, 8))
    np.testing.assert_allclose(quality.mse(x + 0.1, x), [0.01, 0.01])
    np.testing.assert_allclose(quality.psnr(x + 0.1, x), [20, 20])
    np.testing.assert_allclose(quality.psnr(x, x), [60, 60])


def test_similarity_is_one_of_the_same_and_falls_with_noise():
    x = images()
    np.testing.assert_allclose(quality.ssim(x, x), 1)
    rng = np.random.default_rng(1)
    found = [quality.ssim(x + s * rng.normal(size=x.shape), x).mean() for s in (0.01, 0.05, 0.3)]
    assert 1 > found[0] > found[1] > found[2] > -1


def test_similarity_of_constants_by_hand():
    a, b = np.full((1, 16, 16), 0.2), np.full((1, 16, 16), 0.6)
    np.testing.assert_allclose(quality.ssim(a, b), (2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4), rtol=1e-9)


@given(st.integers(0, 1000), st.integers(2, 5), st.integers(8, 20))
def test_frechet_distance_is_that_of_the_definition(seed, d, n):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, d)), rng.normal(size=(n + 3, d)) * 2 + 1
    first, second = (np.cov(x, rowvar=False) for x in (a, b))
    root = sqrtm(first @ second)
    gap = a.mean(axis=0) - b.mean(axis=0)
    wanted = gap @ gap + np.trace(first + second) - 2 * np.trace(np.real(root))
    assert quality.frechet(a, b) == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_the_nearest_image_does_not_mind_brightness_and_contrast():
    x = images()
    np.testing.assert_array_equal(quality.nearest(0.4 * x[::-1] + 0.3, x), np.arange(6)[::-1])


def test_means_have_intervals_where_images_differ():
    found = quality.mean([1.0, 2.0, 3.0])
    assert (found.value, found.low) == (2.0, pytest.approx(2 - 4.302653 / np.sqrt(3), rel=1e-5))
    assert quality.mean([1.0]).reason == "one image"
    assert "alike" in quality.mean([1.0, 1.0]).reason


def test_tests_tell_different_groups_apart():
    rng = np.random.default_rng(0)
    same, other = rng.normal(size=(2, 20)), rng.normal(size=20) + 3
    assert quality.anova([*same, other]).value < 1e-6
    assert quality.anova(list(same)).value > 0.01
    assert quality.t_test(same[0], other).value < 1e-6
    assert quality.anova([same[0]]).value is None
    assert quality.t_test(np.ones(1), other).value is None


def test_judged_images():
    x = images()
    found = quality.judged(x, x, np.array([True] * 5 + [False]))
    assert found["MSE"].value == 0
    assert found["FID (blindtune_deit_96)"].value == pytest.approx(0, abs=1e-3)
    assert found["patients re-identified"].value == pytest.approx(5 / 6)
    assert found["patients re-identified"].low < 5 / 6 < found["patients re-identified"].high
