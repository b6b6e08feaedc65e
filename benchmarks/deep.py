"""More steps than the levels allow, on the ten digits: accuracy by step against the same steps in clear.

    python -m benchmarks.deep embed SHARED EMBEDDINGS.npz      (with torch and timm)
    python -m benchmarks.deep refresh EMBEDDINGS.npz --work DIRECTORY [--length LENGTH]      (with OpenFHE)
    python -m benchmarks.deep bootstrap EMBEDDINGS.npz      (with OpenFHE, and ten GiB of memory)
    python -m benchmarks.deep serve EMBEDDINGS.npz --work DIRECTORY      (with OpenFHE, and 15 GiB of memory)
    python -m benchmarks.deep page      (from what was measured before)

``refresh``: three hospitals under a joint key, weights refreshed by all of them on the way. ``bootstrap``:
one owner's key, weights bootstrapped by whoever trains. ``serve``: the same by the commands, through a
server, fewer rows and steps. Written to ``benchmarks/results/deep.json`` and
``docs/benchmarks/deep.md``.
"""

from __future__ import annotations

import argparse
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import deeppage
from benchmarks.commands import keep, kept
from benchmarks.datasets import Arrays, embeddings
from benchmarks.joint.machine import here
from blindtune.federation.heads import Cases

TRAIN, TEST, USED = 6144, 4000, 3072
"""Rows that are embedded, every so many of MNIST's, sorted by class; and those of the first that are used."""


def main() -> None:
    """Run a part and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = parser.add_subparsers(dest="part", required=True)
    embed = parts.add_parser("embed")
    embed.add_argument("shared", type=Path)
    embed.add_argument("target", type=Path)
    refresh = parts.add_parser("refresh")
    refresh.add_argument("data", type=Path)
    refresh.add_argument("--work", type=Path, required=True)
    refresh.add_argument("--length", type=float, help="of the result's error, instead of a rehearsal")
    bootstrap = parts.add_parser("bootstrap")
    bootstrap.add_argument("data", type=Path)
    bootstrap.add_argument("--steps", type=int, default=10)
    serve = parts.add_parser("serve")
    serve.add_argument("data", type=Path)
    serve.add_argument("--work", type=Path, required=True)
    serve.add_argument("--steps", type=int, default=5)
    parts.add_parser("page")
    given = parser.parse_args()
    if given.part == "page":
        deeppage.write(kept("deep"))
        return
    if given.part == "embed":
        embeddings(given.shared, given.target.parent, given.target.stem, "mnist.npz", 96, _subset)
        return
    # The commit that is loaded now, whatever is checked out when the run ends.
    machine = here()
    found = {"refresh": refreshed, "bootstrap": bootstrapped, "serve": served}[given.part](given)
    machine["load"] = os.getloadavg()[0]
    keep("deep", {**kept("deep"), given.part: {"machine": machine, **found}})
    deeppage.write(kept("deep"))


def refreshed(given: argparse.Namespace) -> dict[str, Any]:
    """Three hospitals' study, and what is measured of it."""
    from benchmarks.joint.steps import EVERY, LAYOUT, NAMES, PARAMETERS, TRAINED, Rounds, in_clear, task_of

    given.work.mkdir(parents=True)
    train, test = read(given.data)
    order = np.random.default_rng(0).permutation(len(train.labels))
    shards = {
        name: Cases(train.features[rows], train.labels[rows])
        for name, rows in zip(NAMES, np.array_split(order, len(NAMES)), strict=True)
    }
    task, parameters = task_of(train.features.shape[1]), PARAMETERS.checked()
    whitening, _, weights = in_clear(train, task)
    clear = [whitening.fold(w) for w in weights]
    rounds = Rounds(given.work, shards, task, LAYOUT, parameters, length=given.length)
    found = rounds.run()
    return {
        **by_step(found.pop("heads"), clear, test),
        "opened": accuracy(found.pop("opened"), test),
        "train": len(train.labels),
        "test": len(test.labels),
        "ring_degree": parameters.ring_degree,
        "modulus_bits": round(parameters.modulus_bits, 2),
        "levels": parameters.levels,
        "every": EVERY,
        "task": {**TRAINED, "rates": list(task.rates)},
        **found,
        "memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def bootstrapped(given: argparse.Namespace) -> dict[str, Any]:
    """One owner's training, and what is measured of it."""
    from benchmarks.bootstrapped import LITERAL, run, wire_key_bytes
    from benchmarks.joint.steps import RATE, TRAINED

    train, test = read(given.data)
    found = run(train, given.steps)
    return {
        **by_step(found.pop("heads"), found.pop("clear"), test),
        "train": len(train.labels),
        "ring_degree": LITERAL.ring_degree,
        "modulus_bits": LITERAL.modulus_bits,
        "levels": LITERAL.levels,
        "depth": LITERAL.depth,
        "digits": LITERAL.digits,
        "period": LITERAL.period,
        "test": len(test.labels),
        "task": {**TRAINED, "rates": [RATE] * given.steps},
        "wire_key_bytes": wire_key_bytes(LITERAL),
        **found,
        "memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def served(given: argparse.Namespace) -> dict[str, Any]:
    """One owner's training by a server, and what is measured of it."""
    from benchmarks.served import ROWS, run

    train, test = read(given.data, ROWS)
    return run(train, test, given.work, given.steps)


def by_step(heads: list[Any], clear: list[Any], test: Cases) -> dict[str, Any]:
    """Accuracy of each step's head, encrypted and in clear, and how far their logits lie apart."""
    far = [np.abs(logits(a, test) - logits(b, test)).max() for a, b in zip(heads, clear, strict=True)]
    return {
        "encrypted": [accuracy(head, test) for head in heads],
        "clear": [accuracy(head, test) for head in clear],
        "apart": [float(value) for value in far],
    }


def accuracy(head: Any, cases: Cases) -> float:
    """The share of rows whose class has the highest logit."""
    return float((logits(head, cases).argmax(axis=1) == cases.labels).mean())


def logits(head: Any, cases: Cases) -> Any:
    """(rows, classes) of weights (classes, features) and biases (classes,)."""
    weights, biases = head
    return cases.features @ weights.T + biases


def read(path: Path, used: int = USED) -> tuple[Cases, Cases]:
    """So many training rows, and test rows."""
    found = np.load(path)
    train, test = (
        Cases(found[f"{s}_x"].astype(np.float32), found[f"{s}_y"].astype(np.int64)) for s in ("train", "test")
    )
    chosen = np.linspace(0, len(train.labels) - 1, used).astype(int)
    return Cases(train.features[chosen], train.labels[chosen]), test


def _subset(found: Any) -> Arrays:
    columns = {}
    for split, rows in (("train", TRAIN), ("test", TEST)):
        x, y = found[f"x_{split}"], found[f"y_{split}"]
        order = np.argsort(y, kind="stable")
        chosen = order[np.linspace(0, len(y) - 1, rows).astype(int)]
        columns[split] = x[chosen], y[chosen]
    return columns


if __name__ == "__main__":
    main()
