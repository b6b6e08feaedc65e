"""The same studies on one core, on two, and on Ray clusters of one and two nodes of a core each.

    python -m benchmarks.cluster --work /tmp/cluster [--sizes 64000x2 20000x40] [--turns 2]

Sizes are rows and classes.

Everything runs on this machine: nodes of the cluster are processes of its own, each with one core, and what
they say to each other goes over loopback. Ratios are of the quickest trainings within this run. Written to
``docs/benchmarks/cluster.md`` and ``benchmarks/results/cluster.json``.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.commands import ROOT, blindtune, keep, machine, serving, timing
from benchmarks.datasets import synthetic
from benchmarks.page import table
from blindtune.wire.bundle import file_sha256

PAGE = ROOT / "docs" / "benchmarks" / "cluster.md"
FEATURES = 192

CASES = {
    "this machine, one core": (1, 0),
    "Ray, one node of one core": (1, 1),
    "this machine, two cores": (2, 0),
    "Ray, two nodes of one core": (1, 2),
}
"""Cores of the server's workers, and nodes of a cluster, if there is one."""


@contextmanager
def ray_cluster(nodes: int) -> Iterator[None]:
    """A cluster of nodes with one core each, at ``RAY_ADDRESS``."""
    from ray.cluster_utils import Cluster

    given = {"num_cpus": 1, "object_store_memory": 1 << 30}
    made = Cluster(initialize_head=True, head_node_args={**given, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            made.add_node(**given)
        os.environ["RAY_ADDRESS"] = made.address
        yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        made.shutdown()


def train(study: Path, work: Path, cores: int, nodes: int, turns: int) -> list[dict[str, Any]]:
    """What each training took, and the digests of its head."""
    found = []
    options = ("--cores", str(cores), "--executor", "ray" if nodes else "local")
    with ray_cluster(nodes) if nodes else nullcontext():
        for _ in range(turns):
            shutil.rmtree(work / "server", ignore_errors=True)
            shutil.rmtree(study / "inbox", ignore_errors=True)
            with serving(work / "server", *options) as (url, token, _):
                blindtune("submit", str(study), "--server", url, token=token)
                blindtune("fetch", str(study), token=token)
                took = timing(study, url, token)
            head = sorted((study / "inbox").rglob("parts/*"))
            found.append(
                {
                    "seconds_loading": took["seconds_loading"],
                    "seconds_training": took["seconds_training"],
                    "head": [file_sha256(part) for part in head],
                }
            )
    return found


def section(study: dict[str, Any]) -> str:
    """What was found of one study."""
    cases = study["cases"]
    quickest = {name: min(t["seconds_training"] for t in took) for name, took in cases.items()}
    base = quickest[next(iter(CASES))]
    rows = [
        [
            name,
            f"{min(t['seconds_loading'] for t in cases[name]):.1f}",
            f"{seconds:.2f}",
            f"{base / seconds:.2f}",
        ]
        for name, seconds in quickest.items()
    ]
    heads = {digest for took in cases.values() for t in took for digest in t["head"]}
    once = len(next(iter(cases.values()))[0]["head"])
    same = "the same bytes" if len(heads) == once else "**not the same bytes**"
    columns = ["where", "loading, s", "training, s", "times as fast as one core"]
    return f"""## {study["rows"]:,} rows, {FEATURES} columns, {study["classes"]} classes

All heads have {same}.

{table(columns, rows)}
"""


def page(found: dict[str, Any]) -> str:
    """The page of the results."""
    m = found["machine"]
    text = f"""# Training on a Ray cluster

Written by `python -m benchmarks.cluster` on {m["cpu"]}, {m["cores"]} cores, Python {m["python"]},
Ray {found["ray"]}, commit {m["commit"]}, load {m["load_at_start"]:.1f} at the start. Of
{found["turns"]} trainings the quickest. Nodes are processes on this one machine: its memory is shared, and
loopback is quicker than a network. In each step a node is sent the weights, and sends back its inner sums: as
much for many rows as for few.

"""
    return text + "\n".join(section(study) for study in found["studies"])


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sizes", nargs="+", default=["64000x2", "20000x40"], metavar="ROWSxCLASSES")
    parser.add_argument("--turns", type=int, default=2)
    given = parser.parse_args()
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    told, studies = machine(), []
    for size in given.sizes:
        rows, classes = map(int, size.split("x"))
        study = given.work / size
        blindtune("encrypt", *synthetic(given.work, rows, FEATURES, classes), "--out", str(study))
        cases = {name: train(study, given.work, *case, given.turns) for name, case in CASES.items()}
        studies.append({"rows": rows, "classes": classes, "cases": cases})
    found = {"machine": told, "ray": version("ray"), "turns": given.turns, "studies": studies}
    keep("cluster", found)
    PAGE.write_text(page(found))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
