"""Built-in heads by name."""

from __future__ import annotations

from typing import Any

import pytest

from blindtune.errors import PlanError
from blindtune.models.builtin import NAMES, head_for
from blindtune.models.heads import Head
from blindtune.models.softmax import SoftmaxHead


@pytest.mark.parametrize(
    ("name", "outputs", "wanted", "kind"),
    [
        ("auto", 1, "logistic", "binary"),
        ("auto", 3, "one-vs-rest", "multiclass"),
        ("auto", 4, "softmax", "multiclass"),
        ("auto", 9, "softmax", "multiclass"),
        ("logistic", 1, "logistic", "binary"),
        ("logistic", 6, "one-vs-rest", "multiclass"),
        ("one-vs-rest", 1, "logistic", "binary"),
        ("one-vs-rest", 6, "one-vs-rest", "multiclass"),
        ("softmax", 3, "softmax", "multiclass"),
        ("ridge", 1, "ridge", "binary"),
        ("ridge", 4, "ridge", "multiclass"),
    ],
)
def test_heads_by_name(name: str, outputs: int, wanted: str, kind: str) -> None:
    head = head_for(name, outputs)
    assert (head.name, head.kind) == (wanted, kind)
    assert isinstance(head, SoftmaxHead) == (wanted == "softmax")
    # What a name promises can be planned.
    assert head.program.steps == head.steps > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("outputs", [1, 5])
@pytest.mark.parametrize("steps", [1, 2, 6])
def test_steps_are_as_many_as_asked_for(name: str, outputs: int, steps: int) -> None:
    if (name, outputs) == ("softmax", 1):
        return
    usual, found = head_for(name, outputs), head_for(name, outputs, steps=steps)
    assert found.steps == steps
    assert set(found.learning_rates) == set(usual.learning_rates)


def test_options_reach_the_head() -> None:
    assert head_for("logistic", 1, degree=3).degree == 3
    assert head_for("one-vs-rest", 3, degree=5, interval=6.0, decay=0.1) == head_for(
        "auto", 3, degree=5, interval=6.0, decay=0.1
    )
    assert head_for("ridge", 1, learning_rates=(0.5,)).learning_rates == (0.5,)
    assert head_for("softmax", 4, momentum=0.0).momentum == 0


@pytest.mark.parametrize("name", ["ridge", "softmax"])
def test_a_degree_that_a_head_does_not_have_is_ignored(name: str) -> None:
    # The command line passes its default degree to every head.
    found: Head = head_for(name, 5, degree=7)
    assert found == head_for(name, 5)
    assert found.degree == 1


@pytest.mark.parametrize(
    ("name", "outputs", "options", "message"),
    [
        ("svm", 1, {}, r"no head named svm\. Use auto, logistic, one-vs-rest, softmax or ridge"),
        ("x" * 500, 1, {}, f"no head named {'x' * 40}\\. Use"),
        ("softmax", 1, {}, "a softmax head for two classes.*--head logistic"),
        ("logistic", 1, {"degree": 4}, "degree 4"),
    ],
)
def test_heads_that_are_not_there(name: str, outputs: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        head_for(name, outputs, **options)
