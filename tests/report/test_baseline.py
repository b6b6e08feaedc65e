"""The converged plaintext heads."""

from __future__ import annotations

import numpy as np
import pytest

from blindtune.errors import InputError
from blindtune.report import converged_multilabel, converged_ridge, converged_softmax


def cohort(classes, n=400, d=6, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    x = random.normal(size=(n, d)) + 1.5 * random.normal(size=(classes, d))[labels]
    return 3 * x + 100, labels  # far from standardised


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("weights", ["balanced", None])
def test_reaches_the_stationary_point_of_its_loss(classes, weights):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y = cohort(classes)
    y[:60] = 0
    head = converged_softmax(x[:300], y[:300], x[300:], y[300:], weights=weights)
    assert head.converged
    assert head.coef.shape == (1 if classes == 2 else classes, 6)
    scaler = StandardScaler().fit(x[:300])
    cold = LogisticRegression(C=head.C[0], class_weight=weights, tol=1e-8, max_iter=5000)
    cold.fit(scaler.transform(x[:300]), y[:300])
    expected = cold.decision_function(scaler.transform(x[300:]))
    assert head.logits(x[300:]) == pytest.approx(expected, abs=0.02)


def test_penalty_comes_from_the_validation_set():
    random = np.random.default_rng(1)
    x, y = random.normal(size=(60, 40)), np.arange(60) % 2
    noise = converged_softmax(x, y, random.normal(size=(60, 40)), y)
    signal = converged_softmax(x, y, x, y)
    assert noise.C[0] < signal.C[0]


def test_multilabel_is_one_head_a_label():
    x, y = cohort(4)
    labels = np.stack([y == 0, y > 1], axis=1)
    head = converged_multilabel(x[:300], labels[:300], x[300:], labels[300:])
    alone = converged_softmax(x[:300], labels[:300, 1], x[300:], labels[300:, 1])
    assert head.logits(x).shape == (400, 2)
    assert head.logits(x)[:, 1] == pytest.approx(alone.logits(x))
    assert head.C[1] == alone.C[0]


def test_ridge_finds_the_line():
    random = np.random.default_rng(2)
    x = random.normal(size=(200, 3)) * [1, 10, 100] + 5
    y = x @ [1.0, -0.2, 0.03] + 7
    head = converged_ridge(x[:150], y[:150], x[150:], y[150:])
    assert head.logits(x) == pytest.approx(y, abs=1e-3)


def test_constant_feature_is_harmless():
    x, y = cohort(2)
    x[:, 0] = 4.0
    head = converged_softmax(x[:300], y[:300], x[300:], y[300:])
    assert np.isfinite(head.coef).all()


@pytest.mark.parametrize("case", ["gap", "one class", "unseen", "shape", "nan", "width", "fraction"])
def test_unfit_input_is_refused(case):
    x, y = cohort(3, n=60)
    held_x, held = x.copy(), y.copy()
    if case == "gap":
        y = np.where(y == 1, 0, y)
    elif case == "one class":
        y = np.zeros_like(y)
    elif case == "unseen":
        held = held + 1
    elif case == "shape":
        y = y[:-1]
    elif case == "nan":
        x[0, 0] = np.nan
    elif case == "width":
        held_x = held_x[:, 1:]
    else:
        y = y + 0.5
    with pytest.raises(InputError):
        converged_softmax(x, y, held_x, held)
