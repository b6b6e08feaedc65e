"""Runs judged as a whole: comparisons, sites, experts, and test sets that are no test."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix, roc_auc_score

from blindtune.errors import InputError
from blindtune.report import Course, Run, judge, mcnemar, select
from blindtune.report.run import LABEL


@pytest.fixture(params=["ab", "abcd"])
def models(request, predictions, noisier):
    local = predictions(n=120, classes=request.param, sites=("north", "south", "west"))
    return {"local": local, "federated": noisier(local)}


def test_everything_is_what_it_is_by_itself(models):
    judged = judge(Run(models=models, resamples=40))
    local, federated = models["local"], models["federated"]
    assert judged.comparison.reference == "local"
    for name, one in models.items():
        assert judged.results[name].metrics == one.result(resamples=40).metrics
        for site, part in one.by_site().items():
            found = judged.sites[name][site]
            assert found == part.result(resamples=40).metrics
            rows = np.array([s == site for s in one.sites])
            called = judged.results[name].decisions[rows]
            expected = confusion_matrix(one.labels[rows], called, labels=range(len(one.classes)))
            assert found.confusion == tuple(map(tuple, expected.tolist()))
    mine, theirs = (judged.results[name].decisions for name in ("federated", "local"))
    test = judged.comparison.agreements[1].mcnemar
    assert test == mcnemar(mine == local.labels, theirs == local.labels, local.unit)
    assert test.first_only == ((mine == local.labels) & (theirs != local.labels)).sum()
    assert judged.comparison.agreements[1].kappa.value == pytest.approx(cohen_kappa_score(mine, theirs))
    gap = next(row for row in judged.comparison.rows if row.key == "mcc").differences[1]
    assert gap.low < gap.value < gap.high
    assert federated.cases == local.cases


def test_weighted_area_is_scikit_learns(models):
    one = models["local"]
    if len(one.classes) == 2:
        assert "roc_auc_weighted" not in one.result(resamples=0).metrics.figures
        return
    found = one.result(resamples=0).metrics["roc_auc_weighted"].value
    shares = one.probabilities / one.probabilities.sum(axis=1, keepdims=True)
    expected = roc_auc_score(one.labels, shares, multi_class="ovr", average="weighted")
    assert found == pytest.approx(expected)


def test_groups_count_cases_patients_and_classes(models):
    judged = judge(Run(models=models, resamples=0))
    everyone, *sites = judged.groups
    local = models["local"]
    assert (everyone.site, everyone.n, everyone.patients) == (None, 120, 60)
    assert everyone.by_class == tuple(np.bincount(local.labels, minlength=len(local.classes)))
    assert [one.site for one in sites] == ["north", "south", "west"]
    assert sum(one.patients for one in sites) == 60
    assert np.sum([one.by_class for one in sites], axis=0).tolist() == list(everyone.by_class)


def test_experts(models):
    local = models["local"]
    expert = np.roll(local.labels, 1)
    judged = judge(Run(models=models, experts={"Dr A": expert}, resamples=20))
    readings = judged.experts["Dr A"]
    assert list(readings) == [LABEL, "local", "federated"]
    decided = {LABEL: local.labels, **{name: one.decisions for name, one in judged.results.items()}}
    for name, one in readings.items():
        assert one.same == np.mean(decided[name] == expert)
        assert one.kappa.value == pytest.approx(cohen_kappa_score(decided[name], expert))
    with pytest.raises(InputError, match="expert 'Dr A'"):
        judge(Run(models=models, experts={"Dr A": expert[:-1]}))


def test_choices_are_applied_and_their_patients_refused(predictions, noisier):
    test = predictions(n=80)
    models = {"one": test, "two": noisier(test)}
    chosen = select(predictions(seed=3, n=80, prefix="V"), sensitivity=0.95)
    judged = judge(Run(models=models, selections={"two": chosen}, resamples=0))
    assert judged.results["two"].metrics == chosen.apply(models["two"]).result(resamples=0).metrics
    assert judged.results["two"].metrics.cutoff == chosen.cutoff
    assert judged.results["one"].metrics.cutoff == 0
    with pytest.raises(InputError, match="choice of threshold"):
        judge(Run(models=models, selections={"two": select(test)}))
    with pytest.raises(InputError, match="no model here"):
        judge(Run(models=models, selections={"three": chosen}))


def test_seen_patients_are_refused(models):
    judge(Run(models=models, seen={("north", "nobody")}, resamples=0))
    with pytest.raises(InputError, match="seen in training or validation"):
        judge(Run(models=models, seen=set(models["local"].people[:1])))


def test_a_course_alone_and_nothing_at_all():
    course = Course.of([{"number": 0, "sites": ["a"], "confusion": [[1, 0], [0, 1]]}])
    judged = judge(Run(courses={"run": course}))
    assert judged.comparison is None
    assert judged.to_json()["courses"]["run"][0]["sites"] == ["a"]
    with pytest.raises(InputError, match="neither a model nor rounds"):
        judge(Run())


def test_json_is_plain_and_names_no_patient_nor_case(models):
    course = Course.of([{"number": 0, "sites": ["a"]}])
    labels = models["local"].labels
    run = Run(
        models=models, courses={"c": course}, experts={"e": labels}, seen={("north", "Q")}, resamples=20
    )
    text = json.dumps(judge(run).to_json(), allow_nan=False)
    found = json.loads(text)
    assert found["seen_patients"] == 1
    assert found["test"][0]["patients"] == 60
    assert found["comparison"]["agreement"]["federated"]["mcnemar"]["method"]
    assert found["experts"]["e"][LABEL]["kappa"]["value"] == 1.0
    assert "P1" not in text
    assert ".png" not in text


def test_same_patient_number_at_two_sites_is_two_people(predictions):
    one = predictions(n=40)
    split = replace(one, sites=tuple("ab"[i % 2] for i in range(40)))
    assert judge(Run(models={"m": one}, resamples=0)).groups[0].patients == 20
    assert judge(Run(models={"m": split}, resamples=0)).groups[0].patients == 40
