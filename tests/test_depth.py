"""More steps than levels: which way, and what it costs."""

from __future__ import annotations

import json

import pytest

from blindtune.depth import schedule, ways
from blindtune.errors import PlanError
from blindtune.kernels.training import Program
from blindtune.models.heads import Head, one_vs_rest


def head(steps: int, degree: int = 7) -> Head:
    return one_vs_rest(degree=degree, interval=12.0, learning_rates=(8.0,) * steps, balanced=False)


@pytest.mark.parametrize(
    ("program", "levels", "left", "expected"),
    [
        (head(3).program, 11, 3, ()),
        (head(3).program, 10, 3, (2,)),
        (head(12).program, 13, 3, (2, 4, 6, 8, 10)),
        (head(12).program, 14, 3, (3, 5, 7, 9, 11)),
        (head(4).program, 6, 1, (1, 2, 3)),
        (Program(4, 1, (0,) * 4, (1.0,) * 4, started=True), 7, 1, (2,)),
    ],
)
def test_refreshes_come_as_late_as_levels_allow(
    program: Program, levels: int, left: int, expected: tuple[int, ...]
) -> None:
    assert schedule(program, levels, left) == expected


def test_no_step_fits() -> None:
    with pytest.raises(PlanError, match="a step of degree 7 and a refresh need more than 5 levels"):
        schedule(head(4).program, 5, 1)


def test_levels_where_they_suffice() -> None:
    first, second = ways(1000, 64, 3, head(3), joint=True)
    assert (first.name, first.rounds, first.why_not) == ("levels", 0, "")
    assert (second.name, second.why_not) == ("refresh", "no refresh is needed")


def test_hospitals_refresh_a_joint_keys_weights() -> None:
    first, second = ways(6144, 64, 10, head(12), joint=True, member_rows=(2048,) * 3)
    assert first.name == "refresh"
    assert first.plan is not None
    assert first.plan.program.refreshes == (2, 4, 6, 8, 10)
    assert first.rounds == 5
    assert first.plan.parameters.levels == 13
    # Weights alone go round: a part of a refresh is little beside the rows.
    assert first.received < first.sent < first.plan.cost.upload_bytes / 5
    assert (second.name, second.why_not) == ("levels", "no ring holds 56 levels at 128-bit security")


def test_a_single_owners_weights_are_bootstrapped() -> None:
    first, second = ways(6144, 64, 10, head(20), joint=False)
    assert (first.name, first.rounds, first.sent) == ("bootstrapping", 0, 0)
    assert first.plan is not None
    assert first.plan.program.refreshes == tuple(range(1, 20))
    assert first.memory > first.key_bytes
    assert second.name == "levels"
    assert second.why_not
    assert json.loads(json.dumps(first.to_json()))["way"] == "bootstrapping"
    assert not json.loads(json.dumps(second.to_json()))["possible"]


def test_neither_way_at_256_bits() -> None:
    found = ways(1000, 64, 3, head(30), joint=False, security=256)
    assert all(way.why_not for way in found)
