"""Figures against slow, obvious definitions."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blindtune.errors import InputError
from blindtune.report import Metrics, difference, evaluate

seeds = st.integers(0, 2**32 - 1)


def slow_auc(score, positive):
    pairs = [(a, b) for a in score[positive] for b in score[~positive]]
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs) if pairs else None


def slow_mcc(truth, called):
    if len(set(truth)) < 2:
        return None
    if len(set(called)) < 2:
        return 0.0
    names = range(max(*truth, *called) + 1)
    x = np.array([[float(t == k) for k in names] for t in truth])
    y = np.array([[float(t == k) for k in names] for t in called])
    x, y = x - x.mean(0), y - y.mean(0)
    return (x * y).sum() / math.sqrt((x**2).sum() * (y**2).sum())


def slow_ece(probability, hit):
    total = 0.0
    for bin_ in range(10):
        inside = [i for i, p in enumerate(probability) if min(int(p * 10), 9) == bin_]
        if inside:
            gap = np.mean([probability[i] for i in inside]) - np.mean([hit[i] for i in inside])
            total += abs(gap) * len(inside) / len(probability)
    return total


def share(above, below):
    return above / below if below else None


def same(figure, expected):
    if expected is None:
        return figure.value is None and figure.reason != ""
    return figure.value == pytest.approx(expected, abs=1e-9)


def check_class(one, truth, called, score):
    tp, fn = int((truth & called).sum()), int((truth & ~called).sum())
    fp, tn = int((~truth & called).sum()), int((~truth & ~called).sum())
    counts = (one.true_positive, one.false_positive, one.false_negative, one.true_negative)
    assert counts == (tp, fp, fn, tn)
    assert one.support == truth.sum()
    assert same(one.sensitivity, share(tp, tp + fn))
    assert same(one.specificity, share(tn, tn + fp))
    assert same(one.ppv, share(tp, tp + fp))
    assert same(one.npv, share(tn, tn + fn))
    assert same(one.roc_auc, slow_auc(score, truth))


def mean_or_none(values):
    return None if any(v is None for v in values) else float(np.mean(values))


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 25))
def test_binary_matches_definitions(seed, n):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, n)
    logits = random.integers(-3, 4, n) / 2  # ties and exact zeros
    found = evaluate(logits, labels, ("no", "yes"), resamples=0)
    truth, called = labels == 1, logits > 0
    p = 1 / (1 + np.exp(-logits))
    check_class(found.per_class[1], truth, called, logits)
    check_class(found.per_class[0], ~truth, ~called, -logits)
    assert same(found["accuracy"], np.mean(truth == called))
    assert same(found["mcc"], slow_mcc(labels.tolist(), called.astype(int).tolist()))
    assert same(found["roc_auc"], slow_auc(logits, truth))
    assert same(found["ece"], slow_ece(p, truth))
    assert same(found["brier"], np.mean((p - truth) ** 2))
    assert same(found["log_loss"], -np.mean(np.log(np.where(truth, p, 1 - p))))
    recalls = [found.per_class[k].sensitivity.value for k in (0, 1)]
    assert same(found["balanced_accuracy"], mean_or_none(recalls))
    assert found["sensitivity"] == found.per_class[1].sensitivity
    assert found["npv"] == found.per_class[1].npv
    assert found.confusion == tuple(
        tuple(int(((labels == i) & (called == j)).sum()) for j in (0, 1)) for i in (0, 1)
    )


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 25), st.integers(2, 5))
def test_multiclass_matches_definitions(seed, n, k):
    random = np.random.default_rng(seed)
    labels = random.integers(0, k, n)
    logits = random.normal(size=(n, k)) * 3
    found = evaluate(logits, labels, [f"c{i}" for i in range(k)], kind="multiclass", resamples=0)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    called = logits.argmax(axis=1)
    for i, one in enumerate(found.per_class):
        check_class(one, labels == i, called == i, p[:, i])
    assert same(found["accuracy"], np.mean(labels == called))
    assert same(found["mcc"], slow_mcc(labels.tolist(), called.tolist()))
    assert same(found["roc_auc"], mean_or_none([slow_auc(p[:, i], labels == i) for i in range(k)]))
    assert same(found["ece"], slow_ece(p.max(axis=1), labels == called))
    assert same(found["brier"], np.mean(((p - np.eye(k)[labels]) ** 2).sum(axis=1)))
    assert same(found["log_loss"], -np.mean(np.log(p[np.arange(n), labels])))
    recalls = [one.sensitivity.value for one in found.per_class]
    assert same(found["balanced_accuracy"], mean_or_none(recalls))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 20), st.integers(1, 4))
def test_multilabel_matches_definitions(seed, n, k):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, (n, k))
    logits = random.integers(-3, 4, (n, k)) / 2
    found = evaluate(logits, labels, [f"c{i}" for i in range(k)], kind="multilabel", resamples=0)
    truth, called, p = labels == 1, logits > 0, 1 / (1 + np.exp(-logits))
    for i, one in enumerate(found.per_class):
        check_class(one, truth[:, i], called[:, i], logits[:, i])
    assert found.confusion is None
    assert same(found["accuracy"], np.mean(truth == called))
    assert same(found["exact_match"], np.mean((truth == called).all(axis=1)))
    assert same(found["brier"], np.mean((p - truth) ** 2))
    assert same(found["ece"], np.mean([slow_ece(p[:, i], truth[:, i]) for i in range(k)]))
    each = [slow_mcc(labels[:, i].tolist(), called[:, i].astype(int).tolist()) for i in range(k)]
    assert same(found["mcc"], mean_or_none(each))


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 20))
def test_regression_matches_definitions(seed, n):
    random = np.random.default_rng(seed)
    measured = 1000 + random.integers(0, 3, n).astype(float)
    predicted = measured + random.normal(size=n)
    found = evaluate(predicted[:, None], measured, ("volume",), kind="regression", resamples=0)
    error = predicted - measured
    spread = ((measured - measured.mean()) ** 2).sum()
    assert same(found["rmse"], math.sqrt(np.mean(error**2)))
    assert same(found["mae"], np.mean(np.abs(error)))
    assert same(found["r2"], 1 - (error**2).sum() / spread if spread else None)


def test_agrees_with_scikit_learn():
    from sklearn import metrics as reference

    random = np.random.default_rng(5)
    labels = random.integers(0, 4, 200)
    logits = random.normal(size=(200, 4)) + 2 * np.eye(4)[labels]
    found = evaluate(logits, labels, "abcd", kind="multiclass", resamples=0)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    called = logits.argmax(axis=1)
    assert same(found["roc_auc"], reference.roc_auc_score(labels, p, multi_class="ovr"))
    assert same(found["mcc"], reference.matthews_corrcoef(labels, called))
    assert same(found["balanced_accuracy"], reference.balanced_accuracy_score(labels, called))
    assert same(found["log_loss"], reference.log_loss(labels, p))


def test_huge_logits_stay_finite_and_ranked():
    logits = np.array([[900.0, 0, 0], [800.0, 0, 0], [0, 1e6, 0], [0, 0, -1e6]])
    found = evaluate(logits, [0, 0, 1, 2], "abc", kind="multiclass", resamples=50)
    json.dumps(found.to_json(), allow_nan=False)
    assert found.per_class[0].roc_auc.value == 1.0


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 12))
def test_interval_is_the_quantile_of_redrawn_patients(seed, patients):
    random = np.random.default_rng(seed)
    groups = random.integers(0, patients, 40)
    labels = random.integers(0, 2, 40)
    logits = random.normal(size=40) + labels
    found = evaluate(logits, labels, "ab", groups=groups, resamples=40, seed=seed)
    order = list(dict.fromkeys(groups.tolist()))
    drawn = np.random.default_rng(seed).integers(0, len(order), (40, len(order)))
    areas, shares = [], []
    for replicate in drawn:
        rows = np.concatenate([np.flatnonzero(groups == order[i]) for i in replicate])
        areas.append(slow_auc(logits[rows], labels[rows] == 1))
        shares.append(np.mean((logits[rows] > 0) == (labels[rows] == 1)))
    assert found.samples["accuracy"] == pytest.approx(shares)
    assert [None if math.isnan(a) else pytest.approx(a) for a in found.samples["roc_auc"]] == areas
    figure = found["accuracy"]
    if figure.low is not None and figure.value < 1:
        assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(shares, [0.025, 0.975])))


def test_patients_widen_the_interval():
    random = np.random.default_rng(0)
    patient = np.repeat(np.arange(40), 10)
    right = np.repeat(random.random(40) < 0.8, 10)
    labels = random.integers(0, 2, 400)
    logits = np.where(right, 1.0, -1.0) * (2 * labels - 1)
    by_scan = evaluate(logits, labels, "ab")["accuracy"]
    by_patient = evaluate(logits, labels, "ab", groups=[f"p{i}" for i in patient])["accuracy"]
    assert by_patient.high - by_patient.low > 2 * (by_scan.high - by_scan.low)


def test_no_error_still_leaves_an_exact_limit():
    found = evaluate([-1.0] * 10 + [1.0] * 10, [0] * 10 + [1] * 10, "ab")
    assert (found["accuracy"].low, found["accuracy"].high) == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert found["sensitivity"].low == pytest.approx(0.025 ** (1 / 10))
    assert found["roc_auc"].low is None
    assert "every resampled" in found["roc_auc"].reason


def test_absent_class_is_said_in_words():
    found = evaluate([1.0, -1.0, 2.0], [1, 1, 1], ("healthy", "ill"))
    assert found["roc_auc"].value is None
    assert found["roc_auc"].reason == "no scan of class “healthy”"
    assert found["specificity"].reason == "every scan is of class “ill”"
    assert found.per_class[0].sensitivity.reason == "no scan of class “healthy”"


def test_never_predicted_and_single_patient():
    found = evaluate([-1.0, -1.0], [0, 1], "ab", groups=["x", "x"])
    assert found["ppv"].reason == "“b” is never predicted"
    assert found["accuracy"].low is None
    assert found.patients == 1


def test_too_few_patients_of_a_class_give_no_interval():
    found = evaluate([1.0, -0.5, *[-1.0] * 8], [1, 0] + [0] * 8, "ab")
    assert found["sensitivity"].value == 1.0
    assert found["sensitivity"].low is None
    assert "too few" in found["sensitivity"].reason


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_json_round_trip(kind):
    random = np.random.default_rng(1)
    shape = (30,) if kind in ("binary", "regression") else (30, 2)
    labels = random.integers(0, 2, shape if kind == "multilabel" else 30)
    names = ("size",) if kind == "regression" else ("a", "b")
    found = evaluate(random.normal(size=shape), labels, names, kind=kind, resamples=20)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert Metrics.from_json(json.loads(text)) == found


def test_damaged_json_is_an_input_error():
    with pytest.raises(InputError, match="cannot be read back"):
        Metrics.from_json({"kind": "binary"})


@pytest.mark.parametrize(
    ("logits", "labels", "classes", "kind"),
    [
        ([], [], "ab", "binary"),
        ([1.0, np.nan], [0, 1], "ab", "binary"),
        ([1.0, 2.0], [0, 2], "ab", "binary"),
        ([1.0, 2.0], [0, 0.5], "ab", "binary"),
        ([1.0, 2.0], [0], "ab", "binary"),
        ([1.0, 2.0], [0, 1], "abc", "binary"),
        ([[1.0, 2.0]], [0], "ab", "binary"),
        ([[1.0, 2.0]], [0], "abc", "multiclass"),
        ([[1.0, 2.0]], [2], "ab", "multiclass"),
        ([[1.0, 2.0]], [0], "ab", "multilabel"),
        (["x"], [0], "ab", "binary"),
        ([1.0], [0], "ab", "survival"),
    ],
)
def test_unfit_input_is_refused(logits, labels, classes, kind):
    with pytest.raises(InputError):
        evaluate(logits, labels, classes, kind=kind)


def test_groups_must_match():
    with pytest.raises(InputError, match="groups"):
        evaluate([1.0, -1.0], [0, 1], "ab", groups=["x"])


def test_difference_is_paired():
    random = np.random.default_rng(2)
    labels = random.integers(0, 2, 300)
    logits = random.normal(size=300) + labels
    one, other = evaluate(logits, labels, "ab"), evaluate(logits + 0.01, labels, "ab")
    gap = difference(other, one, "accuracy")
    assert gap.value == pytest.approx(other["accuracy"].value - one["accuracy"].value)
    assert gap.high - gap.low < 0.3 * (one["accuracy"].high - one["accuracy"].low)
    unpaired = difference(other, evaluate(logits, labels, "ab", seed=1), "accuracy")
    assert (unpaired.value, unpaired.low) == (gap.value, None)
    assert difference(one, other, "rmse").value is None
