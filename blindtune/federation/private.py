"""Private training at a site: which patients take part, what is released, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from blindtune.federation.agreement import Agreement, HeadModel, Privacy
from blindtune.federation.contributions import counts_mechanism, moments_mechanism, slope_mechanism, votes
from blindtune.federation.heads import HeadLearner
from blindtune.federation.learner import Learner, Values
from blindtune.privacy.account import Release, epsilon
from blindtune.privacy.mechanism import Mechanism, sampled


def local_steps(plan: Agreement, private: Privacy) -> int:
    """Noisy steps between two syncs."""
    local = plan.local
    return local.every if local.unit == "batches" else local.every * max(1, round(1 / private.sampling))


def round_releases(plan: Agreement, private: Privacy) -> list[tuple[str, Release]]:
    """What a round releases of a patient, with its purpose."""
    steps = slope_mechanism(plan, private).release(private.sampling, local_steps(plan, private))
    found = [("steps", steps)]
    if private.validation:
        found.append(("validation", counts_mechanism(plan, private).release()))
    return found


def first_releases(plan: Agreement, private: Privacy) -> list[tuple[str, Release]]:
    """What is released before the first round, with its purpose."""
    if not isinstance(plan.model, HeadModel) or not plan.model.summed:
        return []
    mechanism = moments_mechanism(plan.model, private.moments, private.parties)
    return [("moments", mechanism.release())]


def releases(plan: Agreement, rounds: int) -> list[Release]:
    """What a plan's first rounds release of a patient."""
    if plan.privacy is None or not rounds:
        return []
    found = [r for _, r in first_releases(plan, plan.privacy)]
    for _, r in round_releases(plan, plan.privacy):
        found.append(Release(r.noise, r.sampling, r.count * rounds))
    return found


def spent(plan: Agreement, delta: float, rounds: int) -> float:
    """Epsilon of a plan's first rounds, for every patient of every site.

    Training and validation patients differ: their releases are added up all the same, on the safe side.
    """
    return epsilon(releases(plan, rounds), delta)


def private_values(learner: Learner, plan: Agreement, private: Privacy, site: str, values: Values) -> Values:
    """Values after local steps of private gradient descent (Abadi et al. 2016), each with its own noise."""
    mechanism, local = slope_mechanism(plan, private), plan.local
    expected = private.sampling * private.patients[site]
    found, velocity = values.astype(np.float64), np.zeros(len(values))
    for _ in range(local_steps(plan, private)):
        slope = (
            private_slope(learner, mechanism, private, found.astype(np.float32)) * mechanism.step / expected
        )
        slope += local.decay * found + local.proximal * (found - values)
        velocity = local.momentum * velocity + slope
        found = found - local.rate * velocity
    return found.astype(np.float32)


def private_slope(
    learner: Learner, mechanism: Mechanism, private: Privacy, values: Values
) -> NDArray[np.int64]:
    """The noisy sum of the gradients of sampled patients, one image of each, in steps of the grid.

    A blind step's sum is of all patients, bounded by cut rows; it is rounded once, within the clip's margin.
    """
    if isinstance(learner, HeadLearner) and learner.cut:
        total = np.rint(learner.whole_slope(values) / mechanism.step).astype(np.int64)
        return mechanism.noisy(total)
    rows = sampled(learner.training.patients, private.sampling)
    return noisy_sum(mechanism, learner.slopes(values, rows))


def private_moments(learner: Learner, model: HeadModel, private: Privacy) -> NDArray[np.int64]:
    """The noisy sum of moments, one image of each patient, in steps of the grid."""
    rows = sampled(learner.training.patients, 1.0)
    mechanism = moments_mechanism(model, private.moments, private.parties)
    return noisy_sum(mechanism, learner.summands(rows))


def private_counts(learner: Learner, plan: Agreement, private: Privacy, values: Values) -> NDArray[np.int64]:
    """Noisy validation counts, in steps of the grid."""
    held = learner.validation
    told = learner.predict(values).argmax(axis=1)
    return noisy_sum(
        counts_mechanism(plan, private), [votes(held.labels, held.patients, told, len(plan.classes))]
    )


def noisy_sum(mechanism: Mechanism, pieces: Iterable[NDArray[np.floating]]) -> NDArray[np.int64]:
    """A sum of contributions, some at a time, with this party's noise."""
    total = np.zeros(mechanism.length, np.int64)
    for piece in pieces:
        total += mechanism.whole(piece).sum(axis=0)
    return mechanism.noisy(total)
