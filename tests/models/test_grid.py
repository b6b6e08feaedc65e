"""A grid side by side: every setting trains as it would alone, and what lanes cannot share is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import PlanError
from blindtune.models.grid import grid, named, read_grid, split, told
from blindtune.models.heads import logistic, one_vs_rest, ridge
from blindtune.models.linear import LinearHead
from blindtune.models.rehearsal import refuse_outside, rehearse, tune
from blindtune.models.softmax import log_loss, softmax
from blindtune.models.whitening import Whitening
from blindtune.plan import plan


def cohort(classes: int = 2, rows: int = 120):
    """Overlapping classes, the first one twice as common."""
    rng = np.random.default_rng(1)
    labels = np.arange(rows) % (classes + 1) % classes
    centres = np.random.default_rng(7).normal(size=(classes, 6))
    return centres[labels] + rng.normal(size=(rows, 6)), labels


def trained(head, classes):
    """A head's rehearsal on its cohort, with the head as it was adapted, and what it was encoded from."""
    features, labels = cohort(classes)
    outputs = 1 if classes == 2 else classes
    x = Whitening.fit(features, 5, 0.1, "north").apply(features)
    start = head.begin(features, labels, features, labels, outputs)
    given = (labels, outputs, start.logits(features) if start else None)
    encoded = head.encode(*given)
    chosen = head.adapted(x, encoded, head.learning_rates[0])
    return rehearse(x, encoded, chosen), chosen, x, given


@pytest.mark.parametrize(
    ("head", "classes", "axes"),
    [
        (logistic(), 2, {"rates": [3.0, 6.0], "shrinkages": [0.0, 0.05], "balanced": [True, False]}),
        (logistic(decay=0.02, momentum=0.3), 2, {"rates": [1.0, 3.0, 2.0]}),
        (one_vs_rest(degree=3), 3, {"shrinkages": [0.0, 0.1]}),
        (ridge("multiclass"), 3, {"rates": [0.5, 0.9], "shrinkages": [0.0, 0.01, 0.1]}),
        (softmax(), 4, {"rates": [2.0, 1.0], "shrinkages": [0.0, 0.02]}),
    ],
)
def test_every_setting_trains_as_it_would_alone(head, classes, axes):
    made = grid(head, **axes)
    together, chosen, x, given = trained(made, classes)
    parts = split(together.weights, len(chosen.settings))
    assert len(parts) == int(np.prod([len(values) for values in axes.values()]))
    for setting, part in zip(chosen.settings, parts, strict=True):
        alone = rehearse(x, setting.encode(*given), setting)
        np.testing.assert_allclose(part, alone.weights, atol=1e-10)
    assert len({part.tobytes() for part in parts}) == len(parts)
    assert max(together.largest) == pytest.approx(max(np.abs(x @ part).max() for part in parts), rel=0.9)


@given(st.lists(st.floats(0.1, 4.0), min_size=2, max_size=6, unique=True))
def test_rates_are_factors_in_the_lanes(rates):
    made = grid(logistic(degree=3), rates=rates)
    assert [s.learning_rates[0] for s in made.settings] == pytest.approx(rates)
    # One coefficient set, whatever the rates.
    assert set(made.program.sets) == {0}
    assert made.learning_rates[0] == max(rates)


def test_one_rate_for_all_may_be_tried_as_any():
    made = grid(logistic(), shrinkages=[0.0, 0.1])
    assert {s.learning_rates for s in made.with_rate(6.0).settings} == {(6.0,) * 3}


def test_shrinkage_is_a_penalty_on_logits():
    features, labels = cohort()
    x = Whitening.fit(features, 5, 0.1, "north").apply(features)
    head = logistic(degree=1, learning_rates=(0.7,) * 400, balanced=False)
    c = float(head.coefficients[0])
    for shrinkage in (0.0, 0.2):
        found = rehearse(x, replace(head, shrinkage=shrinkage).encode(labels, 1), head).weights
        # Least squares with the penalty, in closed form.
        wanted = np.linalg.solve((c + shrinkage) * x.T @ x, x.T @ (labels - 0.5))
        np.testing.assert_allclose(found[:, 0], wanted, atol=1e-6)


def test_a_whitening_is_chosen_on_which_every_setting_stays():
    features, labels = cohort(rows=200)
    rows = np.arange(200)
    folds = [(rows[rows % 2 == 0], rows[rows % 2 == 1])]
    made = grid(logistic(), rates=[2.0, 4.0], shrinkages=[0.0, 0.05])
    axes = {"directions": [3, 5], "epsilons": [0.01, 0.3], "rates": made.learning_rates[:1]}
    choice = tune(features, labels, rows[::2], rows[1::2], folds, made, 1, "north", **axes)
    assert choice.encoded.targets.shape == (100, 4)
    assert choice.rehearsal.weights.shape == (choice.whitening.columns, 4)
    assert choice.rehearsal.inside(choice.head)
    assert [told(s)["learning_rate"] for s in choice.head.settings] == [2.0, 2.0, 4.0, 4.0]
    x = choice.whitening.apply(features[1::2])
    logits, held = x @ choice.rehearsal.weights, labels[1::2]
    least = min(choice.head.heads[0].loss(part, held) for part in split(logits, 4))
    assert choice.head.loss(logits, held) == least


