"""Bootstrapping at parameters without any security."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindtune.errors import EngineError, KeyFileError, ParametersError
from blindtune.he.engine import KeySet
from blindtune.he.openfhe.bootstrapping import Bootstrapping
from blindtune.he.openfhe.bootstrapping_engine import BootstrappingEngine, context, set_up
from blindtune.he.openfhe.bootstrapping_owner import BootstrappingKey
from blindtune.he.openfhe.secret import OpenFheSecretKey
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program, State
from blindtune.params import ParametersLiteral
from blindtune.wire.checkpoint import checkpoint, read_checkpoint
from tests.openfhe import needs_openfhe

LITERAL = Bootstrapping(1024, 4, 32, security=0)
LAYOUT = Layout(512, 8, (4,), 2, 1, 1)


@pytest.fixture(scope="module")
def key() -> BootstrappingKey:
    return BootstrappingKey.generate(LITERAL)


@pytest.fixture(scope="module")
def engine(key: BootstrappingKey) -> BootstrappingEngine:
    return key.engine(LAYOUT.keys())


@needs_openfhe
def test_weights_come_back_with_all_levels(key: BootstrappingKey, engine: BootstrappingEngine) -> None:
    rng = np.random.default_rng(0)
    values = np.tile(rng.uniform(-0.5, 0.5, 32) + 1j * rng.uniform(-0.5, 0.5, 32), 16)
    fresh = engine.load(key.encrypt(values))
    assert fresh.level == LITERAL.levels
    low = engine.at_level(fresh, 1)
    # A study under another kind of key, in the same process, empties OpenFHE's table of keys.
    OpenFheSecretKey.generate(ParametersLiteral(1024, 2, 53, 56, 60, security=0).checked()).galois_key(5)
    OpenFheSecretKey.generate(ParametersLiteral(1024, 2, 53, 56, 60, security=0).checked()).engine(
        LAYOUT.keys()
    )
    (again,) = engine.refresh([low])
    assert again.level == LITERAL.levels
    np.testing.assert_allclose(key.decrypt(engine.load(engine.dump(again))), values, atol=5e-3)
    with pytest.raises(EngineError, match="no level left for a bootstrap"):
        engine.refresh([engine.at_level(fresh, 0)])


@needs_openfhe
def test_three_steps_on_the_levels_of_one(
    key: BootstrappingKey, engine: BootstrappingEngine, draw_study: Callable[..., Any]
) -> None:
    program = Program(3, 1, (0,) * 3, (0.9,) * 3, refreshes=(1, 2))
    drawn = draw_study(LAYOUT, program, (60, 7, 5), seed=3)
    study = replace(drawn, y=drawn.y / 6)
    weights = study.trainer(engine, lambda values: engine.load(key.encrypt(values))).train(program)
    expected = study.dense()
    assert 0.1 < np.abs(expected).max() < 1
    assert np.abs(study.head(weights, key.decrypt) - expected).max() < 1e-2


@needs_openfhe
def test_a_break_and_another_process_change_no_residue(
    key: BootstrappingKey, draw_study: Callable[..., Any], tmp_path: Path
) -> None:
    program = Program(3, 1, (0,) * 3, (0.9,) * 3, (0.0, 0.2, 0.2), refreshes=(1, 2))
    study = draw_study(LAYOUT, program, (60, 7, 5), seed=4)
    relinearisation, galois = key.relinearisation_key(), list(key.galois_keys(LAYOUT.keys()))
    primes, blobs = key.key_parameters.primes, dict[bytes, bytes]()

    def trainer() -> Any:
        engine = BootstrappingEngine(LITERAL, primes, LAYOUT.keys(), relinearisation, galois)

        def encrypt(values: Any) -> Any:
            name = values.tobytes()
            blobs[name] = blobs.get(name) or key.encrypt(values)
            return engine.load(blobs[name])

        return study.trainer(engine, encrypt)

    def dumped(used: Any, **given: Any) -> list[bytes]:
        return [used.engine.dump(c) for row in used.train(program, **given) for c in row]

    def keep(state: State) -> None:
        (tmp_path / str(state.step)).write_bytes(b"".join(checkpoint(whole.engine, b"i" * 32, state)))

    whole, broken = trainer(), trainer()
    expected = dumped(whole, on_step=keep)
    state = read_checkpoint(tmp_path / "2", broken.engine, LAYOUT, program, b"i" * 32, 2)
    assert dumped(broken, resume=state) == expected


@needs_openfhe
def test_keys_that_do_not_serve_are_refused(key: BootstrappingKey) -> None:
    primes, keys = key.key_parameters.primes, LAYOUT.keys()
    relinearisation, galois = key.relinearisation_key(), list(key.galois_keys(keys))
    turned = [galois[1], galois[0], *galois[2:]]
    cut = [galois[0][:-8], *galois[1:]]
    for given, words in (
        (turned, "does not hold element"),
        (galois[:-1], "is missing"),
        (cut, "does not load"),
    ):
        with pytest.raises(EngineError, match=words):
            BootstrappingEngine(LITERAL, primes, keys, relinearisation, given)
    with pytest.raises(EngineError, match="a key of another kind"):
        BootstrappingEngine(LITERAL, primes, keys, galois[0], galois)
    with pytest.raises(EngineError, match="other primes here"):
        BootstrappingEngine(LITERAL, primes[::-1], keys, relinearisation, galois)


@needs_openfhe
@pytest.mark.parametrize(
    ("ring", "period", "budget"), [(1024, 32, 3), (2048, 1024, 3), (1024, 64, 2), (1024, 16, 3)]
)
def test_rotations_are_those_that_openfhe_makes_keys_of(ring: int, period: int, budget: int) -> None:
    literal = Bootstrapping(ring, 1, period, budget=budget, security=0)
    made = context(literal)
    set_up(literal)
    secret = made.KeyGen().secretKey
    made.EvalBootstrapKeyGen(secret, period)
    found = made.GetExistingEvalAutomorphismKeyIndices(secret.GetKeyTag())
    assert sorted(found) == literal.galois_elements(KeySet(()))


@needs_openfhe
def test_keys_on_given_uniform_polynomials_have_noise_of_their_own(key: BootstrappingKey) -> None:
    used, keys = key._codec, key.key_parameters
    primes = np.array(keys.primes, np.uint64)
    uniform = np.random.default_rng(0).integers(0, primes[:, None], (5, 2, len(primes), 1024), np.uint64)
    lent, secret = used.evaluation_key(uniform), used.secret_key(used.secret_key_residues(key._raw))
    first, second = (
        used.key_residues(used.context.MultiKeySwitchGen(secret, key._raw, lent)) for _ in range(2)
    )
    np.testing.assert_array_equal(first[:, 1], uniform[:, 1])
    np.testing.assert_array_equal(second[:, 1], uniform[:, 1])
    # Noise differs, and is spread over all residues by the transform; what was lent beside is not used.
    for other in (second, uniform):
        assert (first[:, 0] != other[:, 0]).mean() > 0.99


@needs_openfhe
def test_the_secret_key_comes_back_from_its_bytes(key: BootstrappingKey) -> None:
    primes, data, values = key.key_parameters.primes, key.to_bytes(), np.linspace(-1, 1, 512)
    again = BootstrappingKey.from_bytes(LITERAL, primes, key.key_id, data)
    assert again.to_bytes() == data
    np.testing.assert_allclose(again.decrypt(again.load(key.encrypt(values))), values, atol=1e-9)
    for wrong in (data[:-8], data[:-8] + b"\xff" * 8):
        with pytest.raises(KeyFileError, match="damaged"):
            BootstrappingKey.from_bytes(LITERAL, primes, key.key_id, wrong)
    with pytest.raises(KeyFileError, match="damaged"):
        BootstrappingKey.from_bytes(LITERAL, primes[::-1], key.key_id, data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"period": 24},
        {"period": 1024},
        {"period": 4},
        {"budget": 1},
        {"budget": 6},
        {"levels": 0},
        {"digits": 0},
        {"digits": 16},
        {"first_bits": 51},
        {"first_bits": 60},
    ],
)
def test_numbers_that_do_not_go_together(wrong: dict[str, int]) -> None:
    assert LITERAL.check() is LITERAL
    with pytest.raises(ParametersError, match="cannot be bootstrapped"):
        replace(LITERAL, **wrong).check()


def test_the_2024_table_counts_special_primes() -> None:
    real = Bootstrapping(65536, 6, 512)
    assert real.check() is real
    assert 1740 < real.modulus_bits <= 1747
    for wrong in (replace(real, levels=7), replace(real, digits=4), replace(real, ring_degree=32768)):
        with pytest.raises(ParametersError, match="the 2024 table allows"):
            wrong.check()
