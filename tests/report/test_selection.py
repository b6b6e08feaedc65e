"""Choices made on validation: optimal there, and never judged on the same patients."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import InputError
from blindtune.report import Predictions, select

seeds = st.integers(0, 2**32 - 1)


def binary(logits, labels):
    p = 1 / (1 + np.exp(-np.asarray(logits, dtype=float)))
    names = tuple(f"c{i}" for i in range(len(labels)))
    return Predictions(("no", "yes"), names, names, np.asarray(labels), np.stack([1 - p, p], axis=1))


def rates(logits, labels, cutoff):
    called = logits > cutoff
    return called[labels == 1].mean(), (~called[labels == 0]).mean()


@given(seeds, st.integers(2, 25))
def test_cutoff_is_the_best_of_all(seed, n):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    one = binary(random.integers(-3, 4, n) / 2, labels)  # with ties
    logits = one.logits
    found = select(one, temperature=False)
    every = [rates(logits, labels, c) for c in np.append(np.unique(logits) - 0.1, logits.max() + 0.1)]
    assert sum(rates(logits, labels, found.cutoff)) == pytest.approx(max(max(map(sum, every)), 1.0))
    assert found.temperature == 1.0
    assert found.threshold == pytest.approx(1 / (1 + np.exp(-found.cutoff)))
    # No case lies on the cut-off, so that rounding cannot turn it.
    assert np.abs(logits - found.cutoff).min() > 0.1


@given(seeds, st.integers(2, 25), st.floats(0.01, 1.0))
def test_wanted_sensitivity_is_reached_with_the_most_specificity(seed, n, wanted):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    one = binary(random.integers(-3, 4, n) / 2, labels)
    logits = one.logits
    found = select(one, temperature=False, sensitivity=wanted)
    sensitivity, specificity = rates(logits, labels, found.cutoff)
    assert sensitivity >= wanted - 1e-9
    for cutoff in np.append(np.unique(logits) - 0.1, logits.max() + 0.1):
        other, cleared = rates(logits, labels, cutoff)
        assert other < wanted - 1e-9 or cleared <= specificity


@pytest.mark.parametrize("classes", ["ab", "abc"])
@pytest.mark.parametrize("factor", [0.3, 4.0])
def test_temperature_undoes_what_was_overdone(predictions, classes, factor):
    honest = predictions(n=4000, classes=classes)
    # Cases drawn so that the probabilities are true.
    random = np.random.default_rng(5)
    draws = (random.random((len(honest), 1)) > honest.probabilities.cumsum(axis=1)).sum(axis=1)
    honest = replace(honest, labels=np.minimum(draws, len(classes) - 1))
    shares = honest.probabilities**factor
    bold = replace(honest, probabilities=shares / shares.sum(axis=1, keepdims=True))
    found = select(bold, cutoff=False)
    assert found.temperature == pytest.approx(factor, rel=0.1)
    assert (found.cutoff, found.rule) == (0.0, "")
    other = replace(bold, patients=tuple(f"Q{p}" for p in bold.patients))
    before, after = other.result(resamples=0).metrics, found.apply(other).result(resamples=0).metrics
    assert after["log_loss"].value < before["log_loss"].value
    assert after["roc_auc"].value == pytest.approx(
        before["roc_auc"].value, abs=0.01 if classes == "abc" else 1e-9
    )
    assert after.confusion == before.confusion


def test_test_patients_must_be_others(predictions):
    validation = predictions(prefix="V")
    found = select(validation, sensitivity=0.9)
    test = predictions(prefix="T")
    judged = found.apply(test)
    assert judged.cutoff == found.cutoff
    assert judged.cases == test.cases
    torn = replace(test, patients=("V3", *test.patients[1:]))
    with pytest.raises(InputError, match=r"1 of 31 .* the choice of threshold and calibration") as caught:
        found.apply(torn)
    assert "V3" not in str(caught.value)
    with pytest.raises(InputError, match="chosen for the classes well, ill, used for ill, well"):
        found.apply(replace(test, classes=("ill", "well")))


def test_json_tells_no_patient(predictions):
    found = select(predictions(prefix="V"), sensitivity=0.9)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert "V1" not in text + repr(found)
    assert found.to_json()["patients"] == 30
    assert "90 %" in found.rule


def test_more_classes_have_no_cutoff(predictions):
    found = select(predictions(classes="abc"))
    assert (found.cutoff, found.rule) == (0.0, "")


@pytest.mark.parametrize(
    ("classes", "sensitivity"), [("ab", 0.0), ("ab", 1.1), ("ab", float("nan")), ("abc", 0.9)]
)
def test_impossible_wishes_are_refused(predictions, classes, sensitivity):
    with pytest.raises(InputError, match="sensitivity"):
        select(predictions(classes=classes), sensitivity=sensitivity)


def test_every_class_is_needed(predictions):
    one = predictions()
    with pytest.raises(InputError, match="no validation case"):
        select(replace(one, labels=np.zeros_like(one.labels)))