class TestRefusals:
    def test_a_setting_that_leaves_the_interval_is_named(self):
        made = grid(logistic(interval=2.0), rates=[1.0, 9.0], shrinkages=[0.0, 0.01])
        together, chosen, _, _ = trained(made, 2)
        with pytest.raises(PlanError, match="with rate 9, shrinkage 0, weights balanced leaves"):
            refuse_outside(together, chosen)

    def test_a_setting_that_diverges_is_named(self):
        made = grid(ridge("binary", learning_rates=(1.0,) * 40), rates=[0.5, 60.0], shrinkages=[0.01])
        together, chosen, _, _ = trained(made, 2)
        with pytest.raises(PlanError, match=r"with rate 60, shrinkage 0\.01, weights balanced diverges"):
            refuse_outside(together, chosen)

    @pytest.mark.parametrize(
        ("axes", "why"),
        [
            ({"rates": [3.0]}, "a grid of 1 settings"),
            ({"rates": [3.0, 3.0]}, "stands twice"),
            ({"rates": [0.0, 3.0]}, "must be positive"),
            ({"shrinkages": [0.0, -1.0]}, "a shrinkage of -1"),
            ({"rates": list(np.linspace(1, 2, 33)), "balanced": [True, False]}, "a grid of 66 settings"),
        ],
    )
    def test_grids_that_are_none(self, axes, why):
        with pytest.raises(PlanError, match=why):
            grid(logistic(), **axes)

    def test_class_weights_of_a_head_without_any(self):
        with pytest.raises(PlanError, match="class weights for a softmax head"):
            grid(softmax(), balanced=[True, False])

    def test_heads_that_no_lanes_can_share(self):
        made = grid(logistic(), rates=[1.0, 2.0])
        with pytest.raises(PlanError, match="no lanes can share"):
            replace(made, heads=(logistic(), logistic(degree=3)))

    @pytest.mark.parametrize(
        ("texts", "why"),
        [
            (["rates=1,2"], "not a part of a grid"),
            (["rate"], "values of rate"),
            (["rate=1,x"], "values of rate that are none: 1,x"),
            (["rate=1,nan"], "positive"),
            (["weights=balanced,heavy"], "values of weights"),
            (["rate=1,2", "rate=3"], "given twice"),
        ],
    )
    def test_texts(self, texts, why):
        with pytest.raises(PlanError, match=why):
            read_grid(logistic(), texts)


def test_a_grid_as_text():
    made = read_grid(logistic(), ["rate=3,6", "weights=balanced,equal", "shrinkage=0.01"])
    assert [named(told(s)) for s in made.settings] == [
        "rate 3, shrinkage 0.01, weights balanced",
        "rate 3, shrinkage 0.01, weights equal",
        "rate 6, shrinkage 0.01, weights balanced",
        "rate 6, shrinkage 0.01, weights equal",
    ]


class TestPlan:
    def test_free_lanes_cost_no_ciphertext(self):
        made = grid(logistic(), rates=[2.0, 3.0, 4.0, 6.0])
        few, alone = plan(400, 32, 1, made), plan(400, 32, 1, made.settings[0])
        assert (few.settings, few.outputs, alone.settings) == (4, 4, 1)
        assert few.ciphertexts == alone.ciphertexts
        assert few.cost.upload_bytes == alone.cost.upload_bytes
        assert few.to_json()["settings"] == 4

    def test_others_are_counted(self):
        made = grid(logistic(), rates=[2.0, 3.0, 4.0, 6.0])
        many, alone = plan(60_000, 32, 1, made), plan(60_000, 32, 1, made.settings[0])
        assert many.ciphertexts > alone.ciphertexts
        assert many.seconds > alone.seconds

    def test_what_does_not_fit_is_refused(self):
        made = grid(one_vs_rest(), rates=list(np.linspace(1, 6, 60)))
        limit = int(1.2 * plan(60_000, 192, 10, made.settings[0]).cost.memory_bytes)
        with pytest.raises(PlanError, match="GiB on the server"):
            plan(60_000, 192, 10, made, memory_limit=limit)


@pytest.mark.parametrize(("kind", "classes"), [("binary", 2), ("multiclass", 3), ("regression", 0)])
def test_loss_of_a_head_is_that_of_its_probabilities(kind, classes):
    rng = np.random.default_rng(0)
    outputs = 1 if classes < 3 else classes
    head = LinearHead(
        rng.normal(size=(outputs, 4)), rng.normal(size=outputs), ("a", "b", "c")[: classes or 1], kind
    )
    x = rng.normal(size=(50, 4))
    if kind == "regression":
        y = rng.normal(size=50)
        assert head.loss(x, y) == pytest.approx(np.mean((head.logits(x)[:, 0] - y) ** 2))
        return
    labels = rng.integers(0, classes, 50)
    chosen = head.probabilities(x)[np.arange(50), labels]
    assert head.loss(x, labels) == pytest.approx(-np.log(chosen).mean())
    if kind == "multiclass":
        assert head.loss(x, labels) == log_loss(head.logits(x), labels)
