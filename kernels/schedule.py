"""How the work of a phase is cut into tasks for several workers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from blindtune.kernels.layout import Layout


def slices(costs: Sequence[float], layout: Layout, units: int, workers: int) -> list[tuple[int, int]]:
    """Cut the pieces of one unit of work so that ``units`` such units keep ``workers`` busy.

    Every extra slice repeats the rotations that its pieces share, so there are as few slices as give the
    shortest time: with ``units`` a multiple of ``workers`` one, with a single unit one a worker.

    Args:
        costs: cost of each consecutive piece, one for a key switch.

    Returns:
        ``(start, stop)`` of each slice.
    """
    shared = len(layout.widths) * (layout.baby - 1)

    def makespan(count: int) -> float:
        rounds = -(-units * count // workers)
        return rounds * (sum(costs) / count + shared + (count > 1))

    count = min(range(1, min(workers, len(costs)) + 1), key=makespan)
    total = sum(costs)
    ends = list(accumulate(costs))
    cuts = [0]
    for i in range(1, count):
        goal = total * i / count
        cuts.append(min(range(1, len(costs)), key=lambda n: abs(ends[n - 1] - goal)))
    cuts = [*sorted(set(cuts)), len(costs)]
    return list(pairwise(cuts))
