"""The ledger: it refuses what the budget does not hold, and no crash makes it forget."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest

from blindtune.errors import PrivacyError
from blindtune.privacy.account import Release, epsilon
from blindtune.privacy.ledger import Ledger

DELTA = 1e-5
STEP = Release(3.0, 0.1, 10)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a ledger?.sqlite"


def test_charges_add_up_and_outlive_the_process(path):
    ledger = Ledger.create(path, 8.0, DELTA)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ledger.spent_epsilon == 0
    first = ledger.charge("round 0", STEP)
    second = ledger.charge("round 1", STEP)
    assert 0 < first < second == ledger.spent_epsilon
    ledger.close()
    again = Ledger(path)
    assert (again.epsilon, again.delta) == (8.0, DELTA)
    assert again.spent() == [Release(3.0, 0.1, 20)]
    assert [p for _, p, _ in again.purposes()] == ["round 0", "round 1"]
    assert again.spent_epsilon == epsilon([STEP, STEP], DELTA)


def test_what_the_budget_does_not_hold_is_refused_and_not_charged(path):
    ledger = Ledger.create(path, 1.0, DELTA)
    ledger.charge("fits", Release(10.0))
    spent = ledger.spent_epsilon
    assert spent < ledger.afford(Release(10.0)) < 1.0
    with pytest.raises(PrivacyError, match="would take epsilon to"):
        ledger.afford(Release(1.0))
    with pytest.raises(PrivacyError, match="would take epsilon to"):
        ledger.charge("too much", Release(1.0))
    assert ledger.spent_epsilon == spent
    assert ledger.spent_epsilon <= 1.0


def test_a_lost_ledger_does_not_come_back_empty(path):
    with pytest.raises(PrivacyError, match="no privacy ledger"):
        Ledger(path)
    assert not path.exists()
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(PrivacyError, match="no privacy ledger"):
        Ledger(path)


def test_a_ledger_is_never_replaced_or_rewritten(path):
    ledger = Ledger.create(path, 1.0, DELTA)
    ledger.charge("one", Release(10.0))
    with pytest.raises(PrivacyError, match="never replaced"):
        Ledger.create(path, 9.0, DELTA)
    db = sqlite3.connect(path)
    for statement in (
        "DELETE FROM charges",
        "UPDATE charges SET noise = 99",
        "UPDATE budget SET epsilon = 99",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="kept"):
            db.execute(statement)
    db.close()


@pytest.mark.parametrize(
    ("budget", "delta"), [(0.0, DELTA), (-1.0, DELTA), (1.0, 0.0), (1.0, 1.0), (float("nan"), DELTA)]
)
def test_budgets_that_cannot_be(path, budget, delta):
    with pytest.raises(PrivacyError, match="a budget of"):
        Ledger.create(path, budget, delta)
    assert not path.exists()


def test_two_processes_never_share_the_last_release(path):
    """Each sees room for one more: only as many succeed as the budget holds."""
    one = Release(5.0)
    Ledger.create(path, epsilon([Release(5.0, 1.0, 3)], DELTA) + 1e-9, DELTA).close()

    def charge(number: int) -> bool:
        ledger = Ledger(path)
        with closing(ledger), suppress(PrivacyError):
            ledger.charge(str(number), one)
            return True
        return False

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(charge, range(6))) == 3


RELEASING = """
import sys
from pathlib import Path
from blindtune.privacy.account import Release
from blindtune.privacy.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for number in range(1000):
    ledger.charge(f"release {number}", Release(100.0))
    print(number, flush=True)
"""


def test_killed_at_any_moment_it_never_counts_too_little(path):
    """A release leaves after its charge: what left was always charged. ``benchmarks`` does this 200 times."""
    Ledger.create(path, 100.0, DELTA).close()
    left = 0
    for pause in (0.0, 0.03, 0.11):
        process = subprocess.Popen(
            [sys.executable, "-c", RELEASING, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        process.stdout.readline()
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        left += 1 + len(process.stdout.read().splitlines())
        process.wait()
        process.stdout.close()
        ledger = Ledger(path)
        assert left <= sum(r.count for r in ledger.spent())
        ledger.close()
