"""Crop and resize: geometry against a slow obvious reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blindtune.errors import InputError
from blindtune.imaging import centre_crop, prepare

sides = st.integers(1, 60)


@given(height=sides, width=sides)
def test_crop_is_the_central_square(height, width):
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    side = min(height, width)
    for axis in (rows, columns):
        crop = centre_crop(axis)
        assert crop.shape == (side, side)
        assert abs(crop.mean() - axis.mean()) <= 0.5


@settings(max_examples=50, deadline=None)
@given(height=sides, width=sides, size=st.integers(1, 64), seed=st.integers(0, 9))
def test_result_is_square_and_in_range(height, width, size, seed):
    image = np.random.default_rng(seed).integers(0, 2, (height, width)).astype(np.float32)
    result = prepare(image, size)
    assert result.shape == (size, size)
    assert result.dtype == np.float32
    assert 0.0 <= result.min() <= result.max() <= 1.0


@settings(max_examples=30, deadline=None)
@given(extra=st.integers(0, 80), value=st.floats(0, 1, width=32))
def test_what_lies_outside_the_square_does_not_matter(extra, value):
    square = np.random.default_rng(0).random((40, 40), dtype=np.float32)
    border = np.full((40, extra), value, dtype=np.float32)
    np.testing.assert_array_equal(prepare(np.hstack([border, square, border]), 16), prepare(square, 16))


def test_resizing_averages_fine_detail():
    checks = (np.indices((96, 96)).sum(axis=0) % 2).astype(np.float32)
    np.testing.assert_allclose(prepare(checks, 12)[2:-2, 2:-2], 0.5, atol=0.02)


def test_same_size_is_unchanged():
    image = np.random.default_rng(0).random((32, 48), dtype=np.float32)
    np.testing.assert_array_equal(prepare(image, 32), image[:, 8:40])


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (np.zeros((4, 4, 3), np.float32), 8),
        (np.zeros((0, 4), np.float32), 8),
        (np.full((4, 4), np.nan, np.float32), 8),
        (np.zeros((4, 4), np.float32), 0),
    ],
)
def test_refusals(image, size):
    with pytest.raises(InputError):
        prepare(image, size)
