"""What the encrypted head is worth: the test split, beside the same steps in clear and the converged head."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from blindtune import __version__
from blindtune.client.decrypt import finish
from blindtune.client.prepare import ENOUGH_ROWS
from blindtune.client.settings import Settings
from blindtune.client.study import StudyDirectory
from blindtune.errors import InputError, ModelError
from blindtune.imaging import Embeddings
from blindtune.models.grid import named
from blindtune.models.linear import LinearHead
from blindtune.report import Result, converged_softmax

ENCRYPTED, UNCALIBRATED = "encrypted", "encrypted, uncalibrated"
CLEAR = "same steps in clear"
START = "start in clear, nothing encrypted"
CONVERGED, BALANCED = "converged plaintext", "converged plaintext, balanced"

SHOWN = (ENCRYPTED, CLEAR, CONVERGED)
"""The heads to show where there is little room."""


def evaluate_study(directory: StudyDirectory, *, resamples: int = 1000) -> dict[str, Result]:
    """Evaluate a decrypted study on its test split.

    Returns:
        Results by head, the encrypted one first.

    Raises:
        InputError: no test rows.
        ModelError: the head was not decrypted yet.
    """
    settings = directory.settings()
    data = directory.embeddings()
    test = _test_rows(data)
    encrypted = LinearHead.load(directory.head)
    rehearsed = settings.split(directory.whitening()[1])[chosen(settings, encrypted)]
    clear, _ = finish(directory, settings, rehearsed, "in clear")
    heads = {
        ENCRYPTED: encrypted,
        UNCALIBRATED: LinearHead.load(directory.head / "uncalibrated"),
        CLEAR: clear,
    }
    if directory.start() is not None:
        heads[START], _ = finish(directory, settings, np.zeros_like(rehearsed), "in clear")
    features, labels = data.features[test], data.labels[test]
    logits = {name: head.logits(features) for name, head in heads.items()}
    if settings.kind in ("binary", "multiclass"):
        train, held = data.indices("train"), data.indices("val")
        splits = (data.features[train], data.labels[train], data.features[held], data.labels[held])
        weightings: dict[str, Literal["balanced"] | None] = {CONVERGED: None}
        if len(train) <= ENOUGH_ROWS:
            weightings[BALANCED] = "balanced"
        for name, weights in weightings.items():
            converged = converged_softmax(*splits, weights=weights)
            logits[name] = np.asarray(converged.logits(features)).reshape(len(test), -1)
    patients = [data.patients[i] for i in test]
    return {
        name: Result.of(
            value,
            labels,
            settings.classes,
            kind=settings.kind,  # type: ignore[arg-type]
            groups=patients,
            resamples=resamples,
        )
        for name, value in logits.items()
    }


def evaluate_head(head: LinearHead, data: Embeddings, *, resamples: int = 1000) -> dict[str, Result]:
    """Evaluate a head alone on the test rows of embeddings, such as one that several hospitals opened.

    Raises:
        InputError: no test rows, of another number of features, or a class that the head has not.
    """
    test = _test_rows(data)
    result = Result.of(
        head.logits(data.features[test]),
        data.labels_of(head.classes)[test],
        head.classes,
        kind=head.kind,  # type: ignore[arg-type]
        groups=[data.patients[i] for i in test],
        resamples=resamples,
    )
    return {ENCRYPTED: result}


def _test_rows(data: Embeddings) -> NDArray[np.intp]:
    test = data.indices("test")
    if not len(test):
        raise InputError("no test rows", remedy="Give a split with test rows in the labels.")
    return test


def chosen(settings: Settings, head: LinearHead) -> int:
    """Which setting of a grid a decrypted head is of.

    Raises:
        ModelError: it does not say, or is of another study.
    """
    if not settings.grid:
        return 0
    told = head.provenance.get("grid")
    number = told.get("chosen") if isinstance(told, dict) else None
    if not isinstance(number, int) or not 0 <= number < len(settings.grid):
        raise ModelError("a head that is not of this grid", where="head", remedy="Decrypt it again.")
    return number


def study_summary(settings: Settings, head: LinearHead) -> dict[str, object]:
    """What the report says about a study; nothing about patients.

    Args:
        head: decrypted; says what it was chosen from.
    """
    h = settings.head
    # Of a grid, what the chosen setting has of its own.
    own = {k: head.provenance.get(k, v) for k, v in h.items()}
    return {
        "title": "Encrypted head training",
        "summary": (
            f"A {h['name']} head for {len(settings.classes)} classes, trained on ciphertexts in "
            f"{h['steps']} gradient steps at {settings.security} security and evaluated on the test split."
        ),
        "notes": list(settings.notes),
        "provenance": {
            "Study": {
                "study": settings.study,
                "members": len(settings.members),
                "security": settings.security,
            },
            "Backbone": {k: str(v) for k, v in settings.backbone.items()} or {"features": "ready embeddings"},
            "Head": {k: (str(v) if isinstance(v, list) else v) for k, v in own.items()},
            **_grid(settings, head),
            "Software": {"blindtune": __version__},
        },
    }


def head_summary(head: LinearHead) -> dict[str, object]:
    """What the report says about a head whose study is not here; nothing about patients."""
    return {
        "title": "Encrypted head training",
        "summary": f"A head for {len(head.classes)} classes, evaluated on the test rows of embeddings.",
        "provenance": {
            "Backbone": {k: str(v) for k, v in head.backbone.items()} or {"features": "ready embeddings"},
            "Head": {k: str(v) for k, v in head.provenance.items()},
            "Software": {"blindtune": __version__},
        },
    }


def _grid(settings: Settings, head: LinearHead) -> dict[str, dict[str, str]]:
    """What the settings of a grid came to on validation rows, and which was chosen."""
    if not settings.grid:
        return {}
    best, found = chosen(settings, head), {}
    for number, told in enumerate(head.provenance["grid"]["settings"]):
        mark = ": chosen, the least" if number == best else ""
        found[named(told)] = f"{told['validation_loss']:.4f}{mark}"
    return {"Settings of the grid, loss on validation rows": found}
