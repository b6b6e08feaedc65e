"""Three hospitals and a server, four processes in four directories: one head on all rows, opened by all.

    python -m benchmarks.jointkeys EMBEDDINGS.npz --work DIRECTORY [--server-python PYTHON] [--length LENGTH]

In an environment with OpenFHE; the server may run in another one, with SEAL. Embeddings are what ``blindtune
encrypt`` keeps in a study's private directory: features, labels, patients and splits. The training patients
are split into three unequal shards with other shares of the classes. Written to
``benchmarks/results/jointkeys.json``, ``docs/joint-keys.md`` and the README: areas under the curve of the
pooled head, encrypted and in clear, of each hospital's own head and of federated averaging; seconds and bytes
of every phase; and what an attacker finds who has all directories but one.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import keep, kept
from benchmarks.joint import page
from benchmarks.joint.attack import attack
from benchmarks.joint.heads import areas, heads
from benchmarks.joint.machine import here
from benchmarks.joint.roles import finish, start_role, told
from benchmarks.joint.task import (
    LAYOUT,
    SHARES,
    STATISTICAL_BITS,
    agree,
    lay_out,
    parameters_of,
    split,
    task_of,
)
from blindtune.federation.threshold.rehearsal import MARGIN, Rehearsal
from blindtune.federation.threshold.standin import stand_in
from blindtune.imaging.arrays import load_embeddings


def main() -> None:
    """Run the study and write its pages."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--server-python", default=sys.executable)
    parser.add_argument("--length", type=float, help="of the result's error, instead of a rehearsal")
    given = parser.parse_args()
    keep("jointkeys", run(given))
    page.write(kept("jointkeys"))


def run(given: argparse.Namespace) -> dict[str, Any]:
    """The study, and what is measured of it."""
    machine = here()
    given.work.mkdir(parents=True)
    data = load_embeddings(given.data)
    training, task = split(data, "train", SHARES), task_of(data)
    parameters = parameters_of(task)
    length, rehearsed = given.length, None
    if length is None:
        start = time.perf_counter()
        train = stand_in(task, LAYOUT, len(SHARES), max(len(cases.labels) for cases in training.values()))
        length = MARGIN * Rehearsal(parameters, LAYOUT, len(SHARES)).length(train)
        rehearsed = time.perf_counter() - start
    terms, identities = agree(SHARES, task, length)
    lay_out(given.work, terms, identities, training)
    start = time.perf_counter()
    pythons = dict.fromkeys(SHARES, sys.executable) | {"server": given.server_python}
    finish([start_role(given.work, name, python) for name, python in pythons.items()])
    seconds = {"rehearsal": rehearsed, "study": time.perf_counter() - start}
    opened = np.load(given.work / next(iter(SHARES)) / "head.npz")
    encrypted = (opened["weights"], opened["biases"])
    compared = heads(encrypted, data, training, split(data, "val", SHARES), task)
    return {
        "machine": machine,
        "ring_degree": parameters.ring_degree,
        "modulus_bits": round(parameters.modulus_bits, 2),
        "statistical_bits": STATISTICAL_BITS,
        "length": length,
        "seconds": seconds,
        "classes": list(data.classes),
        "rows": {name: np.bincount(s.labels).tolist() for name, s in training.items()},
        "held": {part: len(data.indices(part)) for part in ("val", "test")},
        "roles": {name: told(given.work / name) for name in pythons},
        "messages": messages(given.work / "server" / "mailbox"),
        "areas": areas(compared, data),
        "attack": attack(given.work, terms),
    }


def messages(mailbox: Path) -> dict[str, dict[str, Any]]:
    """Number and bytes of one hospital's messages in each stage."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(mailbox.rglob(f"*.{next(iter(SHARES))}")):
        stage = found.setdefault(path.parent.name.partition("-")[0], {"messages": 0, "bytes": 0})
        stage["messages"] += 1
        stage["bytes"] += path.stat().st_size
    return found


if __name__ == "__main__":
    main()
