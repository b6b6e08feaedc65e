"""How the work of a phase is cut into tasks for several workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

from blindtune.kernels.layout import Layout, compose

PRODUCT = 0.12
"""A product in key switches, about the same at every level."""

MOST_PIECES = 64
"""Units of more pieces are cut evenly: the search for better cuts would cost more than it saves."""


def segments(lengths: Sequence[int], start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """The parts ``(index, first, last)`` of consecutive runs of pieces that ``start … stop`` covers."""
    offset = 0
    for index, length in enumerate(lengths):
        first, last = max(start - offset, 0), min(stop - offset, length)
        if first < last:
            yield index, first, last
        offset += length


@lru_cache(maxsize=64)
def forward_cuts(layout: Layout, workers: int) -> list[tuple[int, int]]:
    """Slices of a weight block's forward pieces, which are giant steps, row block by row block."""
    giants = [max(layout.giants)] * layout.row_blocks
    babies = len(layout.widths) * (layout.baby - 1)
    products = PRODUCT * layout.baby * sum(layout.giants) / max(layout.giants)

    def cost(start: int, stop: int) -> float:
        total = float(babies)
        for _, first, last in segments(giants, start, stop):
            total += (last - first) * (2 + products) - 1 + _away(layout, first * layout.baby * layout.lanes)
        return total

    return cut(sum(giants), layout.weight_blocks, workers, cost)


@lru_cache(maxsize=64)
def backward_cuts(layout: Layout, workers: int) -> list[tuple[int, int]]:
    """Slices of a weight block's backward pieces, which are baby steps, column block by column block."""
    babies = [layout.baby] * len(layout.widths)

    def cost(start: int, stop: int) -> float:
        total, giants = 0.0, 0
        for j, first, last in segments(babies, start, stop):
            products = PRODUCT * layout.row_blocks * layout.giants[j]
            total += (last - first) * (2 + products) - 1 + _away(layout, -first * layout.lanes)
            giants = max(giants, layout.giants[j])
        return total + layout.row_blocks * (giants - 1)

    return cut(sum(babies), layout.weight_blocks, workers, cost)


def cut(pieces: int, units: int, workers: int, cost: Callable[[int, int], float]) -> list[tuple[int, int]]:
    """Cut a unit's pieces so that so many units keep the workers busy for the shortest time.

    More slices repeat what pieces share, so ``units`` that are a multiple of ``workers`` stay whole.

    Args:
        cost: of the slice ``start … stop``.

    Returns:
        ``(start, stop)`` of each slice.
    """
    most = min(workers, pieces)
    cuts = _even(pieces, most) if pieces > MOST_PIECES else _balanced(pieces, most, cost)

    def time(found: list[tuple[int, int]]) -> float:
        return -(-units * len(found) // workers) * max(cost(*piece) for piece in found)

    return min(cuts, key=time)


def _even(pieces: int, most: int) -> list[list[tuple[int, int]]]:
    """Cuts into 1 … most slices of about as many pieces each."""
    ends = [[pieces * i // count for i in range(count + 1)] for count in range(1, most + 1)]
    return [list(pairwise(e)) for e in ends]


def _balanced(pieces: int, most: int, cost: Callable[[int, int], float]) -> list[list[tuple[int, int]]]:
    """The cuts into 1 … most slices whose dearest slice is cheapest."""
    costs = {(m, n): cost(m, n) for m in range(pieces) for n in range(m + 1, pieces + 1)}
    # least[n]: the dearest slice of the best cut of the first n pieces, and where its slices start.
    least: list[tuple[float, list[int]]] = [(costs.get((0, n), 0.0), [0]) for n in range(pieces + 1)]
    cuts = [[(0, pieces)]]
    for k in range(2, most + 1):
        least = [
            min(
                ((max(least[m][0], costs[m, n]), [*least[m][1], m]) for m in range(k - 1, n)),
                default=(float("inf"), [0]),
            )
            for n in range(pieces + 1)
        ]
        cuts.append(list(pairwise([*least[pieces][1], pieces])))
    return cuts


@lru_cache(maxsize=1024)
def _away(layout: Layout, offset: int) -> int:
    """Rotations that bring a slice's sum to its place."""
    return len(compose(offset, layout.slots, layout.keys().rotations)) if offset else 0
