"""Prices of operations: they grow with the work, and machine files are checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blindtune.errors import InputError
from blindtune.he.engine import Ledger
from blindtune.kernels import machine
from blindtune.kernels.machine import OPERATIONS, SHIPPED, Machine, Price, this_machine


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o != "switch"])
def test_prices_grow_with_level_ring_and_batch(operation: str) -> None:
    by_level = [SHIPPED.seconds(operation, level, 16384, 1, 1) for level in range(12)]
    assert by_level == sorted(set(by_level))
    assert SHIPPED.seconds(operation, 5, 32768, 1, 1) > SHIPPED.seconds(operation, 5, 16384, 1, 1)
    one, four = (SHIPPED.seconds(operation, 5, 16384, n, 1) for n in (1, 4))
    assert one < four <= 4 * one


def test_a_price_by_hand() -> None:
    price = Price(limb=2.0, digit=0.5, call=1000.0, call_limb=3.0)
    # Three limbs: 2 + 0.5 · 4 a coefficient, limb and ciphertext, 3 a coefficient, limb and call.
    assert price.seconds(3, 100, 5, 2) == pytest.approx(1e-9 * (100 * 3 * (4 * 5 + 3 * 2) + 2000))


def test_a_ledger_costs_the_sum_of_its_operations() -> None:
    ledger = Ledger()
    ledger.counts.update({("rotate", 5): 8, ("load", 3): 9})
    ledger.calls.update({("rotate", 5): 2, ("load", 3): 9})
    assert SHIPPED.total(ledger, 16384) == pytest.approx(SHIPPED.seconds("rotate", 5, 16384, 8, 2))


def test_a_machine_file_round_trips_and_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "machine.json"
    monkeypatch.setenv("BLINDTUNE_MACHINE", str(path))
    assert this_machine() is SHIPPED
    made = Machine("a machine", 16, {n: {**t, "add": Price(7.0)} for n, t in SHIPPED.prices.items()})
    path.write_text(made.to_json())
    found = this_machine()
    assert (found.name, found.cores, found.prices) == (made.name, 16, made.prices)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: [],
        lambda d: {},
        lambda d: {**d, "prices": {}},
        lambda d: {**d, "cores": 0},
        lambda d: {**d, "prices": {"16384": {"add": {"limb": 1.0}}}},
        lambda d: {**d, "prices": {n: {**t, "add": {"limb": -1.0}} for n, t in d["prices"].items()}},
        lambda d: {**d, "prices": {n: {**t, "add": {"limb": float("nan")}} for n, t in d["prices"].items()}},
        lambda d: {**d, "prices": {n: {**t, "add": {"price": 1.0}} for n, t in d["prices"].items()}},
    ],
)
def test_a_damaged_machine_file_is_refused(damage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "machine.json"
    monkeypatch.setenv("BLINDTUNE_MACHINE", str(path))
    path.write_text(json.dumps(damage(json.loads(SHIPPED.to_json()))))
    with pytest.raises(InputError, match="machine file"):
        this_machine()


def test_a_file_that_is_no_text_of_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "machine.json"
    monkeypatch.setenv("BLINDTUNE_MACHINE", str(path))
    for content in (b"", b"nonsense", b"[" * (machine.MAX_FILE_BYTES + 1)):
        path.write_bytes(content)
        with pytest.raises(InputError, match="machine file"):
            this_machine()
