"""Membership inference: it finds what is memorised, nothing in private heads, and counts what it finds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from blindtune.audit.heads import Study, decrypted, memorising, private
from blindtune.audit.membership import Attacked, attack, audit
from blindtune.errors import InputError

SETTINGS = SimpleNamespace(
    outputs=3,
    classes=("a", "b", "c"),
    interval=12.0,
    head={
        "name": "one-vs-rest",
        "degree": 7,
        "learning_rates": [4.0, 4.0, 4.0],
        "directions": 9,
        "epsilon": 0.1,
    },
)


def draw(seed=0, rows=240, features=12):
    """Rows of three classes; every patient has two."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    x = rng.normal(size=(rows, features)) + rng.normal(size=(3, features))[labels]
    return x, labels, np.arange(rows) // 2


@pytest.fixture(scope="module")
def study():
    """A small study of 120 patients, and 40 validation rows."""
    x, y, who = draw()
    return Study(x, y, who, draw(1, 40)[:2], SETTINGS)


def test_a_head_that_memorises_is_found_out():
    found = attack(memorising(3), *draw(), heads=24)
    assert found.area > 0.95
    assert found.rate(0.01).low > 0.5


def test_a_head_that_ignores_its_rows_tells_nothing():
    fixed = np.random.default_rng(0).normal(size=(12, 3))
    found = attack(lambda *_: lambda rows: rows @ fixed, *draw(), heads=24)
    # All log-ratios are the same up to rounding, and nothing can be told.
    assert found.rate(0.01).value < 0.05
    assert abs(found.area - 0.5) < 0.05


def test_noise_of_a_small_budget_hides_the_patients():
    recipe = private(3, 12, 60, 0.5, 1e-3)
    assert abs(attack(recipe, *draw(), heads=16).area - 0.5) < 0.12


def test_a_release_tells_what_the_head_tells(study):
    rows = study.features, study.labels, study.patients
    shown = [attack(decrypted(study, released=r), *rows, heads=32).area for r in (False, True)]
    assert 0.52 < shown[0] < 1
    assert shown[1] == pytest.approx(shown[0], abs=0.05)


def test_rates_are_those_of_the_scores():
    scores = np.array([[4.0, 1.0], [3.0, 2.0]])
    members = np.array([[True, False], [False, True]])
    found = Attacked(scores, members)
    assert found.area == 0.75
    assert found.rate(0.0).value == 0.5
    assert found.rate(0.5).value == 1.0


def test_results_name_every_protection(study):
    seen = []
    found = audit(study, 16, [2.0], lambda done, total: seen.append((done, total)))
    assert seen[-1] == (64, 64)
    assert [r.protection for r in found] == [
        "none: a head that memorises (control)",
        "none: the decrypted head",
        "sanitised release",
        "differential privacy, epsilon 2",
    ]
    assert all(r.control for r in found)
    assert all(r.figures["TPR at 1 % FPR"].high is not None for r in found)


def test_what_cannot_be_attacked_is_refused(study):
    with pytest.raises(InputError, match="15 shadow heads"):
        attack(memorising(3), *draw(), heads=15)
    with pytest.raises(InputError, match="too few patients"):
        attack(memorising(3), *draw(rows=6), heads=16)
    other = SimpleNamespace(**{**vars(SETTINGS), "head": {"name": "my own"}})
    with pytest.raises(InputError, match="not built in"):
        decrypted(Study(study.features, study.labels, study.patients, study.held, other))
