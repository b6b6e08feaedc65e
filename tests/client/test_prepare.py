"""What is chosen in clear before anything is encrypted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blindtune.client.prepare import accuracy, default_directions, outputs_of, prepare
from blindtune.errors import InputError, PlanError
from blindtune.models.builtin import head_for
from blindtune.plan import insecure_test_parameters

SMALL = {"parameters": insecure_test_parameters(5), "directions": [5]}


def head(outputs, **given):
    return head_for("logistic", outputs, **{"learning_rates": (4.0, 4.0), "degree": 3, **given})


@pytest.mark.parametrize("classes", [2, 3])
def test_a_study_that_can_be_encrypted(draw_embeddings, classes):
    data = draw_embeddings(classes=classes)
    outputs = outputs_of(data.classes)
    assert outputs == (1 if classes == 2 else 3)
    prepared = prepare(data, head=head(outputs), **SMALL)
    assert prepared.choice.rehearsal.inside(prepared.choice.head)
    assert prepared.choice.whitening.columns == 6
    assert prepared.plan.rows == len(data.indices("train"))
    assert prepared.accuracy > 0.7
    assert prepared.converged > 0.7


def test_test_rows_have_no_say(draw_embeddings):
    data = draw_embeddings()
    features = data.features.copy()
    features[data.indices("test")] = 1e6
    one, other = (prepare(d, head=head(3), **SMALL) for d in (data, replace(data, features=features)))
    np.testing.assert_array_equal(one.choice.rehearsal.weights, other.choice.rehearsal.weights)


def test_validation_rows_are_not_whitened_or_trained_on(draw_embeddings):
    data = draw_embeddings()
    grid = {"epsilons": [0.1], "rates": [4.0]}
    features = data.features.copy()
    features[data.indices("val")] *= -1
    one, other = (prepare(d, head=head(3), **grid, **SMALL) for d in (data, replace(data, features=features)))
    np.testing.assert_array_equal(one.choice.rehearsal.weights, other.choice.rehearsal.weights)


@pytest.mark.parametrize(("classes", "name"), [(2, "logistic"), (3, "one-vs-rest"), (4, "softmax")])
def test_the_head_for_so_many_classes(draw_embeddings, classes, name):
    prepared = prepare(draw_embeddings(240, classes=classes), directions=[5], rates=None)
    assert prepared.choice.head.name == prepared.plan.head == name
    assert (prepared.choice.start is not None) == (name == "softmax")
    assert prepared.plan.program == prepared.choice.head.program
    assert prepared.accuracy > prepared.converged - 0.15


def test_four_classes_that_nothing_tells_apart(draw_embeddings):
    data = draw_embeddings(240, classes=4)
    data = replace(data, features=np.ones_like(data.features))
    with pytest.raises(InputError, match="no discriminant can be made of"):
        prepare(data, directions=[5])


def test_a_class_without_training_row(draw_embeddings):
    data = draw_embeddings(240, classes=4)
    splits = np.where((data.splits == "train") & (data.labels == 2), "val", data.splits)
    with pytest.raises(InputError, match="a class without training rows"):
        prepare(replace(data, splits=splits), directions=[5])


def test_few_rows(draw_embeddings):
    with pytest.raises(InputError, match=r"training and \d+ validation rows"):
        prepare(draw_embeddings(12), head=head(3), **SMALL)


def test_class_without_validation_row(draw_embeddings):
    data = draw_embeddings()
    lonely = (data.splits == "val") & (data.labels == 2)
    data = replace(data, splits=np.where(lonely, "train", data.splits))
    with pytest.raises(InputError, match="1 of 3 classes have no validation row"):
        prepare(data, head=head(3), **SMALL)


def test_rate_that_diverges(draw_embeddings):
    with pytest.raises(PlanError, match="interval"):
        prepare(draw_embeddings(), head=head(3), rates=[1e4], **SMALL)


@pytest.mark.parametrize("features", [1, 5, 15, 16, 17, 192, 384, 768, 2048])
def test_directions_never_exceed_the_features(features):
    found = default_directions(features)
    assert found
    assert 1 <= min(found) <= max(found) <= min(features, 767)


def test_accuracy():
    assert accuracy(np.array([[1.0], [-1.0], [2.0]]), np.array([1, 0, 0])) == pytest.approx(2 / 3)
    assert accuracy(np.eye(3), np.array([0, 1, 0])) == pytest.approx(2 / 3)
