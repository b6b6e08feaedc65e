"""The examples run, and a custom head learns."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_custom_head_trains_on_ciphertexts(tmp_path: Path) -> None:
    example = runpy.run_path(str(EXAMPLES / "custom_head.py"))
    assert example["main"](tmp_path / "study") > 0.93
