"""The whole suite: ``make bench``, or one part of it.

    python -m benchmarks.suite --shared ../shared --work /tmp/bench [--parts real hetal scaling kernels peers]
                               [--cases NAME ...]

Results go to ``benchmarks/results/*.json``; ``docs/benchmarks.md`` and its plots are written from them
after every case, so that a run that is stopped leaves what it measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.cases import GROUPS, measure
from benchmarks.commands import RESULTS, ROOT, blindtune, keep, kept, machine
from benchmarks.page import write_page

PARTS = ("machine", *GROUPS, "kernels", "peers")


def run_cases(group: str, wanted: list[str] | None, shared: Path, work: Path) -> None:
    """Measure a group's cases, and keep each as soon as it is there."""
    for name, case in GROUPS[group]().items():
        if wanted and name not in wanted:
            continue
        results = kept(group) or {"cases": {}}
        print(f"{group}/{name} …", flush=True)
        found = measure(name, case, shared, work)
        found["machine"] = results["machine"] = machine()
        results["cases"][name] = found
        keep(group, results)
        write_page()
        heads = {h: round(v["accuracy"], 4) for h, v in found["heads"].items()}
        print(f"  {found['timing']['seconds_training']:.2f} s, {heads}", flush=True)


def script(module: str, *arguments: str) -> None:
    """Run another part of the suite, which writes its own results."""
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=True)


def main() -> None:
    """Run the parts asked for, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--work", type=Path, default=Path("/tmp/blindtune-bench"))
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--cases", nargs="*")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    prices = given.work / "machine.json"
    # Every prediction of the suite is by a calibration of this very run.
    os.environ["BLINDTUNE_MACHINE"] = str(prices)
    if "machine" in given.parts or not prices.is_file():
        print("calibrating …", flush=True)
        keep("machine", {"machine": machine(), "calibration": blindtune("bench", "--calibrate")})
    for group in GROUPS:
        if group in given.parts:
            run_cases(group, given.cases, given.shared, given.work)
    if "kernels" in given.parts:
        script("benchmarks.kernels", "--out", str(RESULTS / "kernels.json"))
    if "peers" in given.parts:
        arguments = ["--work", str(given.work / "peers"), "--shared", str(given.shared)]
        script("benchmarks.peers", *arguments, "--out", str(RESULTS / "peers.json"))
    write_page()


if __name__ == "__main__":
    main()
