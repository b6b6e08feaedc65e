"""Curves over rounds: well-formed, and drawn where there is something to draw."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from blindtune.report import Course, curves


def course(rounds=4, **changes):
    return Course.of(
        [
            {
                "number": i,
                "sites": ["a", "b"],
                "confusion": [[3 + i, 2], [1, 4]],
                "loss": 1 / (1 + i),
                "auc": 0.8,
                **changes,
            }
            for i in range(rounds)
        ]
    )


@pytest.mark.parametrize("curve", ["loss", "accuracy", "mcc", "auc", "sites", "epsilon"])
@pytest.mark.parametrize("rounds", [1, 4, 40])
def test_curve_is_well_formed_and_themed(curve, rounds):
    runs = {"_plain $x^{ <&>": course(rounds), "private": course(rounds, epsilon=2.0)}
    svg = curves.course(runs, curve, prefix=f"c-{curve}")
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert "var(--ink" in svg
    assert not re.search(r"#0[1-5]0[1-5]0[1-6]", svg)
    legend = "".join(root.itertext())
    assert "private" in legend
    assert ("_plain" in legend) == (curve != "epsilon")


def test_description_tells_both_ends():
    svg = curves.course({"run": course(3)}, "accuracy")
    told = ElementTree.fromstring(svg).find("desc").text
    assert told == "run: 0.7 at first, 0.75 at last"


def test_only_curves_with_values_are_shown():
    assert curves.shown({"x": course()}) == ["loss", "accuracy", "mcc", "auc", "sites"]
    assert curves.shown({"x": course(), "y": course(epsilon=1.0)})[-1] == "epsilon"
    bare = Course.of([{"number": 0, "sites": ["a"]}])
    assert curves.shown({"x": bare}) == ["sites"]
