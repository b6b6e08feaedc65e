"""The planner: smallest ring, never above the table, refusals that help, predictions that hold."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import ParametersError, PlanError
from blindtune.he.secret import SecretKey
from blindtune.kernels import cost
from blindtune.kernels.layout import Layout
from blindtune.models.heads import logistic, one_vs_rest, ridge
from blindtune.params import INSECURE, SECURITY_TABLE, ParametersLiteral
from blindtune.plan import (
    HEADROOM_BITS,
    SCALES,
    SPECIAL_BITS,
    insecure_test_parameters,
    plan,
    smallest_parameters,
)


@given(levels=st.integers(1, 62), security=st.sampled_from(sorted(SECURITY_TABLE)))
def test_parameters_are_secure_and_of_the_smallest_ring(levels: int, security: int) -> None:
    def bits(scale: int) -> int:
        # First prime, rescaling primes, key-switching prime, and the bit that is kept back.
        return scale + HEADROOM_BITS + levels * scale + SPECIAL_BITS + 1

    table = SECURITY_TABLE[security]
    least = min((n for n, bound in table.items() if bits(28) <= bound), default=None)
    if least is None:
        with pytest.raises(PlanError, match=r"no ring holds.*fewer steps"):
            smallest_parameters(levels, security)
        return
    p = smallest_parameters(levels, security)
    assert (p.ring_degree, p.levels, p.security) == (least, levels, security)
    assert p.modulus_bits <= table[least]
    assert p.scale_bits in SCALES
    # Above 31 bits a residue takes eight bytes instead of four; below 28 the noise begins to show.
    assert (min(SCALES), max(SCALES)) == (28, 31)
    if p.scale_bits < max(SCALES):
        assert bits(p.scale_bits + 1) > table[least], "a larger scale would have fitted"
    assert [q.bit_length() for q in (p.primes[0], p.primes[-1])] == [
        p.scale_bits + HEADROOM_BITS,
        SPECIAL_BITS,
    ]


@given(
    rows=st.integers(1, 40_000),
    columns=st.integers(2, 900),
    outputs=st.integers(1, 20),
    steps=st.integers(1, 5),
    degree=st.sampled_from([1, 3, 5, 7]),
    security=st.sampled_from([128, 192, 256]),
    members=st.integers(1, 3),
)
def test_any_plan_holds_its_study(
    rows: int, columns: int, outputs: int, steps: int, degree: int, security: int, members: int
) -> None:
    head = one_vs_rest(degree=degree, learning_rates=(4.0,) * steps)
    each = tuple(len(x) for x in np.array_split(np.arange(rows), members) if len(x))
    try:
        found = plan(rows, columns, outputs, head, security=security, member_rows=each)
    except PlanError as error:
        remedy = error.remedy
        found = None
    if found is None:
        assert remedy
        return
    p, x = found.parameters, found.layout
    assert p.modulus_bits <= SECURITY_TABLE[security][p.ring_degree]
    assert p.levels >= found.program.levels
    assert x.slots == p.slots
    assert x.columns >= columns
    assert x.lanes * x.weight_blocks >= outputs
    assert x.row_blocks == sum(math.ceil(n / x.rows) for n in each)
    assert found.cost.memory_bytes <= 16 << 30
    assert found.cost.operations == cost.count(x, found.program, p)
    assert found.seconds == pytest.approx(found.machine.total(found.cost.operations, p.ring_degree))
    json.dumps(found.to_json(), allow_nan=False)


def test_the_design_study() -> None:
    found = plan(3882, 128, 1, logistic())
    p = found.parameters
    assert (p.ring_degree, p.levels, p.scale_bits, p.security) == (16384, 11, 30, 128)
    assert found.layout.columns == 128
    said = found.to_json()
    assert said["security"] == "128-bit"
    assert said["modulus_bits"] <= 430
    assert said["operations"] == found.cost.operations.totals
    assert sum(o["count"] for o in said["operations_by_level"]) == sum(said["operations"].values())


def test_columns_are_not_padded_to_a_power_of_two() -> None:
    assert plan(3000, 192, 1, logistic()).layout.columns < 256


def test_fixed_lanes_and_given_parameters_are_kept() -> None:
    p = smallest_parameters(13, 128)
    found = plan(1000, 64, 3, one_vs_rest(), lanes=4, parameters=p)
    assert found.layout.lanes == 4
    assert found.parameters is p


@pytest.mark.parametrize(
    ("numbers", "options", "message"),
    [
        ((0, 10, 1), {}, "not a study"),
        ((10, 1, 1), {}, "not a study"),
        ((10, 10, 0), {}, "not a study"),
        ((10, 10, 1), {"member_rows": (4, 5)}, "do not add up"),
        ((10, 10, 1), {"member_rows": (10, 0)}, "do not add up"),
        ((10, 10, 1), {"lanes": 3}, "powers of two"),
        ((1000, 600, 1), {"lanes": 8192}, "600 columns do not fit 8192 slots with 8192 lanes"),
        ((1000, 64, 1), {"parameters": insecure_test_parameters(10)}, "need 11 levels, the key has 10"),
        ((100_000, 700, 1), {"memory_limit": 4 << 30}, r"at least .* GiB .* limit is 4\.0 GiB"),
        ((8000, 128, 1), {"upload_limit": 1 << 20}, "to upload"),
    ],
)
def test_refusals_say_what_would_work(
    numbers: tuple[int, int, int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        plan(*numbers, logistic(), **options)


def test_too_many_steps_are_refused_with_a_remedy() -> None:
    with pytest.raises(PlanError, match="no ring holds 96 levels") as refused:
        plan(100, 10, 1, logistic(learning_rates=(4.0,) * 20))
    assert "fewer steps" in refused.value.remedy


@pytest.mark.parametrize("security", [INSECURE, 100, -1])
def test_no_plan_without_security(security: int) -> None:
    with pytest.raises(ParametersError, match="no security level"):
        plan(100, 10, 1, ridge(), security=security)


def test_test_parameters_call_themselves_insecure() -> None:
    assert insecure_test_parameters(3).security_name == "insecure"


def test_predicted_bytes_are_those_that_are_written() -> None:
    p = ParametersLiteral(16384, 11).checked()
    layout, program = Layout(p.slots, 2, (64,), 8, 1, 1), logistic().program
    found, key = cost.predict(layout, program, p), SecretKey.generate(p)
    rng = np.random.default_rng(0)
    sizes = [len(key.encrypt(rng.normal(size=p.slots) + 1j * rng.normal(size=p.slots))) for _ in range(2)]
    count = layout.data_ciphertexts + cost.residual_ciphertexts(layout, program)
    assert found.upload_bytes == count * sizes[0]
    assert sizes[0] == sizes[1]
    keys = len(layout.keys().rotations) + 2
    assert found.key_bytes == keys * len(key.relinearisation_key())
