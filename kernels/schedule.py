"""How the work of a phase is cut into tasks for several workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

from blindtune.kernels.layout import Layout, compose

PRODUCT = 0.12
"""A product in key switches, about the same at every level."""

MOST_PIECES = 256
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
    best: tuple[float, list[tuple[int, int]]] | None = None
    for count in range(1, min(workers, pieces) + 1):
        found = _balanced(pieces, count, cost)
        rounds = -(-units * count // workers)
        time = rounds * max(cost(*piece) for piece in found)
        if best is None or time < best[0]:
            best = time, found
    assert best is not None
    return best[1]


def _balanced(pieces: int, count: int, cost: Callable[[int, int], float]) -> list[tuple[int, int]]:
    """The cuts into ``count`` slices whose dearest slice is cheapest."""
    if count == 1 or pieces > MOST_PIECES:
        ends = [pieces * i // count for i in range(count + 1)]
        return list(pairwise(ends))
    # least[n]: the dearest slice of the best cut of the first n pieces, and where its last slice starts.
    least = [(cost(0, n) if n else 0.0, [0]) for n in range(pieces + 1)]
    for k in range(2, count + 1):
        least = [
            min(
                ((max(least[m][0], cost(m, n)), [*least[m][1], m]) for m in range(k - 1, n)),
                default=(float("inf"), [0]),
            )
            for n in range(pieces + 1)
        ]
    starts = least[pieces][1]
    return list(zip(starts, [*starts[1:], pieces], strict=True))


def _away(layout: Layout, offset: int) -> int:
    """Rotations that bring a slice's sum to its place."""
    return len(compose(offset, layout.slots, layout.keys().rotations)) if offset else 0
