"""What noise on the agreed moments costs the pooled head: areas under the curve at several budgets, in clear.

    python -m benchmarks.moments EMBEDDINGS.npz

Embeddings are what ``blindtune encrypt`` keeps in a study's private directory: features, labels, patients and
splits. Hospitals and steps are those of ``benchmarks.jointkeys``. Noise is drawn as in a study
(:mod:`blindtune.federation.threshold.private`); the steps run in clear, so that no OpenFHE is needed. Written
to ``docs/benchmarks/moments.md`` and ``benchmarks/results/moments.json``.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.commands import ROOT, keep, machine
from benchmarks.joint.heads import in_clear
from benchmarks.joint.task import SHARES, TRAINED, split
from benchmarks.joint.task import task_of as planned
from benchmarks.page import table
from blindtune.federation.heads import Cases, agreed_whitening, vote
from blindtune.federation.threshold.private import SumPrivacy
from blindtune.federation.threshold.terms import Task
from blindtune.imaging.arrays import Embeddings, load_embeddings
from blindtune.models.heads import Encoded
from blindtune.models.rehearsal import rehearse
from blindtune.privacy.ledger import Ledger
from blindtune.report.metrics import evaluate

PAGE = ROOT / "docs" / "benchmarks" / "moments.md"
BUDGETS = (30.0, 8.0, 3.0, 1.0, 0.3)
DELTA, DRAWS = 1e-4, 10
ALL, REACH = 192, 28.0
"""Features of the backbone, and a length that next to all of its rows have at most."""

FEWER = 64
"""Features after a projection that depends on no patient."""


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    data = load_embeddings(parser.parse_args().data)
    results = {
        "machine": machine(("numpy", "opendp", "dp-accounting")),
        "cases": [run(data, "as they are"), run(projected(data), "after a projection")],
    }
    keep("moments", results)
    PAGE.write_text(render(results))


def projected(data: Embeddings) -> Embeddings:
    """The same rows on so many random orthogonal directions, of a seed that everyone may know."""
    drawn = np.random.default_rng(1).normal(size=(data.features.shape[1], FEWER))
    return replace(data, features=(data.features @ np.linalg.qr(drawn)[0]).astype(np.float32))


def run(data: Embeddings, name: str) -> dict[str, Any]:
    """Heads by exact sums and by noisy ones, of several draws of the noise."""
    shards, task = split(data, "train", SHARES), planned(data)
    # As long as a row may be, in parts of the root of the features.
    reach = REACH * float(np.sqrt(task.model.features / ALL))
    task = task.model_copy(update={"model": task.model.model_copy(update={"reach": reach})})
    whole = Cases(
        np.vstack([s.features for s in shards.values()]), np.concatenate([s.labels for s in shards.values()])
    )
    exact = {"exact sums": in_clear(whole, task)}
    alone = {f"{hospital} alone": in_clear(shard, task) for hospital, shard in shards.items()}
    found = []
    for budget in BUDGETS:
        privacy = SumPrivacy.within(budget, DELTA)
        private = task.model_copy(update={"privacy": privacy})
        told = [judged(noisy_head(shards, private), data) for _ in range(DRAWS)]
        found.append({"epsilon": privacy.epsilon, "noise": privacy.noise, "draws": told})
    return {
        "name": name,
        "features": task.model.features,
        "reach": reach,
        "patients": {hospital: len(np.unique(s.patients)) for hospital, s in shards.items()},
        "rows": len(whole.labels),
        "cut": float(np.mean(np.linalg.norm(whole.features, axis=1) > reach)),
        "test": len(data.indices("test")),
        "plain": {who: judged(head, data) for who, head in (exact | alone).items()},
        "budgets": found,
    }


def noisy_head(shards: dict[str, Cases], task: Task) -> tuple[Any, Any]:
    """The task's steps on pooled rows whitened by noisy sums: weights and biases on raw features."""
    sums = task.noisy_sum(len(shards))
    assert sums is not None
    total: dict[str, Any] = dict.fromkeys(("images", "moments"), 0.0)
    with TemporaryDirectory() as place:
        for hospital, cases in shards.items():
            with closing(Ledger.create(Path(place) / hospital, 999.0, DELTA)) as ledger:
                for part, values in sums.charged(cases, ledger, "benchmark").items():
                    total[part] = total[part] + values
    known = sums.known(total)
    images = known["images"]
    whitening = agreed_whitening(task.model, {**known, "rows": np.array([images.sum()])})
    assert whitening is not None
    x = np.vstack([s.features for s in shards.values()]).astype(np.float64)
    truth = np.eye(len(images))[np.concatenate([s.labels for s in shards.values()])]
    share = images / images.sum()
    # As hospitals encrypt their rows: a patient's share a vote, steps are means over the noisy number.
    votes = np.vstack([vote(s.patients) for s in shards.values()]) * len(x) / int(images.sum())
    weights = votes * np.where(truth > 0, 0.5 / share, 0.5 / (1 - share))
    encoded = Encoded(weights * (truth - 0.5), weights * task.head.coefficients[:, None, None])
    return whitening.fold(rehearse(whitening.apply(x), encoded, task.head).weights)


