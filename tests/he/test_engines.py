"""Which engine is chosen, and what is said about it."""

from __future__ import annotations

import logging

import pytest

from blindtune.errors import EngineError
from blindtune.he import engines
from blindtune.he.engine import KeySet
from blindtune.he.engines import choose, evaluation_engine, warm
from blindtune.he.fast import selftest
from blindtune.he.fast.engine import FastEngine
from blindtune.he.seal import SealEngine
from blindtune.params import ParametersLiteral
from tests.he.fast.pairs import STEPS, VARIANTS, owner

NARROW = ParametersLiteral(1024, 4, security=0).checked()
LARGE = ParametersLiteral(1024, 2, special_bits=55, security=0).checked()


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLINDTUNE_ACCELERATOR", raising=False)


def test_the_fastest_that_passes(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert choose(NARROW, cores=2) == VARIANTS[-1].value
    assert VARIANTS[-1].value in caplog.text
    assert warm() == VARIANTS[-1].value


def test_portable_without_the_instructions(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "has_ifma", lambda: False)
    assert choose(NARROW) == "portable"
    assert "evaluating with portable (ifma: this processor has no AVX-512 IFMA)" in caplog.text


def test_seal_for_large_primes(caplog: pytest.LogCaptureFixture) -> None:
    assert choose(LARGE) == "seal"
    assert "a prime of more than 50 bits" in caplog.text


def test_seal_where_the_kernels_fail(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no such processor")

    monkeypatch.setattr(selftest, "check", fails)
    assert choose(NARROW) == "seal"
    assert "portable: RuntimeError: no such processor" in caplog.text


@pytest.mark.parametrize("name", ["portable", "seal"])
def test_a_named_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(NARROW, accelerator=name) == name
    monkeypatch.setenv("BLINDTUNE_ACCELERATOR", name)
    assert choose(NARROW) == name


def test_a_named_one_that_cannot_be_used() -> None:
    with pytest.raises(EngineError, match="'portable' cannot be used: a prime of more than 50 bits"):
        choose(LARGE, accelerator="portable")
    with pytest.raises(EngineError, match=r"'openfhe' cannot be used: (OpenFHE cannot be|the key-switching)"):
        choose(NARROW, accelerator="openfhe")
    with pytest.raises(EngineError, match="no accelerator is called 'gpu'"):
        choose(NARROW, accelerator="gpu")


@pytest.mark.parametrize("name", [VARIANTS[-1].value, "seal"])
def test_engines(name: str) -> None:
    made = owner(NARROW)
    engine = evaluation_engine(
        NARROW, KeySet(STEPS), made.relinearisation, made.galois, cores=2, accelerator=name
    )
    assert type(engine) is (SealEngine if name == "seal" else FastEngine)
    assert engine.parameters == NARROW
