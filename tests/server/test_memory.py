"""Memory that a training is told to take, before it starts."""

from __future__ import annotations

from blindtune.he.openfhe.bootstrapping import Bootstrapping
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program
from blindtune.server.memory import predicted_bytes
from blindtune.wire.manifest import Manifest, layout_model, parameters_model, program_model
from blindtune.wire.models import bootstrapping_model
from tests.openfhe import keys_of

MEASURED = 40 * 173_015_040
"""Keys of docs/benchmarks/deep.md in memory."""


def test_keys_that_bootstrap_are_counted() -> None:
    literal = Bootstrapping(65536, 6, 512)
    keys = keys_of(literal)
    manifest = Manifest(
        kind="keys",
        study="5" * 32,
        members=["north"],
        member="north",
        key="a" * 32,
        parameters=parameters_model(literal.parameters(keys.primes)),
        bootstrapping=bootstrapping_model(literal, keys),
        layout=layout_model(Layout(32768, 16, (32,), 8, 2, 1)),
        program=program_model(Program(2, 7, (0, 0), (1.0, 1.0), refreshes=(1,))),
        parts=[],
    )
    data = [manifest.model_copy(update={"kind": "data"})]
    plain = [m.model_copy(update={"bootstrapping": None}) for m in (manifest, *data)]
    more = predicted_bytes(manifest, data) - predicted_bytes(plain[0], plain[1:])
    assert MEASURED < more < 1.5 * MEASURED