def judged(head: tuple[Any, Any], data: Embeddings) -> dict[str, float]:
    """A head on the test scans, and its largest |logit| on the training rows."""
    (weights, biases), rows = head, data.indices("test")
    logits = data.features[rows] @ weights.T + biases
    truth = np.eye(len(data.classes))[data.labels[rows]]
    metrics = evaluate(logits, truth, data.classes, kind="multilabel", resamples=0)
    trained = data.features[data.indices("train")] @ weights.T + biases
    return {
        "area": float(metrics.figures["roc_auc"].value or 0.0),
        "accuracy": float(np.mean(logits.argmax(axis=1) == data.labels[rows])),
        "logit": float(np.abs(trained).max()),
    }


def render(results: dict[str, Any]) -> str:
    """The page."""
    m, first = results["machine"], results["cases"][0]
    patients = first["patients"]
    sizes = " / ".join(map(str, patients.values()))
    packages = ", ".join(f"{name} {number}" for name, number in m["packages"].items())
    text = f"""# Noise on the agreed moments

Written by `python -m benchmarks.moments` on {m["cpu"]}, {m["cores"]} cores, commit {m["commit"]}, with Python
{m["python"]}, {packages}.

Paediatric X-rays by DeiT-tiny, {first["rows"]:,} training rows of {sizes} patients at
{", ".join(patients)}, as in [joint keys](../joint-keys.md): {TRAINED["directions"]} whitened directions,
three steps of degree {TRAINED["degree"]}, in clear. Every hospital adds the whole noise to its counts and
moments; epsilon is of each of its patients at delta {DELTA:g}, against all others together. Means of
{DRAWS} draws of the noise, with the least and the largest. Areas under the curve are of each class against
the rest, on {first["test"]} test scans. Below are heads of a hospital's own rows, whitened by its own exact
moments. The length that rows are cut to was looked up in these very rows, which no account here covers.
"""
    for case in results["cases"]:
        text += section(case)
    return text


def section(case: dict[str, Any]) -> str:
    """One set of features."""
    plain = [
        [who, "–", f"{told['area']:.4f}", f"{100 * told['accuracy']:.1f} %", f"{told['logit']:.1f}"]
        for who, told in case["plain"].items()
    ]
    noisy = []
    for budget in case["budgets"]:
        area, accuracy, logit = (
            np.array([d[n] for d in budget["draws"]]) for n in ("area", "accuracy", "logit")
        )
        noisy.append(
            [
                f"epsilon {budget['epsilon']:.3g}",
                f"{budget['noise']:.2f}",
                f"{area.mean():.4f} ({area.min():.4f} to {area.max():.4f})",
                f"{100 * accuracy.mean():.1f} %",
                f"{logit.max():.1f}",
            ]
        )
    heads = ["sums", "noise multiplier", "area, test", "accuracy", "largest logit"]
    return f"""
## {case["features"]} features, {case["name"]}

Rows are cut to a length of {case["reach"]:.1f} in the noisy sums; {100 * case["cut"]:.1f} % are longer. The
polynomial is for logits up to {TRAINED["interval"]:g}.

{table(heads, [plain[0], *noisy, *plain[1:]])}
"""


if __name__ == "__main__":
    main()
