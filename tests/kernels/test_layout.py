"""Layouts: what they refuse, their minimal keys, and rotations made of the keys that there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import PlanError
from blindtune.kernels.layout import Layout


def test_a_layout_says_its_sizes() -> None:
    x = Layout(8192, 2, (64, 32), 8, 3, 5)
    assert (x.rows, x.columns, x.giants, x.data_ciphertexts) == (4096, 192, (8, 4), 288)
    assert x.doublings(64) == [128, 256, 512, 1024, 2048, 4096]


@pytest.mark.parametrize(
    "numbers",
    [
        (8192, 3, (64,), 8, 1, 1),
        (8192, 0, (64,), 8, 1, 1),
        (8192, -2, (64,), 8, 1, 1),
        (8191, 1, (64,), 8, 1, 1),
        (8192, 1, (), 8, 1, 1),
        (8192, 1, (64, 48), 8, 1, 1),
        (8192, 1, (64, 4), 8, 1, 1),
        (8192, 1, (64,), 0, 1, 1),
        (8192, 1, (64,), 8, 0, 1),
        (8192, 1, (64,), 8, 1, 0),
        (8192, 256, (64,), 8, 1, 1),
        (8192, 16384, (1,), 1, 1, 1),
    ],
)
def test_layouts_that_cannot_be(numbers: tuple) -> None:
    with pytest.raises(PlanError):
        Layout(*numbers)


def test_the_design_layout_needs_ten_rotations_and_conjugation() -> None:
    # 128 real columns in one block of 64, 2 lanes: ±C, ±BC and the doublings of the period.
    x = Layout(8192, 2, (64,), 8, 1, 1)
    assert x.keys().rotations == (2, 16, 128, 256, 512, 1024, 2048, 4096, 8176, 8190)


@given(st.data())
def test_keys_are_sorted_distinct_rotations(layouts: object, data: st.DataObject) -> None:
    x = data.draw(layouts())  # type: ignore[operator]
    keys = x.keys().rotations
    assert list(keys) == sorted(set(keys))
    assert all(0 < k < x.slots for k in keys)
