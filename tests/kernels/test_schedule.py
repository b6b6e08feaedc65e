"""Slices of work: whole, in order, no more than workers, and as short as a search finds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.kernels.layout import Layout
from blindtune.kernels.schedule import slices
from blindtune.kernels.training import segments

LAYOUT = Layout(512, 1, (16, 8), 4, 1, 1)


@given(
    costs=st.lists(st.floats(0.1, 10), min_size=1, max_size=40),
    units=st.integers(1, 6),
    workers=st.integers(1, 16),
)
def test_slices_cover_all_pieces_once(costs: list[float], units: int, workers: int) -> None:
    cut = slices(costs, LAYOUT, units, workers)
    assert cut[0][0] == 0
    assert cut[-1][1] == len(costs)
    assert all(a[1] == b[0] for a, b in pairwise(cut))
    assert all(start < stop for start, stop in cut)
    assert len(cut) <= workers


def test_one_worker_never_repeats_shared_rotations() -> None:
    assert slices([1.0] * 64, LAYOUT, 3, 1) == [(0, 64)]


def test_units_that_fill_the_workers_stay_whole() -> None:
    assert slices([1.0] * 64, LAYOUT, 4, 4) == [(0, 64)]


def test_a_single_unit_is_shared_out_evenly() -> None:
    assert slices([1.0] * 64, LAYOUT, 1, 4) == [(0, 16), (16, 32), (32, 48), (48, 64)]
    # Uneven costs are cut by cost, not by number.
    assert slices([30.0, 1, 1, 1, 1, 1, 1, 1, 1, 22], LAYOUT, 1, 2) == [(0, 1), (1, 10)]


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), data=st.data())
def test_segments_by_counting(lengths: list[int], data: st.DataObject) -> None:
    total = sum(lengths)
    start = data.draw(st.integers(0, total - 1))
    stop = data.draw(st.integers(start + 1, total))
    pieces = [(index, n) for index, length in enumerate(lengths) for n in range(length)][start:stop]
    found = list(segments(lengths, start, stop))
    assert [(i, n) for i, first, last in found for n in range(first, last)] == pieces
    assert len({i for i, _, _ in found}) == len(found)


def test_nothing_of_an_empty_range() -> None:
    assert list(segments([3, 3], 2, 2)) == []


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_more_workers_never_lengthen_a_worker(workers: int) -> None:
    cut = slices([1.0] * 60, LAYOUT, 1, workers)
    assert max(stop - start for start, stop in cut) <= -(-60 // workers) + 1
