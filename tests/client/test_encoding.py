"""Encoded studies, trained on clear slots, against the same steps in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from blindtune.client.encoding import Scaling, decode, encode
from blindtune.errors import InputError
from blindtune.he.clear import ClearEngine
from blindtune.kernels.blocks import Blocks
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Trainer
from blindtune.models.heads import Encoded, logistic, one_vs_rest, ridge
from blindtune.models.rehearsal import rehearse
from blindtune.models.softmax import softmax
from blindtune.params import ParametersLiteral
from blindtune.plan import insecure_test_parameters
from blindtune.wire.manifest import (
    Manifest,
    expected_parts,
    layout_model,
    parameters_model,
    program_model,
)

ROWS, COLUMNS = 300, 11


def study(head, outputs, seed=0):
    """Whitened features with a bias, and what is encrypted beside them; a softmax head starts somewhere."""
    rng = np.random.default_rng(seed)
    x = np.hstack([rng.normal(size=(ROWS, COLUMNS - 1)), np.ones((ROWS, 1))])
    plane = x @ rng.normal(size=(COLUMNS, outputs)) + rng.normal(size=(ROWS, outputs))
    labels = {
        "binary": (plane[:, 0] > 0.3).astype(int),
        "multiclass": plane.argmax(axis=1),
        "multilabel": (plane > 0.5).astype(int),
        "regression": plane,
    }[head.kind]
    offset = 0.3 * plane if head.name == "softmax" else None
    return x, head.encode(labels, outputs, offset)


def trained(head, outputs, layout, x, encoded, scaled=Scaling):
    """The head (columns, K) from encoded slots on the clear engine."""
    scaling = scaled(head.interval, head.learning_rates[0], ROWS)
    program = head.program
    # Primes this long drift below 1e-6.
    parameters = ParametersLiteral(1024, program.levels, 50, 58, 58, security=0).checked()
    engine = ClearEngine(parameters, layout.keys())
    data, residuals = {}, {}
    for name, vectors in encode(x, encoded, head, layout, scaling):
        kind, *numbers = name.split("-")
        places = tuple(map(int, numbers))
        if kind == "data":
            for n, vector in enumerate(vectors):
                data[(*places, n // layout.baby, n % layout.baby)] = engine.encrypt(vector)
        else:
            residuals[places] = [engine.encrypt(v) for v in vectors]
            largest = max(np.abs(v).max() for v in vectors)
            assert largest < 60
    trainer = Trainer(Blocks(engine, layout, data, residuals))
    weights = trainer.train(program)
    slots = [engine.decrypt(c) for block in weights for c in block]
    return decode(slots, layout, scaling, COLUMNS, outputs)


SINGLE = Layout(512, 1, (4, 2), 2, 1, 1)
LANES = Layout(512, 4, (4, 2), 2, 3, 1)
BLOCKS = Layout(512, 2, (8,), 4, 2, 2)


@pytest.mark.parametrize(
    ("head", "outputs", "layout"),
    [
        (logistic(), 1, SINGLE),
        (logistic(learning_rates=(4.0, 2.0, 4.0, 1.0), degree=3), 1, SINGLE),
        (logistic(learning_rates=(3.0, 3.0), decay=0.05, degree=5), 1, SINGLE),
        (logistic(balanced=False), 1, SINGLE),
        (one_vs_rest(degree=3), 3, LANES),
        (one_vs_rest(learning_rates=(4.0, 3.0), decay=0.1), 3, BLOCKS),
        (one_vs_rest("multilabel", learning_rates=(5.0, 2.5)), 4, LANES),
        (ridge(), 2, LANES),
        (ridge("binary", learning_rates=(0.9, 0.5, 0.9)), 1, SINGLE),
        (ridge("multiclass", decay=0.2), 3, BLOCKS),
        (logistic(learning_rates=(2.0, 2.0, 2.0), momentum=0.5), 1, SINGLE),
        (ridge(learning_rates=(0.9,) * 4, momentum=0.3, decay=0.1), 2, LANES),
        (softmax(learning_rates=(2.0,) * 4), 4, LANES),
        (softmax(learning_rates=(2.0,) * 4, interval=3.0), 3, BLOCKS),
    ],
    ids=[
        "logistic",
        "rates",
        "decay",
        "unbalanced",
        "one-vs-rest",
        "row-and-weight-blocks",
        "multilabel",
        "ridge",
        "ridge-binary",
        "ridge-multiclass",
        "momentum",
        "momentum-and-decay",
        "softmax",
        "softmax-scaled",
    ],
)
def test_training_is_the_same_as_in_clear(head, outputs, layout):
    x, encoded = study(head, outputs)
    wanted = rehearse(x, encoded, head)
    assert wanted.inside(head)
    found = trained(head, outputs, layout, x, encoded)
    np.testing.assert_allclose(found, wanted.weights, atol=2e-5 * np.abs(wanted.weights).max())


def test_balanced_scaling_trains_the_same_head():
    head = one_vs_rest(degree=3, learning_rates=(4.0, 3.0))
    x, encoded = study(head, 3)
    found = trained(head, 3, LANES, x, encoded, Scaling.balanced)
    wanted = rehearse(x, encoded, head).weights
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())
    scaling = Scaling.balanced(head.interval, 4.0, ROWS)
    assert scaling.alpha == pytest.approx(0.5 / scaling.stretch**2)


@pytest.mark.parametrize("rates", [(4.0,), (4.0, 4.0), (4.0, 2.0)])
def test_parts_are_the_ones_that_the_manifest_expects(rates):
    head = logistic(learning_rates=rates, degree=3)
    x, encoded = study(head, 1)
    layout = Layout(512, 2, (4, 2), 2, 2, 1)
    found = {name: len(v) for name, v in encode(x, encoded, head, layout, Scaling(12, 4.0, ROWS))}
    parameters = insecure_test_parameters(head.program.levels, ring_degree=1024)
    manifest = Manifest(
        kind="data",
        study="5" * 32,
        members=["h"],
        member="h",
        key="a" * 32,
        parameters=parameters_model(parameters),
        layout=layout_model(layout),
        program=program_model(head.program),
        parts=[],
    )
    wanted = {name: count for name, (count, _) in expected_parts(manifest).items()}
    assert list(found.items()) == list(wanted.items())


class TestRefused:
    head = logistic()

    def parts(self, x, y, c, layout=SINGLE):
        return list(encode(x, Encoded(y, c), self.head, layout, Scaling(12, 4.0, ROWS)))

    def matrices(self):
        x, encoded = study(self.head, 1)
        return x, encoded.targets, encoded.coefficients

    def test_unequal_rows(self):
        x, y, c = self.matrices()
        with pytest.raises(InputError, match="differ in rows"):
            self.parts(x[:-1], y, c)
        with pytest.raises(InputError, match="differ in rows"):
            self.parts(x, y, c[:, :-1])
        with pytest.raises(InputError, match="differ in rows or outputs"):
            self.parts(x, np.hstack([y, y]), c)

    def test_too_large_for_the_layout(self):
        x, y, c = self.matrices()
        with pytest.raises(InputError, match="300 rows and 1 outputs do not fit"):
            self.parts(x, y, c, Layout(512, 2, (4, 2), 2, 1, 1))
        with pytest.raises(InputError, match="300 rows and 2 outputs do not fit"):
            self.parts(x, np.hstack([y, y]), np.dstack([c, c]))

    @pytest.mark.parametrize("which", [0, 1, 2])
    def test_not_finite(self, which):
        matrices = list(self.matrices())
        matrices[which][..., 5, 0] = np.nan
        with pytest.raises(InputError, match="not finite"):
            self.parts(*matrices)
