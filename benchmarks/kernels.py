"""Milliseconds of each operation: SEAL itself, and the kernels by variant and threads, in one run.

    python -m benchmarks.kernels [--degrees 16384 32768] [--out kernels.json]

Every figure is the least of several calls, as other programs only ever add to a time; SEAL runs between
the others, so that a ratio compares like with like. Products are in nanoseconds a coefficient, limb and
product. Keys and ciphertexts are of random values under throw-away keys.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import machine
from blindtune.he.cpu import has_ifma
from blindtune.he.engine import Ciphertext, Engine, KeySet
from blindtune.he.fast.engine import FastEngine
from blindtune.he.fast.vector import Variant
from blindtune.he.seal import SealEngine
from blindtune.he.secret import SecretKey
from blindtune.params import ParametersLiteral

CHAINS = {16384: (11, 30, (12, 9, 7, 6, 3)), 32768: (19, 36, (20, 12, 6))}
"""Levels, bits of the scale, and limbs to measure, by ring degree."""

BATCH, TERMS, ROWS = 4, 48, 4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--degrees", type=int, nargs="*", default=sorted(CHAINS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [row for n in options.degrees for row in measure(n, options.repeats)]
    found = {"machine": machine(), "rows": rows}
    for row in rows:
        seal = row["milliseconds"]["seal"]
        times = ", ".join(f"{k} {v:.2f} (x{seal / v:.1f})" for k, v in row["milliseconds"].items())
        print(f"N={row['degree']} L={row['limbs']} {row['operation']}: {times}")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def measure(degree: int, repeats: int) -> list[dict[str, Any]]:
    """All operations at all numbers of limbs."""
    levels, scale, limbs = CHAINS[degree]
    parameters = ParametersLiteral(degree, levels, scale, security=0).checked()
    key, keys = SecretKey.generate(parameters), KeySet((1,))
    relin = key.relinearisation_key()
    galois = {e: key.galois_key(e) for e in key.galois_elements(keys)}
    engines: dict[str, Engine] = {"seal": SealEngine(parameters, keys, relin, galois)}
    for variant in (Variant.IFMA, Variant.PORTABLE):
        if variant is Variant.PORTABLE or has_ifma():
            for threads in (1, 2):
                engines[f"{variant.value}-{threads}"] = FastEngine(
                    parameters, keys, relin, galois, threads, variant
                )
    rng = np.random.default_rng(0)
    data = [key.encrypt(rng.uniform(-1, 1, parameters.slots)) for _ in range(BATCH)]
    rows = []
    for count in limbs:
        jobs = {name: operations(e, [e.load(d) for d in data], count - 1) for name, e in engines.items()}
        for operation in jobs["seal"]:
            best = dict.fromkeys(engines, float("inf"))
            for name in engines:
                jobs[name][operation][0]()
            for repeat in range(repeats):
                for name in engines:
                    # SEAL's times are long, and vary little.
                    if name != "seal" or repeat < 2:
                        f, divisor = jobs[name][operation]
                        best[name] = min(best[name], _milliseconds(f) / divisor)
            rows.append({"degree": degree, "limbs": count, "operation": operation, "milliseconds": best})
    return rows


def operations(
    e: Engine, fresh: list[Ciphertext], level: int
) -> dict[str, tuple[Callable[[], object], float]]:
    """Operations, with what to divide a call's time by."""
    a = [e.at_level(c, level) for c in fresh]
    products = e.multiply_accumulate([a], [a] * BATCH)
    flat = e.relinearise(products)
    lefts = [a[i % BATCH] for i in range(TERMS)]
    rights = [[a[(i + k) % BATCH] for i in range(TERMS)] for k in range(ROWS)]
    each = TERMS * (level + 1) * e.parameters.ring_degree / 1e6
    return {
        "relinearise": (lambda: e.relinearise(products[:1]), 1),
        f"relinearise, of {BATCH}": (lambda: e.relinearise(products), BATCH),
        "rotate": (lambda: e.rotate(a[:1], 1), 1),
        f"rotate, of {BATCH}": (lambda: e.rotate(a, 1), BATCH),
        f"rotate and relinearise, of {BATCH}": (lambda: e.rotate(flat, 1, products), BATCH),
        f"rescale, of {BATCH}": (lambda: e.rescale(flat), BATCH),
        "add": (lambda: e.add(a[0], a[1]), 1),
        "multiply by a scalar": (lambda: e.multiply_scalar(a[0], 0.3), 1),
        "a product, ns": (lambda: e.multiply_accumulate([lefts], rights[:1]), each),
        f"a product, {ROWS} rows by {ROWS}, ns": (
            lambda: e.multiply_accumulate([lefts] * ROWS, rights),
            each * ROWS**2,
        ),
    }


def _milliseconds(f: Callable[[], object]) -> float:
    start = time.perf_counter()
    f()
    return (time.perf_counter() - start) * 1e3


def render(found: dict[str, Any]) -> str:
    """A Markdown table: milliseconds, and how many times as fast as SEAL."""
    names = list(found["rows"][0]["milliseconds"])
    lines = [
        "| N | limbs | operation | " + " | ".join(names) + " |",
        "|" + "---|" * (3 + len(names)),
    ]
    for row in found["rows"]:
        seal = row["milliseconds"]["seal"]
        cells = [
            f"{v:.2f} ({seal / v:.1f}×)" if n != "seal" else f"{v:.2f}"
            for n, v in row["milliseconds"].items()
        ]
        lines.append(f"| {row['degree']} | {row['limbs']} | {row['operation']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
