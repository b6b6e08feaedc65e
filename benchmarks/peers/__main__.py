"""Run the peers and blindtune on the same tables, one after the other, and write the results as JSON.

    python -m benchmarks.peers --work /tmp/peers --shared ../shared --out benchmarks/results/peers.json

Peers are installed from the registry into throw-away environments below ``--work`` (Concrete ML takes
6 GB). A peer that cannot be installed or run is listed as missing, with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.commands import Failed, blindtune, machine
from benchmarks.peers import own
from benchmarks.peers.data import CASES, Table, embeddings_of, figures, table
from benchmarks.peers.environments import PEERS, Unavailable, run
from benchmarks.peers.quoted import QUOTED
from benchmarks.peers.render import render


def row(peer: str, title: str, case: Table, answer: dict[str, Any]) -> dict[str, Any]:
    """A peer's answer with every field that the table has."""
    scores = answer.pop("scores", None)
    if scores is not None:
        answer |= figures(case.test_y, scores)
    share = answer["units_measured"] / answer["units"] if answer["units"] else 1.0
    return {
        "peer": peer,
        "title": title,
        "data": case.name,
        "rows": case.rows,
        "features": case.features,
        "measured_share": share,
        "extrapolated": share < 1,
        "quoted": False,
        "plaintext_accuracy": case.baseline["accuracy"],
        "plaintext_auc": case.baseline["auc"],
        **answer,
    }


def measure(name: str, case: Table, given: argparse.Namespace) -> dict[str, Any]:
    """One peer, or blindtune, on one table."""
    if name == "blindtune":
        return row(name, name, case, own.run(case.path, case.features, given.work, given.cores))
    peer = PEERS[name]
    if case.features > peer.columns:
        raise Unavailable(f"run with at most {peer.columns} columns")
    limit = given.limit.get(name, peer.limit)
    answer = run(peer, case.path, given.work, limit, given.cores, given.timeout)
    return row(name, peer.title, case, answer)


def limits(text: str) -> tuple[str, int]:
    """``peer=units``."""
    name, _, units = text.partition("=")
    if name not in PEERS or not units.isdigit() or int(units) < 1:
        raise argparse.ArgumentTypeError(f"{text}: write one of {', '.join(PEERS)} with a number, concrete=2")
    return name, int(units)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for environments and data")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--peers", nargs="*", choices=[*PEERS, "blindtune"], default=[*PEERS, "blindtune"])
    parser.add_argument("--data", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--shared", type=Path, help="folder with the X-ray images and DeiT-tiny's weights")
    parser.add_argument("--embeddings", type=Path, help="ready embeddings of the X-rays (.npz) instead")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--limit", nargs="*", type=limits, default=[], help="units to run encrypted: concrete=2"
    )
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds for a peer on a table")
    given = parser.parse_args()
    given.limit = dict(given.limit)
    given.work.mkdir(parents=True, exist_ok=True)
    return given


def embeddings(given: argparse.Namespace) -> Callable[[], Path]:
    """Where the X-rays' embeddings come from, found or made when a table wants them."""

    def find() -> Path:
        if given.embeddings:
            return Path(given.embeddings)
        if given.shared:
            return embeddings_of(given.shared, given.work, blindtune)
        raise Unavailable("neither --shared nor --embeddings was given")

    return find


def command(given: Sequence[str]) -> str:
    """How to run this again, with names for the places of this machine."""
    places = {f"--{name}": name.upper() for name in ("work", "shared", "out", "embeddings")}
    words = [part for word in given for part in (word.split("=", 1) if word.startswith("--") else [word])]
    told = [places.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    return shlex.join(["python", "-m", "benchmarks.peers", *told])


def main() -> None:
    """Every peer on every table."""
    given = arguments()
    results: dict[str, Any] = {
        "machine": machine(),
        "cores": given.cores,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": command(sys.argv[1:]),
        "licences": {PEERS[n].title: PEERS[n].licence for n in given.peers if n in PEERS},
        "rows": [],
        "missing": [],
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    for data in given.data:
        for name in given.peers:
            title = PEERS[name].title if name in PEERS else name
            try:
                found = measure(name, table(data, given.work, embeddings(given)), given)
                results["rows"].append(found)
                print(f"{data} {name}: {found['seconds_train']:.1f} s, {found['accuracy']:.3f}", flush=True)
            except (Unavailable, Failed) as reason:
                results["missing"].append({"peer": name, "title": title, "data": data, "reason": str(reason)})
                print(f"{data} {name}: {reason}", flush=True)
            results["seconds"] = time.perf_counter() - start
            given.out.write_text(json.dumps(results, indent=1) + "\n")
    results["rows"] += QUOTED
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    print(render(results))


if __name__ == "__main__":
    main()
