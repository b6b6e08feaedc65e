"""Layouts of all shapes for hypothesis, and engines to run kernels on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from blindtune.he.clear import ClearEngine
from blindtune.kernels.layout import Layout
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
