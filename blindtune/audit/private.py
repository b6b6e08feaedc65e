"""One training run as an audit of its privacy (Steinke, Nasr and Jagielski 2023, "Privacy auditing with one
(1) training run").

Canaries stand in for patients: each is put in by a coin of its own, then the head is trained once, by the
very code of private rounds. An attacker who sees the head guesses for those canaries that it is surest of.
Each guess is right with probability ``e^ε / (1 + e^ε)`` at most, so that many right guesses prove that ε is
larger; with so many canaries nothing beyond some ε can be proven, and the control says so. A canary has a
direction of feature space for itself, and its gradient is as long as the clip: what the head moved in that
direction is noise but for that canary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blindtune.audit.results import AttackResult, versions
from blindtune.errors import InputError
from blindtune.federation.agreement import HeadModel, Local, Privacy
from blindtune.federation.heads import Cases, HeadLearner
from blindtune.federation.private import private_values
from blindtune.federation.setup import draft
from blindtune.privacy.account import Release, epsilon, noise_for
from blindtune.report.figures import Figure

Floats = NDArray[np.float64]
FEWEST, MOST = 1000, 16_000
CONFIDENCE = 0.95
SAMPLING, STEPS, RATE = 0.2, 60, 0.1
"""Of the run. With fewer steps some canary that is in never takes part, and nobody can tell."""

SHARES = (0.1, 0.45)
"""Of all canaries that are guessed to be in, and as many to be out: the surest, or nearly all. Chance moves
the number that is in by little more than the rest."""

LONG = 50.0
"""Length of a canary's features: its gradient is longer than the clip, whatever the head says of it."""


@dataclass(frozen=True)
class Bug:
    """What a training run does, where that is not what its account says.

    Attributes:
        noise: factor on the noise.
        clip: factor on the length that gradients are cut to; the noise stays as it is.
        sampling: probability with which a patient takes part; None as told.
    """

    noise: float = 1.0
    clip: float = 1.0
    sampling: float | None = None


BUGS = {
    "noise left out": Bug(noise=1e-3),
    "clipping left out": Bug(clip=1e3),
    "every patient in every step": Bug(sampling=1.0),
}


