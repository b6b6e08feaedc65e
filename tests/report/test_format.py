"""Numbers as people read them."""

from __future__ import annotations

import pytest

from blindtune.report import Figure, _format


@pytest.mark.parametrize(
    ("name", "figure", "text"),
    [
        ("accuracy", Figure(0.012, 0.003, 0.021), "+1.2 points (0.3 to 2.1)"),
        ("accuracy", Figure(-0.012), "−1.2 points"),
        ("roc_auc", Figure(-0.00001, -0.0002, 0.0001), "±0.000"),
        ("roc_auc", Figure(-0.00001, -0.002, 0.0001), "±0.000 (−0.002 to 0.000)"),
        ("roc_auc", Figure(None), "–"),
    ],
)
def test_change(name, figure, text):
    assert _format.change(name, figure) == text


def test_value_and_share():
    assert _format.value("accuracy", Figure(0.5)) == "50.0 %"
    assert _format.value("r2", Figure(-1.25)) == "−1.250"
    assert _format.percent(1.0) == "100.0 %"
    assert _format.percent(0.99999) == "> 99.9 %"
    assert _format.shortened("abcdef", 4) == "abc…"
