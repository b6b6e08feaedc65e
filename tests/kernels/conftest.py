"""Layouts of all shapes for hypothesis, and engines to run kernels on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from blindtune.he.clear import ClearEngine
from blindtune.kernels.layout import Layout
from blindtune.kernels.packing import pack_lanes, rotate_target
from blindtune.kernels.training import Trainer
from blindtune.params import Parameters, ParametersLiteral


@pytest.fixture(scope="session")
def exact() -> Parameters:
    """Tiny parameters whose rescaling drifts below 1e-6: kernels are then exact to that."""
    return ParametersLiteral(1024, 17, 50, 58, 58, security=0).checked()


@st.composite
def _layouts(draw: Any, slots: int = 512, most_lanes: int = 512) -> Layout:
    lanes = 1 << draw(st.integers(0, min(most_lanes, slots).bit_length() - 1))
    rows = slots // lanes
    top = min(5, rows.bit_length() - 1)
    baby = draw(st.integers(0, top))
    exponents = draw(st.lists(st.integers(baby, top), min_size=1, max_size=3))
    widths = tuple(1 << e for e in exponents)
    return Layout(slots, lanes, widths, 1 << baby, draw(st.integers(1, 3)), draw(st.integers(1, 2)))


@pytest.fixture(scope="session")
def layouts() -> Callable[..., st.SearchStrategy[Layout]]:
    """A strategy for layouts: one lane to as many as slots, unequal column blocks, several blocks."""
    return _layouts


@pytest.fixture(scope="session")
def clear_engine(exact: Parameters) -> Callable[[Layout], ClearEngine]:
    """A clear engine with exactly a layout's keys."""
    return lambda layout: ClearEngine(exact, layout.keys())


def _rotated(study: Any, encrypt: Callable[[Any], Any]) -> dict[tuple[int, int], list[Any]]:
    layout, residual = study.layout, study.s * study.y
    found = {}
    for k in range(layout.weight_blocks):
        for i in range(layout.row_blocks):
            rows = slice(i * layout.rows, (i + 1) * layout.rows)
            heads = slice(k * layout.lanes, (k + 1) * layout.lanes)
            found[k, i] = [
                encrypt(v) for v in rotate_target(pack_lanes(residual[rows, heads], layout), layout)
            ]
    return found


@pytest.fixture(scope="session")
def rotated() -> Callable[..., dict[tuple[int, int], list[Any]]]:
    """The first step's residuals of a study, rotated for every giant step, as a hospital sends them."""
    return _rotated


@pytest.fixture(scope="session")
def full_trainer() -> Callable[..., Trainer]:
    """A trainer over all that a hospital sends, rotated targets included."""
    return lambda study, engine, encrypt: Trainer(
        engine, study.layout, *study.encrypted(encrypt), _rotated(study, encrypt)
    )
