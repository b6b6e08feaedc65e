"""Forward and backward products against dense numpy, whole and in parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from blindtune.he.clear import ClearEngine
from blindtune.he.engine import Engine
from blindtune.he.secret import SecretKey
from blindtune.kernels import products
from blindtune.kernels.layout import Layout
from blindtune.kernels.packing import pack_block, pack_lanes, unpack_weights

Encrypt = Callable[[NDArray[Any]], Any]


class Matrix:
    """A random matrix over a layout's row blocks, encrypted."""

    def __init__(self, layout: Layout, encrypt: Encrypt) -> None:
        self.layout = layout
        rng = self.rng = np.random.default_rng(layout.columns)
        self.x = rng.normal(size=(layout.rows * layout.row_blocks, layout.columns))
        self.x /= np.sqrt(layout.columns)
        self.blocks = []
        for i in range(layout.row_blocks):
            rows = self.x[i * layout.rows : (i + 1) * layout.rows]
            self.blocks.append({key: encrypt(v) for key, v in pack_block(rows, layout)})

    def diagonal(self, i: int) -> products.Diagonal:
        return lambda j, g, b: self.blocks[i][j, g, b]


def weights_slots(w: NDArray[Any], layout: Layout) -> list[NDArray[np.complex128]]:
    """Weights (columns, lanes) in the layout of the design."""
    slots, start = [], 0
    for m in layout.widths:
        period = w[start : start + m] - 1j * w[start + m : start + 2 * m]
        slots.append(np.tile(period.ravel(), layout.rows // m))
        start += 2 * m
    return slots


def check_forward(
    engine: Engine, layout: Layout, encrypt: Encrypt, decrypt: Any, cut: int, near: float
) -> None:
    matrix = Matrix(layout, encrypt)
    w = matrix.rng.normal(size=(layout.columns, layout.lanes))
    babies = products.baby_steps(engine, layout, [encrypt(v) for v in weights_slots(w, layout)])
    giants = max(layout.giants)
    cut = min(cut, giants - 1)
    edges = [(0, cut), (cut, giants)] if cut else [(0, giants)]
    for i in range(layout.row_blocks):
        parts = [products.forward(engine, layout, matrix.diagonal(i), babies, *edge) for edge in edges]
        u = decrypt(products.logits(engine, parts)).reshape(layout.rows, layout.lanes)
        expected = 2 * matrix.x[i * layout.rows : (i + 1) * layout.rows] @ w
        np.testing.assert_allclose(u, expected, atol=near)


def check_backward(
    engine: Engine, layout: Layout, encrypt: Encrypt, decrypt: Any, cut: int, near: float
) -> None:
    matrix = Matrix(layout, encrypt)
    scale = 1 / np.sqrt(len(matrix.x))
    r = matrix.rng.normal(size=(len(matrix.x), layout.lanes)) * scale
    rows = [r[i * layout.rows : (i + 1) * layout.rows] for i in range(layout.row_blocks)]
    blocks = []
    for i, values in enumerate(rows):
        c = encrypt(pack_lanes(values, layout))
        blocks.append((matrix.diagonal(i), products.giant_steps(engine, layout, c, max(layout.giants))))
    cut = min(cut, layout.baby - 1)
    edges = [(0, cut), (cut, layout.baby)] if cut else [(0, layout.baby)]
    slots = []
    for j in range(len(layout.widths)):
        parts = [products.backward(engine, layout, j, blocks, *edge) for edge in edges]
        slots.append(decrypt(products.gradient(engine, layout, j, parts)))
    for values, m in zip(slots, layout.widths, strict=True):
        periods = values.reshape(-1, m * layout.lanes)
        np.testing.assert_allclose(periods, np.broadcast_to(periods[0], periods.shape), atol=2 * near)
    np.testing.assert_allclose(unpack_weights(slots, layout), matrix.x.T @ r, atol=near)


@given(st.data())
def test_forward_on_any_layout(layouts: Any, clear_engine: Any, data: st.DataObject) -> None:
    layout = data.draw(layouts())
    e: ClearEngine = clear_engine(layout)
    check_forward(e, layout, e.encrypt, e.decrypt, data.draw(st.integers(0, 8)), 1e-5)


@given(st.data())
def test_backward_on_any_layout(layouts: Any, clear_engine: Any, data: st.DataObject) -> None:
    layout = data.draw(layouts())
    e: ClearEngine = clear_engine(layout)
    check_backward(e, layout, e.encrypt, e.decrypt, data.draw(st.integers(0, 8)), 1e-5)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(512, 1, (16, 8), 4, 2, 1),
        Layout(512, 8, (8, 4, 4), 4, 1, 1),
        Layout(512, 512, (1,), 1, 1, 1),
    ],
)
def test_both_products_encrypted(layout: Layout, tiny_key: SecretKey) -> None:
    engine = tiny_key.engine(layout.keys())

    def encrypt(values: NDArray[Any]) -> Any:
        return engine.load(tiny_key.encrypt(values))

    check_forward(engine, layout, encrypt, tiny_key.decrypt, 1, 2e-3)
    check_backward(engine, layout, encrypt, tiny_key.decrypt, 2, 2e-3)


def test_chain_repeats_one_rotation(clear_engine: Any) -> None:
    layout = Layout(512, 2, (16,), 4, 1, 1)
    e = clear_engine(layout)
    x = np.arange(512.0)
    found = products.chain(e, e.encrypt(x), 2, 4)
    for k, c in enumerate(found):
        np.testing.assert_array_equal(e.decrypt(c), np.roll(x, -2 * k))
    assert e.ledger.counts == {("rotate", 17): 3}


def test_inner_sums_are_relinearised_once(clear_engine: Any) -> None:
    layout = Layout(512, 1, (16, 8), 4, 2, 1)
    e = clear_engine(layout)
    check_forward(e, layout, e.encrypt, e.decrypt, 0, 1e-5)
    forward = {name: n for (name, _), n in e.ledger.counts.items()}
    # Four giant steps a row block, however many column blocks; 24 diagonals each.
    assert (forward["relinearise"], forward["multiply"]) == (8, 48)
    e = clear_engine(layout)
    check_backward(e, layout, e.encrypt, e.decrypt, 0, 1e-5)
    backward = {name: n for (name, _), n in e.ledger.counts.items()}
    # Four baby steps a column block, however many row blocks.
    assert (backward["relinearise"], backward["multiply"]) == (8, 48)
