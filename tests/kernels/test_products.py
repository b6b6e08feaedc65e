"""Forward and backward products against dense numpy, whole and in parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from blindtune.he.clear import ClearEngine
from blindtune.he.engine import Ciphertext, Engine, Ledger
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

    def diagonal(self, i: int, j: int, g: int, b: int) -> Ciphertext:
        found: Ciphertext = self.blocks[i][j, g, b]
        return found


def weights_slots(w: NDArray[Any], layout: Layout) -> list[NDArray[np.complex128]]:
    """Weights (columns, lanes) in the layout of the design."""
    slots, start = [], 0
    for m in layout.widths:
        period = w[start : start + m] - 1j * w[start + m : start + 2 * m]
        slots.append(np.tile(period.ravel(), layout.rows // m))
        start += 2 * m
    return slots


def check_forward(engine: Engine, layout: Layout, encrypt: Encrypt, decrypt: Any, near: float) -> None:
    matrix = Matrix(layout, encrypt)
    heads = [matrix.rng.normal(size=(layout.columns, layout.lanes)) for _ in range(layout.weight_blocks)]
    weights = [[encrypt(v) for v in weights_slots(w, layout)] for w in heads]
    babies = products.baby_steps(engine, layout, weights)
    rows = range(layout.row_blocks)
    found = products.forward(engine, layout, matrix.diagonal, babies, rows)
    for i in rows:
        for k, w in enumerate(heads):
            u = decrypt(found[i][k]).reshape(layout.rows, layout.lanes)
            expected = 2 * matrix.x[i * layout.rows : (i + 1) * layout.rows] @ w
            np.testing.assert_allclose(u, expected, atol=near)


def check_backward(
    engine: Engine, layout: Layout, encrypt: Encrypt, decrypt: Any, cut: int, near: float
) -> None:
    matrix = Matrix(layout, encrypt)
    shape = (layout.weight_blocks, len(matrix.x), layout.lanes)
    r = matrix.rng.normal(size=shape) / np.sqrt(len(matrix.x))
    old = matrix.rng.normal(size=(layout.weight_blocks, layout.columns, layout.lanes))
    sums = None
    for rows in (range(cut), range(cut, layout.row_blocks)):
        if not rows:
            continue
        blocks = [slice(i * layout.rows, (i + 1) * layout.rows) for i in rows]
        residuals = [[encrypt(pack_lanes(of_head[block], layout)) for of_head in r] for block in blocks]
        giants = products.giant_steps(engine, layout, residuals)
        sums = products.backward(engine, layout, matrix.diagonal, giants, rows, sums)
    assert sums is not None
    plain = products.gradient(engine, layout, sums)
    level = plain[0].level
    by_head = [weights_slots(w, layout) for w in old]
    columns = range(len(layout.widths))
    kept = [engine.at_level(encrypt(of_head[j]), level) for j in columns for of_head in by_head]
    added = products.gradient(engine, layout, sums, kept)
    for k in range(layout.weight_blocks):
        slots = [decrypt(plain[j * layout.weight_blocks + k]) for j in columns]
        for values, m in zip(slots, layout.widths, strict=True):
            periods = values.reshape(-1, m * layout.lanes)
            np.testing.assert_allclose(periods, np.broadcast_to(periods[0], periods.shape), atol=2 * near)
        np.testing.assert_allclose(unpack_weights(slots, layout), matrix.x.T @ r[k], atol=near)
        slots = [decrypt(added[j * layout.weight_blocks + k]) for j in columns]
        np.testing.assert_allclose(unpack_weights(slots, layout), old[k] + matrix.x.T @ r[k], atol=near)


@given(st.data())
def test_forward_on_any_layout(layouts: Any, clear_engine: Any, data: st.DataObject) -> None:
    layout = data.draw(layouts())
    e: ClearEngine = clear_engine(layout)
    check_forward(e, layout, e.encrypt, e.decrypt, 1e-5)


@given(st.data())
def test_backward_on_any_layout(layouts: Any, clear_engine: Any, data: st.DataObject) -> None:
    layout = data.draw(layouts())
    e: ClearEngine = clear_engine(layout)
    cut = data.draw(st.integers(0, layout.row_blocks - 1))
    check_backward(e, layout, e.encrypt, e.decrypt, cut, 1e-5)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(512, 1, (16, 8), 4, 2, 2),
        Layout(512, 8, (8, 4, 4), 4, 1, 1),
        Layout(512, 512, (1,), 1, 1, 1),
    ],
)
def test_both_products_encrypted(layout: Layout, tiny_key: SecretKey) -> None:
    engine = tiny_key.engine(layout.keys())

    def encrypt(values: NDArray[Any]) -> Any:
        return engine.load(tiny_key.encrypt(values))

    check_forward(engine, layout, encrypt, tiny_key.decrypt, 2e-3)
    check_backward(engine, layout, encrypt, tiny_key.decrypt, 1, 2e-3)


def test_inner_sums_are_relinearised_once(clear_engine: Any) -> None:
    layout = Layout(512, 1, (16, 8), 4, 2, 1)
    e = clear_engine(layout)
    check_forward(e, layout, e.encrypt, e.decrypt, 1e-5)
    forward = Counter[str]()
    for (name, _), n in e.ledger.counts.items():
        forward[name] += n
    # Four giant steps a row block, however many column blocks, one of them without a rotation; 24
    # diagonals each.
    assert (forward["relinearise"], forward["rotate_relinearise"], forward["multiply"]) == (2, 6, 48)
    matrix = Matrix(layout, e.encrypt)
    e.ledger = Ledger()
    giants = [[[e.encrypt(np.ones(512))] * 4] for _ in range(2)]
    products.gradient(e, layout, products.backward(e, layout, matrix.diagonal, giants, range(2), None))
    backward = Counter[str]()
    for (name, _), n in e.ledger.counts.items():
        backward[name] += n
    # Four baby steps a column block, however many row blocks.
    assert (backward["relinearise"], backward["rotate_relinearise"], backward["multiply"]) == (2, 6, 48)
