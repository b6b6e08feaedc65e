"""What embeddings tell: gradients of a head reveal them, a decoder draws the scan, neighbours link patients.

It decides whether embeddings count as patient data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blindtune.audit.decoder import Convolutional, Linear
from blindtune.audit.observed import Sight
from blindtune.audit.quality import judged, nearest
from blindtune.audit.results import AttackResult, proportion, versions
from blindtune.audit.scans import Pixels, Scans
from blindtune.client.features import load_scan
from blindtune.federation.agreement import HeadModel, Local
from blindtune.federation.heads import Cases, HeadLearner
from blindtune.models import extract
from blindtune.models.backbone import Backbone
from blindtune.models.whitening import Whitening
from blindtune.privacy.mechanism import Mechanism
from blindtune.report.figures import Figure

Rows = NDArray[np.float32]
GRADIENT, DECODER, LINK = (
    "embedding from a head's gradient",
    "scan from an embedding",
    "patient from an embedding",
)
CLEAR, GUESS = "none: the embedding in clear", "a guess: the mean of public images"
CHANCE = "by chance"
EXACT = 1e-3
"""Relative error up to which an embedding counts as revealed."""

DIRECTIONS = 64
EMBEDDED_AT_ONCE = 32


def embeddings(
    scans: Scans, backbone: Backbone, cache: Path | None, progress: Callable[[int, int], None] | None = None
) -> Rows:
    """Embeddings of all scans, shape (n, d); those of files are kept in ``cache``."""
    if scans.files:
        return extract(backbone, scans.files, load=load_scan, cache=cache, progress=progress)
    found = []
    for start in range(0, len(scans), EMBEDDED_AT_ONCE):
        rows = np.arange(start, min(start + EMBEDDED_AT_ONCE, len(scans)))
        found.append(backbone.embed(scans.pixels(rows, backbone.size)))
        if progress:
            progress(int(rows[-1]) + 1, len(scans))
    return np.concatenate(found)


def revealed(gradient: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
    """The embedding that a linear head's gradient holds: a row of the weights' over that of its bias.

    With one case, every row is the case's embedding times the derivative by its logit, which is the bias's
    gradient: the ratio is the embedding, exactly. With several cases it is a weighted mean of theirs.

    Args:
        gradient: weights (classes, d), then biases (classes,), one after the other.

    Returns:
        shape (d,), of the class whose bias says most.
    """
    weights, biases = gradient[:-classes].reshape(classes, -1), gradient[-classes:]
    most = int(np.abs(biases).argmax())
    return np.asarray(weights[most] / (biases[most] or 1e-300))


def seen(learner: HeadLearner, rows: NDArray[np.int64], parameters: int, what: Sight) -> NDArray[np.float64]:
    """A gradient summed over cases as a site, or a secure sum of sites, gives it away."""
    slopes = np.concatenate(list(learner.slopes(np.zeros(parameters, np.float32), rows)))
    if not what.clip:
        return np.asarray(slopes.sum(axis=0))
    mechanism = Mechanism(parameters, what.clip, what.noise or 1e-6)
    total = mechanism.whole(slopes).sum(axis=0)
    return np.asarray((mechanism.noisy(total) if what.noise else total) * mechanism.step)


def attack_gradients(
    scans: Scans, rows: Rows, held: NDArray[np.int64], protections: Sequence[Sight], command: str
) -> tuple[list[AttackResult], dict[str, NDArray[np.float64]]]:
    """Read embeddings off gradients of a head on frozen features.

    Args:
        rows: embeddings of all scans, shape (n, d).
        held: patients that are attacked; a scan of each.

    Returns:
        a result for each protection, and what was revealed by its name, shape (groups, d).
    """
    features, classes = rows.shape[1], len(scans.classes)
    cases = Cases(rows[held], scans.labels[held])
    learner = HeadLearner(HeadModel(features=features, rows=len(held)), cases, cases, classes, Local())
    found, exact, results = {}, {}, []
    for what in protections:
        groups = [held[i : i + what.together] for i in range(0, len(held), what.together)]
        groups = [g for g in groups if len(g) == what.together]
        at = [np.arange(i * what.together, (i + 1) * what.together) for i in range(len(groups))]
        gradients = [seen(learner, g, classes * (features + 1), what) for g in at]
        found[what.name] = np.array([revealed(g, classes) for g in gradients])
        errors = np.array([_error(x, rows[g]) for x, g in zip(found[what.name], groups, strict=True)])
        neighbours = nearest(found[what.name], rows[held])
        hits = sum(int(n in g) for n, g in zip(neighbours, at, strict=True))
        exact[what.name] = int((errors < EXACT).sum())
        results.append(
            (
                what,
                {
                    "embeddings revealed exactly": proportion(exact[what.name], len(groups)),
                    "relative error of the closest, median": Figure(float(np.median(errors))),
                    "nearest embedding is one of the batch": proportion(hits, len(groups)),
                    CHANCE: Figure(what.together / len(held)),
                },
                len(groups),
            )
        )
    first = protections[0]
    control = exact[first.name] == len(held) // first.together
    target = f"softmax head on {features} features; {scans.source}"
    told = [AttackResult(GRADIENT, target, w.name, f, n, control, command, versions()) for w, f, n in results]
    return told, found


def attack_embeddings(
    scans: Scans,
    rows: Rows,
    backbone: str,
    side: int,
    epochs: int,
    command: str,
    progress: Callable[[], None] | None = None,
) -> tuple[list[AttackResult], dict[str, Pixels], Convolutional, NDArray[np.int64]]:
    """Draw scans from their embeddings, and link embeddings to other scans of the same patient.

    Args:
        rows: embeddings of all scans, shape (n, d).
        side: of the drawn scans in pixels, a multiple of 8.

    Returns:
        results; rows of images to look at; the decoder of plain embeddings; and the patients' rows.
    """
    public, held = scans.halves()
    held = held[np.random.default_rng(0).permutation(len(held))]
    victims = scans.one_each(held)
    shown, gallery = scans.pixels(public, side), scans.pixels(held, side)
    place = {int(row): at for at, row in enumerate(held)}
    truth = gallery[[place[int(r)] for r in victims]]
    whitening = Whitening.fit(rows[public], min(DIRECTIONS, rows.shape[1]), 0.1, "audit")
    white = np.asarray(whitening.apply(rows)[:, :-1], np.float32)
    decoder = Convolutional(rows[public], shown, epochs, progress=progress)
    drawn = {
        CLEAR: decoder(rows[victims]),
        "none: the embedding in clear, linear decoder": Linear(rows[public], shown)(rows[victims]),
        f"{whitening.columns - 1} whitened directions in clear, linear decoder": Linear(white[public], shown)(
            white[victims]
        ),
        GUESS: np.repeat(shown.mean(axis=0)[None], len(victims), axis=0),
    }
    figures = {}
    for name, images in drawn.items():
        hits = scans.patients[held[nearest(images, gallery)]] == scans.patients[victims]
        figures[name] = {**judged(images, truth, hits), CHANCE: Figure(1 / len(victims))}
    lowest = figures[CLEAR]["patients re-identified"].low
    control = lowest is not None and lowest > 1 / len(victims)
    target = f"{backbone}, {rows.shape[1]} features; {scans.source}; drawn at {side} px"
    results = [
        AttackResult(DECODER, target, name, told, len(victims), control, command, versions())
        for name, told in figures.items()
    ]
    results.append(_link(scans, rows, held, backbone, command))
    return results, {"true": truth, **drawn}, decoder, victims


def _link(scans: Scans, rows: Rows, held: NDArray[np.int64], backbone: str, command: str) -> AttackResult:
    """Whether an embedding's nearest neighbour is another scan of the same patient."""
    centred = rows[held] - rows[held].mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    patients = scans.patients[held]
    # One scan of each patient who has several: scans of a patient are not independent.
    several = np.flatnonzero((patients[:, None] == patients).sum(axis=1) > 1)
    asked = several[np.unique(patients[several], return_index=True)[1]]
    hits = int((patients[alike[asked].argmax(axis=1)] == patients[asked]).sum())
    chance = float(np.mean([(patients == patients[i]).sum() - 1 for i in asked])) / max(1, len(held) - 1)
    found = proportion(hits, len(asked))
    control = found.low is not None and found.low > chance
    target = f"{backbone}, {rows.shape[1]} features; {scans.source}"
    figures = {"linked to another scan of the same patient": found, CHANCE: Figure(chance)}
    return AttackResult(LINK, target, CLEAR, figures, len(asked), control, command, versions())


def _error(found: NDArray[np.float64], truth: Rows) -> float:
    lengths = np.linalg.norm(truth, axis=1)
    return float((np.linalg.norm(truth - found, axis=1) / np.maximum(lengths, 1e-12)).min())
