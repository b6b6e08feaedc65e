"""More steps than the levels allow, on the ten digits: accuracy by step against the same steps in clear.

    python -m benchmarks.deep embed SHARED EMBEDDINGS.npz      (with torch and timm)
    python -m benchmarks.deep refresh EMBEDDINGS.npz --work DIRECTORY [--length LENGTH]      (with OpenFHE)
    python -m benchmarks.deep bootstrap EMBEDDINGS.npz      (with OpenFHE, and ten GiB of memory)

``refresh``: three hospitals under a joint key, weights refreshed by all of them on the way. ``bootstrap``:
one owner's key, weights bootstrapped by whoever trains. Written to ``benchmarks/results/deep.json`` and
``docs/benchmarks/deep.md``.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import ROOT, commit, keep, kept
from benchmarks.datasets import Arrays, embeddings
from benchmarks.page import table
from blindtune.client.calibrate import processor
from blindtune.federation.heads import Cases

PAGE = ROOT / "docs" / "benchmarks" / "deep.md"
TRAIN, TEST = 6144, 4000
"""Rows: every so many of MNIST's, sorted by class."""


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
    bootstrap.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    if given.part == "embed":
        embeddings(given.shared, given.target.parent, given.target.stem, "mnist.npz", 96, _subset)
        return
    found = refreshed(given) if given.part == "refresh" else bootstrapped(given)
    keep("deep", {**kept("deep"), given.part: {"machine": here(), **found}})
    write(kept("deep"))


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
        "rows": {name: len(cases.labels) for name, cases in shards.items()},
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
    from benchmarks.bootstrapped import LITERAL, run

    train, test = read(given.data)
    found = run(train, given.steps)
    return {
        **by_step(found.pop("heads"), found.pop("clear"), test),
        "rows": len(train.labels),
        "ring_degree": LITERAL.ring_degree,
        "modulus_bits": LITERAL.modulus_bits,
        "levels": LITERAL.levels,
        "depth": LITERAL.depth,
        "digits": LITERAL.digits,
        "period": LITERAL.period,
        **found,
        "memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


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


def read(path: Path) -> tuple[Cases, Cases]:
    """Training and test rows."""
    found = np.load(path)
    train, test = (
        Cases(found[f"{s}_x"].astype(np.float32), found[f"{s}_y"].astype(np.int64)) for s in ("train", "test")
    )
    return train, test


def here() -> dict[str, Any]:
    """Where and with what something is measured."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "openfhe": version("openfhe"),
        "commit": commit(),
        "load": os.getloadavg()[0],
    }


def write(found: dict[str, Any]) -> None:
    """Write the page."""
    r = found["refresh"]
    m, task, seconds = r["machine"], r["task"], r["seconds"]
    levels = range(1, len(r["clear"]) + 1)
    rows = [
        [
            f"{step}{' *' if step % r['every'] == 0 and step < len(r['clear']) else ''}",
            f"{r['clear'][step - 1]:.4f}",
            f"{r['encrypted'][step - 1]:.4f}",
            f"{r['apart'][step - 1]:.1e}",
        ]
        for step in levels
    ]
    each = r["refreshes"]
    took = np.median([x["seconds"] for x in each])
    part = r["sent"]["refresh"] / len(each)
    text = f"""# More steps than the levels allow

Written by `python -m benchmarks.deep` on {m["cpu"]}, {m["cores"]} cores, Python {m["python"]}, OpenFHE
{m["openfhe"]}, one thread.

MNIST, ten digits, DeiT-tiny at 96 px (192 features), {sum(r["rows"].values()):,} of its training images and
{r["test"]:,} of its test images (every so many, sorted by class), {task["directions"]} whitened directions,
each digit against the rest by a polynomial of degree {task["degree"]} on |z| ≤ {task["interval"]:g}, learning
rate {task["rates"][0]:g}.

## Joint key of three hospitals: interactive refresh

{len(r["clear"])} steps on {r["levels"]} levels; all three hospitals refresh the weights after every
{r["every"]} steps (*). Ring degree {r["ring_degree"]:,}, {r["modulus_bits"]:g} bits. The weights of each step
were decrypted with all shares in one place, which only this benchmark does. The last column is the largest
difference of a logit of a test image.

{table(["step", "accuracy in clear", "accuracy encrypted", "logits apart"], rows)}

The head that the hospitals open, under their smudging noise: {r["opened"]:.4f}.

A refresh takes a hospital {took:.2f} s, of which it reads {each[0]["received"] / 1e6:.1f} MB and writes
{part / 1e6:.1f} MB; there are {len(each)}. On one core under a load of {m["load"]:.1f} at the end: key
generation {seconds["keys"]:.0f} s a hospital ({_sent(r, "first", "second") / 1e6:.0f} MB), rows
{seconds["rows"]:.0f} s a hospital, loading {seconds["loading"]:.0f} s, training without the hospitals
{seconds["training"]:.0f} s, opening {seconds["opening"]:.1f} s a hospital{_rehearsal(seconds)}. All in one
process, with at most {r["memory_gib"]:.1f} GiB. Commit {m["commit"]}.
"""
    PAGE.write_text(text)


def _sent(found: dict[str, Any], *stages: str) -> int:
    return sum(found["sent"][stage] for stage in stages)


def _rehearsal(seconds: dict[str, float]) -> str:
    if "rehearsal" not in seconds:
        return "; the length of the error is that of an earlier rehearsal"
    return f"; the rehearsal that measures the error took {seconds['rehearsal']:.0f} s"


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
