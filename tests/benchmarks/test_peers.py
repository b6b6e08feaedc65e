"""The peers' part of the benchmark suite: tables, the loop on TenSEAL, and what is told of the results."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def peers() -> Any:
    """The package, which is run from the repository and not installed."""
    import benchmarks.peers.__main__ as command

    return command


@pytest.fixture
def loop() -> ModuleType:
    """The script for TenSEAL, which imports nothing of ours."""
    path = ROOT / "benchmarks" / "peers" / "scripts" / "tenseal_loop.py"
    spec = importlib.util.spec_from_file_location("tenseal_loop", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_breast_table_is_standardised_by_its_training_rows(peers: Any, tmp_path: Path) -> None:
    case = peers.table("breast", tmp_path, lambda: tmp_path)
    with np.load(case.path, allow_pickle=False) as found:
        assert found["train_x"].shape == (400, 30)
        assert found["test_x"].shape == (169, 30)
        np.testing.assert_allclose(found["train_x"].mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(found["train_x"].std(axis=0), 1)
    assert case.baseline["accuracy"] > 0.9


def test_figures_of_scores(peers: Any) -> None:
    labels = np.array([0, 0, 1, 1])
    assert peers.figures(labels, [-1.0, 1.0, 2.0, 3.0]) == {"accuracy": 0.75, "auc": 1.0}
    assert np.isnan(peers.figures(labels, [0.0, 0.0, np.inf, 1.0])["auc"])


def test_an_epoch_on_ciphertexts_is_the_epoch_in_clear(loop: ModuleType) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)), np.array([0.0, 1, 0, 1, 1, 0])
    context = loop.ts.context(loop.ts.SCHEME_TYPE.CKKS, loop.RING, -1, list(loop.SIZES))
    context.global_scale = loop.SCALE
    context.generate_galois_keys()
    rows = [loop.ts.ckks_vector(context, row.tolist()) for row in x]
    labels = [loop.ts.ckks_vector(context, [label]) for label in y]
    start = [loop.ts.ckks_vector(context, values) for values in ([0.0] * 3, [0.0])]
    weights, bias = (vector.decrypt() for vector in loop.epoch(rows, labels, *start))
    expected, offset, _ = next(loop.epochs_in_clear(x, y))
    np.testing.assert_allclose(weights, expected, atol=0.05)
    np.testing.assert_allclose(bias, [offset], atol=0.05)


def test_a_python_that_is_missing_is_told(peers: Any) -> None:
    from benchmarks.peers.environments import interpreter

    with pytest.raises(peers.Unavailable, match=r"no CPython 3\.2"):
        interpreter("3.2")


def test_what_was_not_run_in_full_is_marked(peers: Any, tmp_path: Path) -> None:
    case = peers.Table("breast", tmp_path, 400, 30, np.array([0, 1]), {"accuracy": 0.95, "auc": 0.99})
    answer = {
        "version": "1",
        "seconds_train": 7200.0,
        "seconds_setup": 1.0,
        "units": 50,
        "unit": "batches of 8",
        "units_measured": 1,
        "scores": [-1.0, 1.0],
        "figures_from": "same steps in clear",
        "ring_degree": None,
        "security_bits": 128,
        "bytes_data": None,
        "bytes_keys": 2e9,
        "interactive": False,
        "note": "a note",
    }
    rows = [
        peers.row("concrete", "Concrete ML", case, dict(answer)),
        peers.row("blindtune", "blindtune", case, {**answer, "units_measured": 50, "seconds_train": 2.0}),
    ]
    assert rows[0]["extrapolated"]
    assert rows[0]["measured_share"] == 0.02
    assert not rows[1]["extrapolated"]
    machine = {"cpu": "CPU", "python": "3", "commit": "c", "load_at_start": 0.0}
    text = peers.render(
        {
            "machine": machine,
            "cores": 2,
            "date": "today",
            "command": "command",
            "licences": {"Concrete ML": "terms"},
            "rows": rows,
            "missing": [{"peer": "x", "title": "X", "data": "breast", "reason": "why"}],
        }
    )
    line = next(x for x in text.splitlines() if x.startswith("| Concrete ML"))
    assert "1 of 50 batches of 8, **extrapolated**" in line
    assert "3.6e+03×" in line
    assert "1.000†" in line
    assert "Not run: X, breast cancer table: why." in text


@pytest.mark.parametrize("text", ["concrete", "concrete=0", "concrete=x", "seal=1"])
def test_a_limit_that_does_not_fit_is_refused(peers: Any, text: str) -> None:
    with pytest.raises(peers.argparse.ArgumentTypeError):
        peers.limits(text)


def test_the_command_that_is_published_names_no_place_of_the_machine(peers: Any) -> None:
    given = ["--work", "/home/me/w", "--limit", "concrete=2", "--shared=/data", "--out", "/home/me/o.json"]
    assert peers.command(given) == (
        "python -m benchmarks.peers --work WORK --limit concrete=2 --shared SHARED --out OUT"
    )
    assert peers.command([]) == "python -m benchmarks.peers"
