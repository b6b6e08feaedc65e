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
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.cases import GROUPS, measure
from benchmarks.ceiling import ceiling
from benchmarks.commands import RESULTS, ROOT, Failed, blindtune, keep, kept, machine
from benchmarks.page import write_page

PARTS = ("machine", *GROUPS, "kernels", "peers")


def run_cases(group: str, wanted: list[str] | None, shared: Path, work: Path) -> Iterator[str]:
    """Measure a group's cases, and keep each as soon as it is there; the names of those that failed."""
    calibration = blindtune("bench", "--calibrate")
    for name, case in GROUPS[group]().items():
        if wanted and name not in wanted:
            continue
        results = kept(group) or {"cases": {}}
        print(f"{group}/{name} …", flush=True)
        try:
            found = measure(name, case, shared, work)
        except (Failed, OSError) as failure:
            print(f"  {failure}", flush=True)
            yield f"{group}/{name}"
            continue
        found["machine"], found["calibration"] = machine(), calibration["name"]
        results["cases"][name] = found
        keep(group, results)
        write_page()
        heads = {h: round(v["accuracy"], 4) for h, v in found["heads"].items()}
        print(f"  {found['timing']['seconds_training']:.2f} s, {heads}", flush=True)


def script(module: str, *arguments: str) -> Iterator[str]:
    """Run another part of the suite, which writes its own results; its name if it failed."""
    if subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT).returncode:
        yield module


def main() -> int:
    """Run the parts asked for, one after the other; the exit status is 1 if something failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--work", type=Path, default=Path("/tmp/blindtune-bench"))
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--cases", nargs="*")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    # Predictions are by calibrations of this very run, one a group: a virtual machine's speed drifts.
    os.environ["BLINDTUNE_MACHINE"] = str(given.work / "machine.json")
    start, failed = time.monotonic(), []
    if "machine" in given.parts:
        print("what the cores can do together …", flush=True)
        keep("machine", {"machine": machine(), "ceiling": ceiling(os.cpu_count() or 1)})
    for group in GROUPS:
        if group in given.parts:
            failed += run_cases(group, given.cases, given.shared, given.work)
    if "kernels" in given.parts:
        failed += script("benchmarks.kernels", "--out", str(RESULTS / "kernels.json"))
    if "peers" in given.parts:
        arguments = ["--work", str(given.work / "peers"), "--shared", str(given.shared)]
        failed += script("benchmarks.peers", *arguments, "--out", str(RESULTS / "peers.json"))
    keep("run", {"parts": given.parts, "seconds": time.monotonic() - start, "failed": failed})
    write_page()
    print(f"{time.monotonic() - start:.0f} s; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
