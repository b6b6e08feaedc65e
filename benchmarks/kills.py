"""Kill a process that spends from a privacy ledger, at random moments, and look whether the ledger forgot.

    python -m benchmarks.kills [--kills 200]

Every release is announced through a pipe after its charge, as noise would leave a site. The ledger must
hold at least as many charges as were announced, open after every kill, and never exceed its budget.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.commands import keep, machine
from blindtune.errors import PrivacyError
from blindtune.privacy.account import Release, epsilon
from blindtune.privacy.ledger import Ledger

RELEASE = Release(200.0)
DELTA = 1e-5
LONGEST = 0.4
"""Seconds that a process lives at most; a charge takes some tens of milliseconds."""


def main() -> None:
    """Kill and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    given = parser.parse_args()
    # Imported before the forks, so that kills fall into charges and not into imports.
    epsilon([RELEASE], DELTA)
    with tempfile.TemporaryDirectory() as place:
        found = killed(Path(place) / "ledger", given.kills)
    keep("kills", {"machine": machine(), **found})
    print(found)


def killed(path: Path, kills: int) -> dict[str, Any]:
    """What was announced and what the ledger holds after each kill."""
    budget = 1.0
    Ledger.create(path, budget, DELTA).close()
    announced = too_few = unreadable = over = 0
    charges = 0
    for _ in range(kills):
        announced += _one(path)
        try:
            with closing(Ledger(path)) as ledger:
                charges, spent = sum(r.count for r in ledger.spent()), ledger.spent_epsilon
        except PrivacyError:
            unreadable += 1
            continue
        too_few += charges < announced
        over += spent > budget
    return {
        "kills": kills,
        "announced": announced,
        "charged": charges,
        "kills_after_which_it_counted_too_little": too_few,
        "unreadable": unreadable,
        "over_budget": over,
    }


def _one(path: Path) -> int:
    """Let a process spend, kill it, and count what it announced."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            ledger = Ledger(path)
            while True:
                ledger.charge("release", RELEASE)
                os.write(writing, b".")
        finally:
            os._exit(1)
    os.close(writing)
    time.sleep(random.uniform(0, LONGEST))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return len(pipe.read())


if __name__ == "__main__":
    main()
