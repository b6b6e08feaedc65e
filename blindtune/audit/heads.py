"""Heads as membership inference attacks them: one trained on many random halves of the patients.

A recipe takes rows, labels and patients of a half and gives a function from features to logits. What a
recipe does is what the product does; only the memorising one is there to be broken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blindtune.client.flood import LEAST_BITS
from blindtune.client.settings import Settings
from blindtune.client.study import StudyDirectory
from blindtune.errors import InputError
from blindtune.federation.agreement import HeadModel, Local, Privacy
from blindtune.federation.contributions import known
from blindtune.federation.heads import Cases, HeadLearner
from blindtune.federation.private import private_moments, private_values
from blindtune.federation.setup import draft, raw_head
from blindtune.models.builtin import head_for
from blindtune.models.heads import Head
from blindtune.models.linear import assemble
from blindtune.models.rehearsal import rehearse
from blindtune.models.whitening import Whitening
from blindtune.privacy.account import Release, noise_for

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Logits = Callable[[Floats], Floats]
Recipe = Callable[[Floats, Labels, Labels], Logits]

SAMPLING, STEPS, CLIP, REACH = 0.2, 30, 10.0, 28.0
"""Of private heads, as in the case study."""


@dataclass(frozen=True)
class Study:
    """A study's data, and how its head is trained.

    Attributes:
        features, labels, patients: of the training rows; patients are numbers.
        held: features and labels of the validation rows.
        settings: of the study.
    """

    features: Floats
    labels: Labels
    patients: Labels
    held: tuple[Floats, Labels]
    settings: Settings

    @property
    def outputs(self) -> int:
        """Logits of the head."""
        return self.settings.outputs

    @property
    def head(self) -> Head:
        """The study's head.

        Raises:
            InputError: one that is not built in.
        """
        s = self.settings
        try:
            rates = tuple(float(r) for r in s.head["learning_rates"])
            return head_for(
                s.head["name"], s.outputs, degree=s.head["degree"], learning_rates=rates, interval=s.interval
            )
        except (KeyError, TypeError, ValueError):
            raise InputError(
                "a head that is not built in", where="private/study.json", remedy="Attack it from Python."
            ) from None


def decrypted(study: Study, *, released: bool = False) -> Recipe:
    """The head that the study's encrypted steps give, which rehearsal in clear gives as well.

    Args:
        released: with as much noise on its weights as a release may add at most.
    """
    head, directions = study.head, int(study.settings.head["directions"])
    epsilon = float(study.settings.head["epsilon"])

    def train(x: Floats, y: Labels, _: Labels) -> Logits:
        start = head.begin(x, y, *study.held, study.outputs)
        encoded = head.encode(y, study.outputs, start.logits(x) if start else None)
        whitening = Whitening.fit(x, directions, epsilon, "audit")
        weights = rehearse(whitening.apply(x), encoded, head).weights
        if released:
            noise = np.abs(weights).max() * 2.0**-LEAST_BITS
            weights = weights + np.random.default_rng().normal(scale=noise, size=weights.shape)
        weight, bias = assemble(whitening, start, weights, *study.held)
        return lambda rows: np.asarray(rows @ weight.T + bias)

    return train


def private(classes: int, features: int, patients: int, target: float, delta: float) -> Recipe:
    """A head of private rounds at one site, all of whose noise is its own.

    Args:
        patients: in the training set, roughly.
        target, delta: of all its rounds and the noisy mean before them.
    """
    mean = Release(20 / target)
    noise = noise_for(target, delta, sampling=SAMPLING, count=STEPS, spent=[mean])
    budget = Privacy(
        where="local",
        noise=noise,
        clip=CLIP,
        sampling=SAMPLING,
        patients={"here": patients, "elsewhere": 1},
        moments=mean.noise,
    )
    local = Local(every=STEPS, unit="batches", rate=0.1 if target > 1 else 0.03)
    plan, begin = draft(
        "audit",
        [f"class {k}" for k in range(classes)],
        HeadModel(features=features, centre=True, reach=REACH),
        rounds=1,
        local=local,
        privacy=budget,
    )
    model = plan.model
    assert isinstance(model, HeadModel)

    def train(x: Floats, y: Labels, who: Labels) -> Logits:
        cases = Cases(x.astype(np.float32), y, who)
        none = Cases(np.empty((0, features), np.float32), np.empty(0, np.int64))
        learner = HeadLearner(model, cases, none, classes, plan.local)
        totals = {"moments": private_moments(learner, model, budget).astype(np.float64)}
        learner.begin(known(plan, totals))
        values = private_values(learner, plan, budget, "here", begin)
        weight, bias = raw_head(plan, model, values, totals)
        return lambda rows: np.asarray(rows @ weight.T + bias)

    return train


def memorising(classes: int, seed: int = 0) -> Recipe:
    """A head on twice as many random features as it has rows, fitted to them exactly: the control."""

    def train(x: Floats, y: Labels, _: Labels) -> Logits:
        centre, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
        rng = np.random.default_rng(seed)
        into = rng.normal(size=(x.shape[1], 2 * len(x))) / np.sqrt(x.shape[1])

        def wide(rows: Floats) -> Floats:
            return np.asarray(np.maximum(0, (rows - centre) / scale @ into) / np.sqrt(2 * len(x)))

        found = wide(x)
        kernel = found @ found.T + 1e-6 * np.eye(len(x))
        weights = found.T @ np.linalg.solve(kernel, np.eye(classes)[y] - 1 / classes)
        return lambda rows: np.asarray(8 * (wide(rows) @ weights))

    return train


def read_study(directory: StudyDirectory) -> Study:
    """A study's data and settings.

    Raises:
        InputError: no finished study there, or damaged files.
    """
    data, settings = directory.embeddings(), directory.settings()
    train, held = data.indices("train"), data.indices("val")
    x, (_, who) = data.features.astype(np.float64), np.unique(data.patients, return_inverse=True)
    return Study(x[train], data.labels[train], who[train], (x[held], data.labels[held]), settings)
