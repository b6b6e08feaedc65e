"""What several cores of this machine can do together, whatever the program: the bound on any speed-up.

Virtual cores may share a physical core or its memory's bandwidth. Two loops of numpy, each alone and in
as many processes as there are cores, tell what is to be had.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable

import numpy as np

SECONDS = 1.0
ROUNDS = 5


def arithmetic(seconds: float) -> float:
    """Passes a second over arrays that stay in the first-level cache."""
    a, b = np.random.default_rng(0).random((2, 1000))
    return _rate(lambda: np.multiply(a, b, out=b), seconds)


def streaming(seconds: float) -> float:
    """Passes a second over 256 MiB, which no cache holds."""
    a = np.ones(1 << 25)
    return _rate(a.sum, seconds)


def _rate(work: Callable[[], object], seconds: float) -> float:
    work()
    start, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds:
        work()
        done += 1
    return done / spent


def ceiling(cores: int) -> dict[str, list[float]]:
    """Speed-ups from one process to ``cores``, of each loop: one a round, as neighbours come and go."""
    with multiprocessing.Pool(cores) as pool:
        found: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for work in (arithmetic, streaming):
                alone = pool.map(work, [SECONDS])[0]
                together = sum(pool.map(work, [SECONDS] * cores, chunksize=1))
                found.setdefault(work.__name__, []).append(together / alone)
    return found
