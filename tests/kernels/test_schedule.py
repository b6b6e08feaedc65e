"""Slices of work: whole, in order, no more than workers, and as short as a search finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.kernels.layout import Layout
from blindtune.kernels.schedule import MOST_PIECES, backward_cuts, cut, forward_cuts, segments

Slices = list[tuple[int, int]]
Cost = Callable[[int, int], float]


def covers(found: Slices, pieces: int, workers: int) -> None:
    assert found[0][0] == 0
    assert found[-1][1] == pieces
    assert all(a[1] == b[0] for a, b in pairwise(found))
    assert all(start < stop for start, stop in found)
    assert len(found) <= workers


def every_cut(pieces: int, count: int) -> Iterator[Slices]:
    """All ways to cut into ``count`` slices."""
    for ends in combinations(range(1, pieces), count - 1):
        yield list(pairwise((0, *ends, pieces)))


def dearest(slices: Slices, cost: Cost) -> float:
    return max(cost(*piece) for piece in slices)


@st.composite
def costs(draw: Any, most: int = 8) -> tuple[int, Cost]:
    """So many pieces with whole costs of their own, and what each slice of them pays besides."""
    each = draw(st.lists(st.integers(1, 20), min_size=1, max_size=most))
    shared, late = draw(st.integers(0, 15)), draw(st.integers(0, 3))

    def cost(start: int, stop: int) -> float:
        return float(shared + sum(each[start:stop]) + late * min(start, 5))

    return len(each), cost


@given(layout_and_workers=st.data())
def test_slices_cover_all_pieces_once(layouts: Any, layout_and_workers: st.DataObject) -> None:
    layout = layout_and_workers.draw(layouts())
    workers = layout_and_workers.draw(st.integers(1, 8))
    covers(forward_cuts(layout, workers), max(layout.giants) * layout.row_blocks, workers)
    covers(backward_cuts(layout, workers), layout.baby * len(layout.widths), workers)


@given(case=costs(), units=st.integers(1, 5), workers=st.integers(1, 6))
def test_no_other_cut_is_done_sooner(case: tuple[int, Cost], units: int, workers: int) -> None:
    pieces, cost = case
    found = cut(pieces, units, workers, cost)
    covers(found, pieces, workers)
    # The dearest slice is as cheap as so many slices allow ...
    assert dearest(found, cost) == min(dearest(c, cost) for c in every_cut(pieces, len(found)))
    # ... and no other number of slices is done sooner, when workers take one after the other.
    times = [
        -(-units * count // workers) * dearest(c, cost)
        for count in range(1, min(workers, pieces) + 1)
        for c in every_cut(pieces, count)
    ]
    assert -(-units * len(found) // workers) * dearest(found, cost) == min(times)


@given(data=st.data(), pieces=st.integers(1, 6), units=st.integers(1, 4), workers=st.integers(1, 5))
def test_nor_with_any_cost_at_all(data: st.DataObject, pieces: int, units: int, workers: int) -> None:
    table = data.draw(st.lists(st.integers(0, 9), min_size=49, max_size=49))

    def cost(start: int, stop: int) -> float:
        return float(table[7 * start + stop])

    found = cut(pieces, units, workers, cost)
    covers(found, pieces, workers)
    assert dearest(found, cost) == min(dearest(c, cost) for c in every_cut(pieces, len(found)))


@given(case=costs(40), workers=st.integers(1, 8), times=st.integers(1, 4))
def test_units_that_are_a_multiple_of_the_workers_stay_whole(
    case: tuple[int, Cost], workers: int, times: int
) -> None:
    pieces, cost = case
    assert cut(pieces, times * workers, workers, cost) == [(0, pieces)]


@pytest.mark.parametrize("cuts", [forward_cuts, backward_cuts])
@pytest.mark.parametrize(("weight_blocks", "workers"), [(1, 1), (2, 1), (2, 2), (4, 2), (3, 3)])
def test_weight_blocks_that_fill_the_workers_stay_whole(
    cuts: Callable[[Layout, int], Slices], weight_blocks: int, workers: int
) -> None:
    layout = Layout(512, 1, (64, 32), 8, 2, weight_blocks)
    assert len(cuts(layout, workers)) == 1


@pytest.mark.parametrize("cuts", [forward_cuts, backward_cuts])
@pytest.mark.parametrize("workers", [2, 4])
def test_a_single_weight_block_is_shared_by_all_workers(
    cuts: Callable[[Layout, int], Slices], workers: int
) -> None:
    assert len(cuts(Layout(512, 1, (64, 64), 8, 2, 1), workers)) == workers


def test_a_single_unit_is_cut_by_cost_and_not_by_number() -> None:
    each = [30, 1, 1, 1, 1, 1, 1, 1, 1, 22]
    assert cut(10, 1, 2, lambda a, b: float(sum(each[a:b]))) == [(0, 1), (1, 10)]
    assert cut(64, 1, 4, lambda a, b: float(b - a)) == [(0, 16), (16, 32), (32, 48), (48, 64)]


def test_what_every_slice_repeats_keeps_a_unit_whole() -> None:
    assert cut(4, 3, 4, lambda a, b: 100.0 + b - a) == [(0, 4)]


def test_very_many_pieces_are_cut_evenly() -> None:
    pieces = 4 * (MOST_PIECES + 1)
    found = cut(pieces, 1, 4, lambda a, b: float(b - a))
    assert found == [(i * pieces // 4, (i + 1) * pieces // 4) for i in range(4)]


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
