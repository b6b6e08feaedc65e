"""What the hospitals of a benchmark train on and agree on; each gets a directory of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blindtune.federation.agreement import HeadModel
from blindtune.federation.heads import Cases
from blindtune.federation.identity import Identity
from blindtune.federation.setup import numbered
from blindtune.federation.threshold.terms import Task, Terms
from blindtune.imaging.arrays import Embeddings
from blindtune.kernels.layout import Layout
from blindtune.params import ParametersLiteral
from blindtune.wire.manifest import layout_model, parameters_model, program_model

SHARES = {"north": (0.75, 0.15, 0.1), "south": (0.15, 0.65, 0.25), "west": (0.1, 0.2, 0.65)}
"""What part of each class's patients (bacterial, normal, viral) a hospital has."""

TRAINED = {"directions": 63, "epsilon": 0.1, "degree": 7, "interval": 12.0}
RATES = (4.0, 4.0, 4.0)
LAYOUT = Layout(16384, 4, (32,), 8, 1, 1)
STATISTICAL_BITS = 40


def task_of(data: Embeddings) -> Task:
    """Three steps of a head of degree 7 on whitened features, each class against the rest."""
    features = data.features.shape[1]
    model = HeadModel(features=features, rows=2048, loss="one-vs-rest", blind=True, **TRAINED)
    return Task(model=model, classes=list(data.classes), rates=list(RATES))


def parameters_of(task: Task) -> Any:
    """Ring and primes of a task."""
    return ParametersLiteral(32768, task.head.program.levels, 55, 56, 60).checked()


def split(data: Embeddings, part: str, shares: dict[str, Sequence[float]]) -> dict[str, Cases]:
    """The rows of a split by patient, each hospital with other shares of the classes."""
    rng, rows = np.random.default_rng(0), data.indices(part)
    names, patients, numbers = list(shares), np.asarray(data.patients)[rows], numbered(data.patients)[rows]
    owner: dict[str, str] = {}
    for patient, label in zip(patients, data.labels[rows], strict=True):
        if patient not in owner:
            owner[patient] = str(rng.choice(names, p=[shares[name][label] for name in names]))
    owners = np.array([owner[p] for p in patients])
    return {
        name: Cases(data.features[rows[own]], data.labels[rows[own]], numbers[own])
        for name in names
        for own in [owners == name]
    }


def agree(names: Iterable[str], task: Task, length: float) -> tuple[Terms, dict[str, Identity]]:
    """Terms of new members, and their identities.

    Args:
        length: of the result's error.
    """
    identities = {name: Identity.generate() for name in names}
    terms = Terms(
        study=os.urandom(16).hex(),
        members={name: identity.public.hex() for name, identity in identities.items()},
        parameters=parameters_model(parameters_of(task)),
        layout=layout_model(LAYOUT),
        program=program_model(task.head.program),
        task=task,
        length=length,
    )
    return terms, identities


def lay_out(work: Path, terms: Terms, identities: dict[str, Identity], shards: dict[str, Cases]) -> None:
    """Give each hospital and the server a directory with what they begin with."""
    for name in (*shards, "server"):
        (work / name).mkdir()
        (work / name / "terms.json").write_text(terms.model_dump_json())
    for name, cases in shards.items():
        identities[name].write(work / name / "identity.pem")
        np.savez(work / name / "rows.npz", features=cases.features, labels=cases.labels)
