"""``blindtune dp``: what a budget costs, and what is spent."""

from __future__ import annotations

import json

import pytest

from blindtune.privacy.account import Release
from blindtune.privacy.ledger import Ledger


def test_plan_tells_what_each_budget_costs(blindtune, tmp_path):
    plot = tmp_path / "cost.svg"
    given = ("dp", "plan", "--patients", 1000, "--batch", 100, "--epochs", 5)
    ran = blindtune(*given, "--epsilon", 1, "--epsilon", 8, "--plot", plot, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert (found["steps"], found["batch"], found["delta"]) == (50, 100, 1e-4)
    one, eight = found["options"]
    assert one["epsilon"] == 1
    assert one["reached"] <= 1 < eight["reached"] <= 8
    assert one["noise"] > eight["noise"]
    assert b"<svg" in plot.read_bytes()
    shown = blindtune(*given, "--epsilon", 8)
    assert f"{eight['noise']:.2f} x clip" in " ".join(shown.out.split())


def test_a_ledger_is_opened_once_and_shown(blindtune, tmp_path):
    path = tmp_path / "site.ledger"
    blindtune("dp", "show", path).refused("no privacy ledger", "backup")
    ran = blindtune("dp", "open", path, "--epsilon", 3, "--delta", 1e-5, "--json")
    assert json.loads(ran.out) == {"epsilon": 3.0, "delta": 1e-5, "spent": 0.0, "charges": []}
    blindtune("dp", "open", path, "--epsilon", 9, "--delta", 1e-5).refused("never replaced")
    ledger = Ledger(path)
    spent = ledger.charge("round 1", Release(5.0))
    ledger.close()
    found = json.loads(blindtune("dp", "show", path, "--json").out)
    assert found["spent"] == pytest.approx(spent)
    assert found["charges"][0]["purpose"] == "round 1"
    assert "of 3 spent" in " ".join(blindtune("dp", "show", path).out.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patients", 100, "--batch", 200], "batch of at most all"),
        (["--patients", 100, "--delta", 0.5], "publishing one patient"),
        (["--patients", 100, "--epsilon", -1], "positive epsilon"),
        (["--patients", 100, "--epsilon", 8, "--plot", "/nonexistent/x.svg"], "no plot can be written"),
    ],
)
def test_what_does_not_fit_is_one_line(blindtune, options, message):
    blindtune("dp", "plan", *options).refused(message)
