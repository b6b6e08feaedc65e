"""Measure how fast this machine carries out an engine's operations, in about ten seconds.

Run it where training will run. It makes a throw-away key, so it belongs to no study.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from blindtune.he.engine import Ciphertext, Engine, KeySet, Ledger
from blindtune.he.engines import evaluation_engine
from blindtune.he.secret import SecretKey
from blindtune.kernels.machine import SWITCHES, Machine, Price
from blindtune.params import ParametersLiteral

RINGS = {16384: 11, 32768: 20}
"""Ring degrees that studies use, with the levels to measure up to."""

TERMS, ROWS, HEADS = 16, 4, 4
"""Ciphertexts of a product sum, rows of lefts and rows of rights: together too many for a cache."""

BATCH = 4

CACHE = 1 << 26
"""Bytes that are read between measurements: in training every key comes from memory, not from a cache."""

Sample = tuple[int, float, float, float]
"""Limbs, ciphertexts, calls, seconds."""


def calibrate(
    cores: int, seconds: float = 10.0, on_done: Callable[[int, int], None] = lambda _done, _total: None
) -> Machine:
    """Prices of this machine on so many threads.

    Args:
        seconds: spent on measuring, besides making keys.
        on_done: called with measurements done and in all.
    """
    prices = {}
    name = ""
    for number, (ring_degree, levels) in enumerate(RINGS.items()):
        p = ParametersLiteral(ring_degree, levels).checked()
        key, keys = SecretKey.generate(p), KeySet((1,))
        galois = {e: key.galois_key(e) for e in key.galois_elements(keys)}
        engine = evaluation_engine(p, keys, key.relinearisation_key(), galois, cores=cores)
        blob = key.encrypt(np.exp(1j * np.arange(p.slots)))
        loaded = [engine.load(blob) for _ in range(TERMS * (ROWS + HEADS))]
        name = type(engine).__name__
        samples = _samples(engine, loaded, seconds / len(RINGS))
        prices[ring_degree] = {
            operation: fit(found, ring_degree, switch=operation in SWITCHES)
            for operation, found in samples.items()
        }
        on_done(number + 1, len(RINGS))
    return Machine(f"{processor()}, {cores} threads, {name}", cores, prices)


def processor() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "processor unknown"


def _samples(engine: Engine, loaded: list[Ciphertext], seconds: float) -> dict[str, list[Sample]]:
    top = engine.parameters.levels
    works = [
        work
        for level in (top, top // 2, max(1, top // 6))
        for work in _works(engine, [engine.at_level(c, level) for c in loaded])
    ]
    for work in works:
        work()
    other = np.ones(CACHE // 8)
    taken: list[list[Ledger]] = [[] for _ in works]
    end = time.perf_counter() + seconds
    # In turns: what else the machine does for a while falls on all operations alike.
    while not taken[0] or time.perf_counter() < end:
        for work, ledgers in zip(works, taken, strict=True):
            other.sum()
            engine.ledger = Ledger()
            work()
            ledgers.append(engine.ledger)
    found: dict[str, list[Sample]] = {}
    for ledgers in taken:
        [((name, level), count)] = ledgers[0].counts.items()
        median = float(np.median([ledger.total_seconds for ledger in ledgers]))
        found.setdefault(name, []).append((level + 1, count, ledgers[0].calls[name, level], median))
    return found


def _works(engine: Engine, loaded: list[Ciphertext]) -> Iterator[Callable[[], object]]:
    """Every operation at the level of what is loaded, on one ciphertext and on a batch."""
    table = [loaded[i : i + TERMS] for i in range(0, len(loaded), TERMS)]
    lefts = table[0]
    for rows, heads in product((1, ROWS), (1, HEADS)):
        yield lambda m=rows, k=heads: engine.multiply_accumulate(table[:m], table[ROWS : ROWS + k])  # type: ignore[misc]
    sums = engine.multiply_accumulate([lefts[:1]], [[c] for c in lefts[:BATCH]])
    flat = engine.relinearise(sums)
    for n in (1, BATCH):
        few, wide, products = lefts[:n], sums[:n], flat[:n]
        yield lambda a=wide: engine.relinearise(a)  # type: ignore[misc]
        yield lambda a=few: engine.rotate(a, 1)  # type: ignore[misc]
        yield lambda a=products, b=wide: engine.rotate(a, 1, onto=b)  # type: ignore[misc]
        yield lambda a=products: engine.rescale(a)  # type: ignore[misc]
    yield lambda: engine.add(lefts[0], lefts[1])
    yield lambda: engine.multiply_scalar(lefts[0], 0.9)


def fit(samples: list[Sample], ring_degree: int, *, switch: bool) -> Price:
    """The price that explains measured seconds best, none of its parts negative.

    Args:
        samples: limbs, ciphertexts, calls and seconds of each measurement.
        switch: whether the price has a part that grows with the digits of a key switch.
    """
    from scipy.optimize import nnls

    limbs, count, calls, seconds = (np.array(column, float) for column in zip(*samples, strict=True))
    size = ring_degree * limbs
    columns: list[NDArray[np.float64]] = [size * count, calls, size * calls]
    if switch:
        columns.append(size * (limbs + 1) * count)
    # Relative errors count: a cheap level matters as much as a dear one.
    table = np.stack(columns, axis=1) / seconds[:, None]
    scale = np.abs(table).max(axis=0)
    found = nnls(table / scale, np.full(len(seconds), 1e9))[0] / scale
    return Price(
        limb=float(found[0]),
        digit=float(found[3]) if switch else 0.0,
        call=float(found[1]),
        call_limb=float(found[2]),
    )
