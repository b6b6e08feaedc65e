"""Packing against the slot-by-slot definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import InputError
from blindtune.kernels.layout import Layout
from blindtune.kernels.packing import pack_block, pack_lanes, pack_weights, unpack_weights


@given(st.data())
def test_diagonals_by_definition(layouts: object, data: st.DataObject) -> None:
    layout = data.draw(layouts(slots=32))  # type: ignore[operator]
    n = data.draw(st.integers(0, layout.rows))
    d = data.draw(st.integers(1, layout.columns))
    block = np.random.default_rng(n).normal(size=(n, d))
    x = np.zeros((layout.rows, layout.columns))
    x[:n, :d] = block
    packed = dict(pack_block(block, layout))
    assert len(packed) == sum(layout.widths)
    start = 0
    for j, m in enumerate(layout.widths):
        for g in range(layout.giants[j]):
            for b in range(layout.baby):
                shift = g * layout.baby * layout.lanes
                for s in range(layout.slots):
                    row = s // layout.lanes
                    column = start + (row + g * layout.baby + b) % m
                    value = packed[j, g, b][(s + shift) % layout.slots]
                    assert value == x[row, column] + 1j * x[row, column + m]
        start += 2 * m


def test_blocks_that_are_too_large() -> None:
    layout = Layout(32, 2, (4,), 2, 1, 1)
    for shape in ((17, 8), (16, 9)):
        with pytest.raises(InputError, match="does not fit the layout"):
            list(pack_block(np.zeros(shape), layout))


def test_lanes_are_minor_and_the_rest_is_zero() -> None:
    layout = Layout(32, 4, (4,), 2, 1, 1)
    values = np.arange(1.0, 16).reshape(5, 3)
    slots = pack_lanes(values, layout)
    assert slots.dtype == np.complex128
    for s in range(32):
        row, lane = divmod(s, 4)
        assert slots[s] == (values[row, lane] if row < 5 and lane < 3 else 0)


@given(st.data())
def test_unpacking_averages_the_periods(layouts: object, data: st.DataObject) -> None:
    layout = data.draw(layouts(slots=64))  # type: ignore[operator]
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(layout.columns, layout.lanes))
    slots, start = [], 0
    for m in layout.widths:
        period = weights[start : start + m] - 1j * weights[start + m : start + 2 * m]
        repeats = layout.rows // m
        noise = rng.normal(size=(repeats, m, layout.lanes)) * 1e-3
        noise -= noise.mean(axis=0)
        slots.append((period + noise).ravel())
        start += 2 * m
    np.testing.assert_allclose(unpack_weights(slots, layout), weights, atol=1e-12)


def test_unpacking_needs_every_column_block() -> None:
    with pytest.raises(ValueError, match="zip"):
        unpack_weights([np.zeros(32, complex)], Layout(32, 1, (4, 4), 2, 1, 1))


@given(st.data())
def test_packed_weights_come_back_and_repeat(layouts: object, data: st.DataObject) -> None:
    layout = data.draw(layouts(slots=64))  # type: ignore[operator]
    columns = data.draw(st.integers(1, layout.columns))
    weights = np.random.default_rng(1).normal(size=(columns, data.draw(st.integers(1, layout.lanes))))
    slots = pack_weights(weights, layout)
    found = unpack_weights(slots, layout)
    np.testing.assert_allclose(found[:columns, : weights.shape[1]], weights, atol=1e-12)
    assert not found[columns:].any()
    assert not found[:, weights.shape[1] :].any()
    for width, values in zip(layout.widths, slots, strict=True):
        np.testing.assert_array_equal(values, np.roll(values, width * layout.lanes))
