"""The error that an opening's noise rests on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blindtune.federation.threshold.rehearsal import MARGIN, Rehearsal
from tests.federation.threshold.conftest import LAYOUT, PROGRAM, Group
from tests.openfhe import needs_openfhe

pytestmark = needs_openfhe


def test_the_agreed_length_bounds_what_is_measured(
    draw_group: Callable[..., Group], draw_study: Callable[..., Any], tmp_path: Any
) -> None:
    terms = draw_group(tmp_path).terms
    study = draw_study(LAYOUT, PROGRAM, (3 * LAYOUT.rows - 7, 7, 4), seed=0)

    def train(engine: Any, encrypt: Any) -> Any:
        return study.trainer(engine, encrypt).train(PROGRAM)

    found = Rehearsal(terms.checked_parameters, LAYOUT, 3).length(train)
    assert MARGIN * found < terms.length < 100 * found
