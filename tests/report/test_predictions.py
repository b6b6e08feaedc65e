"""The table of predictions: round trips, refusals, and models brought into one order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import InputError
from blindtune.report import Predictions, Result, read_predictions
from blindtune.report.predictions import FLOOR, together

GOOD = "case,patient,site,label,well,ill\na,1,x,ill,0.2,0.8\nb,1,y,well,0.9,0.1\n"


@pytest.fixture
def read(tmp_path):
    def parse(text):
        path = tmp_path / "test.csv"
        path.write_text(text, encoding="utf-8")
        return read_predictions(path)

    return parse


def test_the_documented_columns(read):
    found = read(GOOD)
    assert found.classes == ("well", "ill")
    assert found.cases == ("a", "b")
    assert found.people == (("x", "1"), ("y", "1"))
    assert found.unit.tolist() == [0, 1]
    assert found.labels.tolist() == [1, 0]
    assert found.probabilities.tolist() == [[0.2, 0.8], [0.9, 0.1]]
    assert found.logits == pytest.approx([np.log(4), np.log(1 / 9)])


def test_file_is_a_case_prediction_is_ignored_and_site_may_lack(read):
    found = read("file;prediction;patient;label;ill;well\na;ill;1;ill;0,2;0,8".replace("0,", "0."))
    assert (found.cases, found.classes, found.sites) == (("a",), ("ill", "well"), None)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(2, 5), st.booleans())
def test_round_trip(tmp_path_factory, seed, n, k, with_sites):
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(k, 0.3), n)
    one = Predictions(
        tuple(f'class, "{i}"' for i in range(k)),
        tuple(f"scan {i}; ünïcode" for i in range(n)),
        tuple(f"P{i % 3}" for i in range(n)),
        random.integers(0, k, n),
        shares,
        tuple("ab"[i % 2] for i in range(n)) if with_sites else None,
    )
    path = tmp_path_factory.mktemp("p") / "p.csv"
    one.write(path)
    found = read_predictions(path)
    for name in ("classes", "cases", "patients", "sites", "people"):
        assert getattr(found, name) == getattr(one, name)
    assert np.array_equal(found.labels, one.labels)
    assert found.probabilities == pytest.approx(shares, rel=1e-8)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no column 'case'"),
        ("case,label,a,b\n1,a,0.5,0.5\n", "no column 'patient'.*repeat the case"),
        ("case,patient,a,b\n1,1,0.5,0.5\n", "no column 'label'"),
        ("case,patient,label\n1,1,a\n", "1 label.*line 2"),
        ("case,patient,label,a\n1,1,a,1\n", "1 class columns"),
        ("case,patient,label,a,a\n1,1,a,1,0\n", "two of one name"),
        (
            GOOD.replace("ill,0.2", "sick,0.2"),
            r"1 label\(s\) that no column of a class names, the first in line 2",
        ),
        (GOOD.replace("0.8", "0.9"), "do not sum to 1"),
        (GOOD.replace("0.2,0.8", "-0.2,1.2"), "no probability"),
        (GOOD.replace("0.8", "nan"), "no probability"),
        (GOOD.replace("0.8", "high"), "line 2: column 'ill' is no number"),
        (GOOD.replace("0.8", ""), "line 2 has no probability of ill"),
        (GOOD.replace("b,1", "a,1"), "a case stands twice"),
        (GOOD.replace("b,1", "b,"), "line 3 has no patient"),
        (GOOD.replace("y,well", ",well"), "line 3 has no site"),
    ],
)
def test_bad_tables_are_refused_by_name_of_the_file(read, text, reason):
    with pytest.raises(InputError, match=reason) as caught:
        read(text)
    assert caught.value.where == "test.csv"
    assert caught.value.remedy


@pytest.mark.parametrize(
    "changes",
    [
        {"patients": ("1",)},
        {"labels": np.array([0, 2])},
        {"probabilities": np.full((2, 3), 1 / 3)},
        {"sites": ("x",)},
        {
            "cases": (),
            "patients": (),
            "labels": np.zeros(0, int),
            "probabilities": np.zeros((0, 2)),
            "sites": None,
        },
    ],
)
def test_arrays_that_do_not_fit_are_refused(read, changes):
    good = read(GOOD)
    with pytest.raises(InputError, match="predictions"):
        replace(good, **changes)


def test_no_cutoff_for_three_classes(predictions):
    with pytest.raises(InputError, match="cutoff"):
        replace(predictions(classes="abc"), cutoff=1.0)


def test_class_called_like_a_column_is_not_written(predictions):
    with pytest.raises(InputError, match=r"classes called \['Site'\]"):
        predictions(classes=("Site", "b")).to_csv()


def test_unwritable_place(predictions, tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        predictions().write(tmp_path / "none" / "p.csv")


def test_impossible_probabilities_stay_finite(read):
    found = read(GOOD.replace("0.2,0.8", "0,1"))
    assert found.logits[0] == pytest.approx(-np.log(FLOOR))
    assert np.isfinite(found.result(resamples=0).metrics["log_loss"].value)


@pytest.mark.parametrize("classes", ["ab", "abc"])
def test_figures_are_those_of_the_logits_and_come_back(predictions, classes):
    one = predictions(classes=classes)
    result = one.result(resamples=20)
    kind = "binary" if len(classes) == 2 else "multiclass"
    direct = Result.of(one.logits, one.labels, classes, kind=kind, groups=one.patients, resamples=20)
    assert result.metrics == direct.metrics
    assert result.metrics.patients == 30
    back = Predictions.of(result, one.cases, one.patients)
    assert back.probabilities == pytest.approx(one.probabilities)
    assert back.classes == one.classes


def test_other_heads_have_no_table():
    result = Result.of([1.0, 2.0], [1.0, 2.0], ("ml",), kind="regression", resamples=0)
    with pytest.raises(InputError, match="a regression head"):
        Predictions.of(result, ("a", "b"), ("a", "b"))


def test_cutoff_decides(predictions):
    one = predictions()
    middle = float(np.median(one.logits))
    result = replace(one, cutoff=middle).result(resamples=0)
    assert result.decisions.tolist() == (one.logits > middle).astype(int).tolist()
    assert result.metrics["accuracy"].value == np.mean((one.logits > middle) == one.labels)
    assert result.metrics["brier"] == one.result(resamples=0).metrics["brier"]


def test_by_site(predictions):
    one = predictions(sites=("north", "east"))
    parts = one.by_site()
    assert list(parts) == ["east", "north"]
    assert sum(map(len, parts.values())) == len(one)
    for site, part in parts.items():
        rows = [i for i, name in enumerate(one.sites) if name == site]
        assert part.cases == tuple(one.cases[i] for i in rows)
        assert np.array_equal(part.probabilities, one.probabilities[rows])
    assert predictions().by_site() == {}


@given(st.integers(0, 2**32 - 1), st.sampled_from(["ab", "abcd"]))
def test_together_undoes_any_order(seed, classes):
    random = np.random.default_rng(seed)
    k, n = len(classes), 12
    first = Predictions(
        tuple(classes),
        tuple(f"c{i}" for i in range(n)),
        tuple(f"p{i // 2}" for i in range(n)),
        random.integers(0, k, n),
        random.dirichlet(np.ones(k), n),
        cutoff=0.3 if k == 2 else 0.0,
    )
    columns = random.permutation(k)
    shuffled = replace(
        first.take(random.permutation(n)),
        classes=tuple(classes[c] for c in columns),
        cutoff=first.cutoff * (1 if columns[0] < columns[-1] or k > 2 else -1),
    )
    shuffled = replace(
        shuffled,
        labels=np.argsort(columns)[shuffled.labels],
        probabilities=shuffled.probabilities[:, columns],
    )
    found = together({"one": first, "other": shuffled})["other"]
    assert (found.classes, found.cases, found.people, found.cutoff) == (
        first.classes,
        first.cases,
        first.people,
        first.cutoff,
    )
    assert np.array_equal(found.labels, first.labels)
    assert np.array_equal(found.probabilities, first.probabilities)


@pytest.mark.parametrize("what", ["fewer", "other classes", "label", "patient", "site"])
def test_other_cases_are_refused(predictions, what):
    first = predictions(sites=("a", "b"))
    other = {
        "fewer": lambda: first.take(np.arange(50)),
        "other classes": lambda: replace(first, classes=("well", "sick")),
        "label": lambda: replace(first, labels=1 - first.labels),
        "patient": lambda: replace(first, patients=("Q", *first.patients[1:])),
        "site": lambda: replace(first, sites=("c", *first.sites[1:])),
    }[what]()
    with pytest.raises(InputError, match="model 'other'") as caught:
        together({"one": first, "other": other})
    assert "P0" not in str(caught.value)
    assert "Q" not in str(caught.value)
