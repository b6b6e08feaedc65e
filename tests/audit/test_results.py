"""Results of attacks: what is written is read back, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blindtune.audit.results import AttackResult, proportion, read_results, versions, write_results
from blindtune.errors import InputError
from blindtune.report.figures import Figure

RESULT = AttackResult(
    attack="key recovery",
    target="logistic head",
    protection="none",
    figures={"keys": proportion(3, 10), "error": Figure(0.5), "unknown": Figure(None, reason="no trials")},
    trials=10,
    control=True,
    command="blindtune audit keys",
    versions=versions(),
)


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, [RESULT, replace(RESULT, control=False)])
    assert read_results(path) == [RESULT, replace(RESULT, control=False)]


@pytest.mark.parametrize(
    "change",
    [
        {"control": "yes"},
        {"trials": None},
        {"figures": {"keys": {"value": "many"}}},
        {"figures": {"keys": {"value": float("nan")}}},
        {"figures": []},
        {"patient": "Smith"},
    ],
)
def test_other_results_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="not an attack's result"):
        AttackResult.from_json({**RESULT.to_json(), **change})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other", "results": []}', "[" * 5000])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(InputError, match="not a file of attack results"):
        read_results(path)


def test_a_missing_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no results here"):
        read_results(tmp_path / "results.json")
    with pytest.raises(InputError, match="cannot be written"):
        write_results(tmp_path / "absent" / "results.json", [RESULT])


def test_a_share_has_its_exact_interval() -> None:
    # 0 of 1,000: the upper end is 1 - (alpha / 2)^(1 / n).
    none = proportion(0, 1000)
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 1000))
    assert proportion(0, 0).value is None
    assert json.dumps(RESULT.to_json())
