"""A run's rounds: what is read, what is refused, and the curves against obvious sums."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, matthews_corrcoef

from blindtune.errors import InputError
from blindtune.report import Course


def record(number=0, **changes):
    """As the coordinator keeps a round."""
    return {
        "number": number,
        "sites": ["north", "south"],
        "excluded": {"west": "too late"},
        "confusion": [[5.0, 1.0], [2.0, 7.0]],
        "loss": 0.5,
        "stopped": 0,
        "change": 0.1,
        "attempts": 1,
        **changes,
    }


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 4))
def test_curves_are_those_of_the_cases(seed, rounds, k):
    random = np.random.default_rng(seed)
    counts = random.integers(0, 4, (rounds, k, k))
    course = Course.of([record(i, confusion=one.tolist(), sites=["x"] * i) for i, one in enumerate(counts)])
    assert course.classes == k
    for at, one in enumerate(counts):
        truth = [i for i in range(k) for j in range(k) for _ in range(one[i, j])]
        called = [j for i in range(k) for j in range(k) for _ in range(one[i, j])]
        assert course.curves["cases"][at] == len(truth)
        assert course.curves["sites"][at] == at
        if not truth:
            assert math.isnan(course.curves["accuracy"][at])
        else:
            assert course.curves["accuracy"][at] == pytest.approx(accuracy_score(truth, called))
        if len(set(truth)) < 2:
            assert math.isnan(course.curves["mcc"][at])
        else:
            assert course.curves["mcc"][at] == pytest.approx(matthews_corrcoef(truth, called))


def test_rounds_without_validation_and_without_loss():
    course = Course.of([record(0), record(1, confusion=[[0, 0], [0, 0]], loss=None), record(2, confusion=[])])
    assert [math.isnan(x) for x in course.curves["accuracy"]] == [False, True, True]
    assert [math.isnan(x) for x in course.curves["loss"]] == [False, True, False]
    assert course.last.number == 0
    assert not course.noisy
    assert Course.of([record(confusion=[])]).last is None


def test_noisy_counts_are_noticed():
    course = Course.of([record(confusion=[[5.25, 0.0], [0.0, 3.5]])])
    assert course.noisy
    assert course.rounds[0].cases == 8.75
    assert course.curves["mcc"][0] == pytest.approx(1.0)
    # One class only, with sums that do not round alike: no error, no figure.
    assert not course.curves["mcc"][0] < 0
    odd = Course.of([record(confusion=[[0.1, 0.2, 0.3], [0.0] * 3, [0.0] * 3])])
    assert odd.curves["cases"][0] == pytest.approx(0.6)


def test_area_is_in_the_records():
    assert Course.of([record(auc=0.75)]).curves["auc"] == [0.75]


def test_epsilon_is_in_the_records_or_beside_them():
    assert Course.of([record(epsilon=1.5)]).curves["epsilon"] == [1.5]
    given_ = Course.of([record(0), record(1)], epsilon=[0.5, None])
    assert given_.curves["epsilon"][0] == 0.5
    assert math.isnan(given_.curves["epsilon"][1])
    with pytest.raises(InputError, match="1 values of epsilon for 2 rounds"):
        Course.of([record(0), record(1)], epsilon=[0.5])


def test_a_coordinators_file(tmp_path):
    path = tmp_path / "study.json"
    told = {"plan": "abc", "model": "m", "counted": True, "rounds": [record(0), record(1)], "attempt": 3}
    path.write_text(json.dumps(told))
    course = Course.read(path)
    assert [one.number for one in course.rounds] == [0, 1]
    assert course.rounds[0].excluded == {"west": "too late"}


def test_the_coordinators_own_rounds_are_understood():
    from dataclasses import asdict, fields

    from blindtune.federation.coordinator import Round

    known = {field.name for field in fields(Round)}
    told = {name: value for name, value in record(sites=["a"], auc=0.75).items() if name in known}
    one = Round(**told)
    course = Course.of([asdict(one)])
    assert course.curves["accuracy"][0] == one.accuracy == 12 / 15
    # Nothing that is told of a round is lost on the way.
    assert {name: course.rounds[0].model_dump(mode="json")[name] for name in told} == told


@pytest.mark.parametrize(
    ("rounds", "reason"),
    [
        ([], "no rounds"),
        ([record(1), record(0)], "out of order"),
        ([record(0), record(0)], "out of order"),
        ([record(confusion=[[1, 2]])], "not square"),
        ([record(0), record(1, confusion=[[1] * 3] * 3)], "different sizes"),
        ([record(confusion=[[-1, 0], [0, 1]])], "confusion"),
        ([record(loss=float("nan"))], "loss"),
        ([record(auc=1.5)], "auc"),
        ([record(epsilon=-1.0)], "epsilon"),
        ([record(sites="north")], "sites"),
        ([{"number": 0}], "sites"),
        (["x"], "no mapping"),
        ([None], "no mapping"),
    ],
)
def test_other_records_are_refused(rounds, reason):
    with pytest.raises(InputError, match=reason):
        Course.of(rounds)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rounds": 3}', '{"rounds": [{}]}', "[" * 100_000])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "study.json"
    path.write_text(text)
    with pytest.raises(InputError):
        Course.read(path)


def test_missing_and_huge_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="cannot be read"):
        Course.read(tmp_path / "none.json")
    (tmp_path / "study.json").write_text(json.dumps({"rounds": [record()]}))
    monkeypatch.setattr("blindtune.report.course.MAX_STUDY_BYTES", 10)
    with pytest.raises(InputError, match="not the file of a federated run"):
        Course.read(tmp_path / "study.json")
