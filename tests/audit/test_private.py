"""The one-run audit: its bound holds, planted bugs are caught, and its arithmetic is the theorem's."""

from __future__ import annotations

import numpy as np
import pytest

from blindtune.audit.private import BUGS, STEPS, audit, lower_bound, p_value, results
from blindtune.errors import InputError

DELTA = 1e-5


def test_what_the_account_claims_is_not_exceeded():
    claimed, low = audit(3.0, DELTA, 1000)
    assert claimed <= 3
    # Wrong once in twenty runs at most if the claim were tight; here it is far off.
    assert 0 <= low < claimed


@pytest.fixture(scope="module")
def audited():
    """Results of a budget, what was kept on the way, and the steps that were told."""
    kept, seen = [], []
    return results([1.0], DELTA, 1000, lambda *at: seen.append(at), keep=kept.append), kept, seen


def test_planted_bugs_are_caught(audited):
    found, _, _ = audited
    assert [r.protection.partition(": ")[2] for r in found] == ["", *BUGS]
    claimed, low = ([r.figures[n].value for r in found] for n in ("claimed epsilon", "proven lower bound"))
    assert claimed == [pytest.approx(1, abs=0.01)] * 4
    assert low[0] < 1
    assert min(low[1:]) > 1.2
    assert all(r.control for r in found)


def test_whole_budgets_of_a_run_that_was_stopped_are_not_run_again(audited):
    found, kept, seen = audited
    whole = 4 * STEPS, 4 * STEPS
    assert (kept, seen[-1], len(seen)) == ([found], whole, whole[0])
    again = []
    assert results([1.0], DELTA, 1000, lambda *at: again.append(at), earlier=found) == found
    assert again == [whole]


def test_coins_that_leave_no_trace_prove_nothing():
    rng = np.random.default_rng(0)
    inside = rng.random(2000) < 0.5
    assert lower_bound(rng.normal(size=2000), inside, DELTA) < 0.5
    assert lower_bound(inside + 0.1 * rng.normal(size=2000), inside, DELTA) > 4


def test_randomised_response_is_bounded_by_its_own_epsilon():
    """The best attack on the worst mechanism: each coin told truly with probability e^ε / (1 + e^ε)."""
    rng, told = np.random.default_rng(1), []
    for _ in range(40):
        inside = rng.random(2000) < 0.5
        truly = rng.random(2000) < 1 / (1 + np.exp(-1.0))
        told.append(lower_bound(np.where(truly, inside, ~inside) + 1e-3 * rng.random(2000), inside, 0.0))
    assert np.mean(np.array(told) > 1) <= 0.1
    assert np.median(told) > 0.6


def test_p_values():
    assert p_value(1000, 100, 0, 1.0, DELTA) == 1
    # Without delta: the tail of a binomial; ten of ten right, each with probability a half.
    assert p_value(10, 10, 10, 0.0, 0.0) == pytest.approx(2.0**-10)
    assert p_value(1000, 100, 90, 1.0, 1e-3) > p_value(1000, 100, 90, 1.0, 0.0)
    assert p_value(1000, 100, 90, 2.0, DELTA) > p_value(1000, 100, 90, 1.0, DELTA)


@pytest.mark.parametrize("count", [999, 16_001])
def test_other_numbers_of_canaries_are_refused(count):
    with pytest.raises(InputError, match=f"{count} canaries"):
        audit(1.0, DELTA, count)
