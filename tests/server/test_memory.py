"""Memory that a training is told to take, before it starts."""

from __future__ import annotations

from typing import Literal

import pytest

from blindtune.errors import PlanError
from blindtune.he.openfhe.bootstrapping import Bootstrapping
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program
from blindtune.server.memory import check_memory, predicted_bytes
from blindtune.wire.manifest import Manifest, layout_model, parameters_model, program_model
from blindtune.wire.models import bootstrapping_model
from tests.openfhe import keys_of

LITERAL = Bootstrapping(65536, 6, 512)
MEASURED = 40 * 173_015_040
"""Keys of docs/benchmarks/deep.md in memory."""


def manifest(kind: Literal["keys", "data"], row_blocks: int = 2) -> Manifest:
    """Of a study that the server bootstraps."""
    keys = keys_of(LITERAL)
    return Manifest(
        kind=kind,
        study="5" * 32,
        members=["north"],
        member="north",
        key="a" * 32,
        parameters=parameters_model(LITERAL.parameters(keys.primes)),
        bootstrapping=bootstrapping_model(LITERAL, keys),
        layout=layout_model(Layout(32768, 16, (32,), 8, row_blocks, 1)),
        program=program_model(Program(2, 7, (0, 0), (1.0, 1.0), refreshes=(1,))),
        parts=[],
    )


def test_keys_that_bootstrap_are_counted() -> None:
    study = manifest("keys"), manifest("data")
    plain = [m.model_copy(update={"bootstrapping": None}) for m in study]
    more = predicted_bytes(study[0], study[1:]) - predicted_bytes(plain[0], plain[1:])
    assert MEASURED < more < 1.5 * MEASURED


def test_what_no_machine_holds_does_not_start() -> None:
    with pytest.raises(PlanError, match=r"training may take .* GB of memory; this machine has"):
        check_memory(manifest("keys"), [manifest("data", 1 << 20)])