def audit(
    target: float,
    delta: float,
    canaries: int = 2000,
    bug: Bug | None = None,
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[float, float]:
    """Train once with canaries, and bound epsilon from below.

    Args:
        target, delta: what the run claims.
        canaries: coins that are thrown.
        bug: planted in the run.

    Returns:
        The epsilon that the account claims, and the lower bound, right with 95 % confidence.

    Raises:
        InputError: too few canaries, or more than a head has features for.
    """
    if not FEWEST <= canaries <= MOST:
        raise InputError(
            f"{canaries} canaries", where="--canaries", remedy=f"Use {FEWEST:,} to {MOST:,} of them."
        )
    bug = bug or Bug()
    noise = noise_for(target, delta, sampling=SAMPLING, count=STEPS)
    claimed = epsilon([Release(noise, SAMPLING, STEPS)], delta)
    budget = Privacy(
        where="local",
        noise=noise * bug.noise / bug.clip,
        clip=bug.clip,
        sampling=bug.sampling or SAMPLING,
        patients={"here": canaries, "elsewhere": 1},
    )
    # One step a round, so that progress is seen.
    local = Local(every=1, unit="batches", rate=RATE)
    model = HeadModel(features=canaries)
    plan, values = draft("audit", ["no", "yes"], model, rounds=STEPS, local=local, privacy=budget)
    rng = np.random.default_rng()
    inside = rng.random(canaries) < 0.5
    labels = rng.integers(0, 2, canaries)
    rows = np.flatnonzero(inside)
    features = np.zeros((len(rows), canaries), np.float32)
    features[np.arange(len(rows)), rows] = LONG
    none = Cases(np.empty((0, canaries), np.float32), np.empty(0, np.int64))
    learner = HeadLearner(model, Cases(features, labels[rows]), none, 2, plan.local)
    for step in range(STEPS):
        values = private_values(learner, plan, budget, "here", values)
        on_step(step + 1, STEPS)
    weights = values[:-2].reshape(2, canaries).astype(np.float64)
    # A canary moves its own direction towards its class, and away from the other.
    scores = weights[labels, np.arange(canaries)] - weights[1 - labels, np.arange(canaries)]
    return claimed, lower_bound(scores, inside, delta)


def lower_bound(scores: Floats, inside: NDArray[np.bool_], delta: float) -> float:
    """Epsilon is larger than this, with 95 % confidence, or the training is not what it claims.

    The surest guesses of both sides are counted: the number of guesses is chosen from :data:`SHARES`, and
    the confidence shared among them (Bonferroni).

    Args:
        scores: the larger, the likelier a canary was in (m,).
        inside: the coins (m,).
        delta: that the training claims.
    """
    order = np.argsort(scores)
    m, best = len(scores), 0.0
    for share in SHARES:
        k = int(share * m)
        right = int((~inside[order[:k]]).sum() + inside[order[-k:]].sum())
        best = max(best, _bound(m, 2 * k, right, delta, (1 - CONFIDENCE) / len(SHARES)))
    return best


def _bound(m: int, guesses: int, right: int, delta: float, chance: float) -> float:
    """Largest epsilon that so many right guesses rule out."""
    low, high = 0.0, 20.0
    if p_value(m, guesses, right, 0.0, delta) > chance:
        return 0.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(m, guesses, right, middle, delta) <= chance else (low, middle)
    return low


def p_value(m: int, guesses: int, right: int, target: float, delta: float) -> float:
    """Chance of so many right guesses at most, were the training private: the main theorem, with its delta.

    Args:
        m: coins.
        guesses, right: of them.
        target, delta: of the training.
    """
    from scipy.stats import binom

    share = 1 / (1 + math.exp(-target))
    tail = float(binom.sf(right - 1, guesses, share))
    if not right:
        return 1.0
    below = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), guesses, share))
    slope = float((below / np.arange(1, right + 1)).max())
    return min(1.0, tail + 2 * m * delta * slope)


def results(
    epsilons: list[float],
    delta: float,
    canaries: int,
    on_step: Callable[[int, int], None],
    *,
    earlier: Sequence[AttackResult] = (),
    keep: Callable[[list[AttackResult]], None] = lambda _results: None,
) -> list[AttackResult]:
    """Audit budgets as they are and with each of :data:`BUGS`.

    The control of a budget is that the run without noise is found out.

    Args:
        epsilons, delta: of the budgets.
        canaries: in each run.
        on_step: called with steps done and in all.
        earlier: what a run that was stopped had found; its whole budgets are not run again.
        keep: called with all results so far after each budget.
    """
    found: list[AttackResult] = []
    done, total = 0, len(epsilons) * (1 + len(BUGS)) * STEPS

    def step(_done: int = 0, _total: int = 0, steps: int = 1) -> None:
        nonlocal done
        done += steps
        on_step(done, total)

    target = f"private head, {STEPS} steps, sampling {SAMPLING:g}, delta {delta:g}"
    for budget in epsilons:
        protection = f"differential privacy, epsilon {budget:g}"
        names = {"as it is": protection} | {name: f"{protection}; planted bug: {name}" for name in BUGS}
        there = [
            r
            for r in earlier
            if r.protection in names.values()
            and (r.target, r.trials, r.versions) == (target, canaries, versions())
        ]
        if len(there) == len(names):
            found += there
            step(steps=len(names) * STEPS)
            continue
        runs = {name: audit(budget, delta, canaries, BUGS.get(name), step) for name in names}
        claimed, without = runs["noise left out"]
        found += [
            AttackResult(
                attack="one-run privacy audit",
                target=target,
                protection=names[name],
                figures={"claimed epsilon": Figure(claimed), "proven lower bound": Figure(low)},
                trials=canaries,
                control=without > claimed,
                command=f"blindtune audit dp --epsilon {budget:g} --delta {delta:g} --canaries {canaries}",
                versions=versions(),
            )
            for name, (_, low) in runs.items()
        ]
        keep(found)
    return found
