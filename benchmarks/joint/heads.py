"""How well heads do that saw all rows, a hospital's own, or what federated averaging makes of them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from blindtune.federation.agreement import HeadModel, Local
from blindtune.federation.heads import Cases, HeadLearner
from blindtune.federation.setup import draft, raw_head
from blindtune.federation.simulation import simulated
from blindtune.federation.threshold.terms import Task
from blindtune.imaging.arrays import Embeddings
from blindtune.models.heads import Encoded
from blindtune.models.rehearsal import rehearse
from blindtune.models.whitening import Whitening
from blindtune.report.metrics import evaluate

Shards = dict[str, Cases]
ENCRYPTED, CLEAR = "pooled, encrypted", "pooled, same steps in clear"
AVERAGE = "average of the hospitals' own heads"
SAME_STEPS, MANY_STEPS = "federated, the same steps in clear", "federated, ten rounds of two passes in clear"
RESAMPLES = 2000


def own(name: str) -> str:
    """What a hospital's own head is called."""
    return f"{name}'s own rows"


def heads(
    encrypted: tuple[Any, Any], data: Embeddings, training: Shards, validation: Shards, task: Task
) -> dict[str, tuple[Any, Any]]:
    """Heads on raw features, weights (classes, features) and biases (classes,), by what they saw."""
    whole = Cases(
        np.vstack([s.features for s in training.values()]),
        np.concatenate([s.labels for s in training.values()]),
    )
    alone = {name: in_clear(shard, task) for name, shard in training.items()}
    sizes = [len(s.labels) for s in training.values()]
    average = tuple(np.average([head[n] for head in alone.values()], axis=0, weights=sizes) for n in range(2))
    steps = Local(every=1, unit="batches", batch=task.model.rows, rate=task.rates[0], class_weights=True)
    many = HeadModel(
        features=task.model.features, directions=task.model.directions, epsilon=task.model.epsilon
    )
    passes = Local(every=2, batch=32, rate=0.05, class_weights=True)
    return {
        ENCRYPTED: encrypted,
        CLEAR: in_clear(whole, task),
        **{own(name): head for name, head in alone.items()},
        AVERAGE: average,
        SAME_STEPS: federated(data, training, validation, task.model, steps, len(task.rates)),
        MANY_STEPS: federated(data, training, validation, many, passes, 10),
    }


def in_clear(cases: Cases, task: Task) -> tuple[Any, Any]:
    """The task's steps on rows in clear."""
    x, classes = cases.features.astype(np.float64), len(task.classes)
    truth = np.eye(classes)[cases.labels]
    whitening = Whitening.fit(x, task.model.directions, task.model.epsilon, "")
    share = np.clip(truth.mean(axis=0), 1e-9, 1 - 1e-9)
    weights = np.where(truth > 0, 0.5 / share, 0.5 / (1 - share))
    encoded = Encoded(weights * (truth - 0.5), weights * task.head.coefficients[:, None, None])
    return whitening.fold(rehearse(whitening.apply(x), encoded, task.head).weights)


def federated(
    data: Embeddings, training: Shards, validation: Shards, model: HeadModel, local: Local, rounds: int
) -> tuple[Any, Any]:
    """Rounds of federated averaging with secure sums, as blindtune federates heads."""
    plan, start = draft("joint", data.classes, model, rounds=rounds, local=local)
    learners = {
        name: HeadLearner(model, training[name], validation[name], len(data.classes), local, seed=0)
        for name in training
    }
    with TemporaryDirectory() as place, simulated(plan, start, learners, Path(place)) as coordinator:
        for _ in coordinator.run():
            pass
        return raw_head(plan, model, coordinator.values, coordinator.totals)


def areas(found: dict[str, tuple[Any, Any]], data: Embeddings) -> dict[str, Any]:
    """Area under the curve, each class against the rest, of heads on validation and test rows.

    Intervals are by patient. ``gain`` is how far the first head's area lies above, on the same patients.
    """
    areas_: dict[str, Any] = {name: {} for name in found}
    for part in ("val", "test"):
        rows = data.indices(part)
        truth = np.eye(len(data.classes))[data.labels[rows]]
        patients = [data.patients[r] for r in rows]
        drawn, first = None, 0.0
        for name, (weights, biases) in found.items():
            metrics = evaluate(
                data.features[rows] @ weights.T + biases,
                truth,
                data.classes,
                kind="multilabel",
                groups=patients,
                resamples=RESAMPLES,
            )
            area = metrics.figures["roc_auc"]
            samples = np.asarray(metrics.samples["roc_auc"])
            areas_[name][part] = {"value": area.value, "low": area.low, "high": area.high}
            if drawn is None:
                drawn, first = samples, float(area.value or 0.0)
            else:
                low, high = np.quantile(drawn - samples, [0.025, 0.975])
                gain = {"value": first - float(area.value or 0.0), "low": float(low), "high": float(high)}
                areas_[name][part]["gain"] = gain
    return areas_
