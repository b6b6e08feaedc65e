"""Terms from a plan: the ring by the security table, the packing, and an error that was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from blindtune.errors import FederationError, PlanError
from blindtune.federation.identity import Identity, Roster
from blindtune.federation.threshold.draft import Draft
from blindtune.federation.threshold.rehearsal import MARGIN, Rehearsal
from blindtune.federation.threshold.standin import stand_in
from blindtune.federation.threshold.terms import Task
from blindtune.he.clear import ClearEngine
from blindtune.he.openfhe.refresh import LEVELS
from blindtune.params import SECURITY_TABLE, ParametersLiteral
from tests.federation.threshold.conftest import LAYOUT, NAMES, TASK
from tests.openfhe import needs_openfhe

ROSTER = Roster({name: Identity.generate().public for name in NAMES})


def task(steps: int, degree: int = 7) -> Task:
    return TASK.model_copy(
        update={"rates": [4.0] * steps, "model": TASK.model.model_copy(update={"degree": degree})}
    )


@pytest.mark.parametrize(("steps", "degree", "ring"), [(1, 1, 8192), (2, 3, 16384), (3, 7, 32768)])
def test_the_smallest_ring_that_the_table_allows(steps: int, degree: int, ring: int) -> None:
    draft = Draft.planned(ROSTER, task(steps, degree))
    p = draft.plan.parameters
    assert p.ring_degree == ring
    assert p.modulus_bits <= SECURITY_TABLE[128][ring]
    assert (p.scale_bits, p.primes[-1].bit_length()) == (55, 60)
    terms = draft.terms(2.0**22)
    assert terms.roster.keys == ROSTER.keys
    assert terms.checked_layout == draft.layout
    assert draft.terms(2.0**22).study != terms.study


@pytest.mark.parametrize(
    ("steps", "security", "refreshes"), [(3, 256, []), (6, 256, [3, 5]), (12, 128, [2, 4, 6, 8, 10])]
)
def test_what_no_ring_holds_at_once_is_refreshed(steps: int, security: int, refreshes: list[int]) -> None:
    terms = Draft.planned(ROSTER, task(steps), security=security).terms(2.0**22)
    p, program = terms.checked_parameters, terms.checked_program
    assert terms.program.refreshes == refreshes
    assert p.modulus_bits <= SECURITY_TABLE[security][p.ring_degree]
    left = [p.levels - program.levels_after(r) for r in refreshes]
    assert all(levels >= LEVELS for levels in left)


def test_what_memory_does_not_hold_is_refused() -> None:
    with pytest.raises(PlanError, match="GiB on the server"):
        Draft.planned(ROSTER, task(3), memory_limit=1 << 20)


def test_an_error_that_is_too_small_to_be_true_is_refused() -> None:
    with pytest.raises(FederationError, match="too small to be true"):
        Draft.planned(ROSTER, task(1, 1)).terms(1.0)


def test_stand_in_rows_fill_row_blocks_of_every_member() -> None:
    p = ParametersLiteral(1024, TASK.head.program.levels, 53, 56, 60, security=0).checked()
    engine = ClearEngine(p, LAYOUT.keys())
    encrypted = []

    def encrypt(vector: object) -> object:
        encrypted.append(vector)
        return engine.encrypt(vector)

    seen = []
    weights = stand_in(TASK, LAYOUT, 3, LAYOUT.rows + 1, seen.append)(engine, encrypt)
    blocks, program = 3 * 2, TASK.head.program
    assert len(encrypted) == blocks * (sum(LAYOUT.widths) + program.terms * (max(program.sets) + 1))
    assert seen[-1].step == program.steps
    assert len(weights) == LAYOUT.weight_blocks


@needs_openfhe
def test_a_rehearsal_with_more_members_finds_more_error() -> None:
    p = ParametersLiteral(1024, TASK.head.program.levels, 53, 56, 60, security=0).checked()
    layout = replace(LAYOUT, row_blocks=1)
    two, eight = (Rehearsal(p, layout, n).length(stand_in(TASK, layout, n, 16)) for n in (2, 8))
    assert 0 < two < eight < 2.0**20 / MARGIN * 4
