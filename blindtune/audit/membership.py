"""The likelihood ratio attack (Carlini et al. 2022, "Membership inference attacks from first principles").

Many heads are trained, each on a random half of the patients. For each head and patient the attacker, who
has all the other heads, asks what is likelier: the head's confidence in the patient's rows among the heads
that had the patient, or among those that had not (online attack, a normal distribution a row and side). The
unit is the patient: a half takes all of a patient's rows or none, and their log-ratios add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blindtune.audit.heads import Floats, Labels, Recipe, Study, decrypted, memorising, private
from blindtune.audit.results import AttackResult, versions
from blindtune.errors import InputError
from blindtune.models.softmax import probabilities
from blindtune.report.figures import Figure

Booleans = NDArray[np.bool_]
CONTROL = "none: a head that memorises (control)"
RATES = (0.001, 0.01)
FEWEST_HEADS = 16
RESAMPLES = 300
SPREAD = 1e-3
"""Least standard deviation of a row's confidence: heads that agree to the digit are not infinitely sure."""


@dataclass(frozen=True)
class Attacked:
    """What the attack found.

    Attributes:
        scores: log-ratio of each head and patient (heads, patients): large for a member.
        members: whether the head had the patient (heads, patients).
    """

    scores: Floats
    members: Booleans

    def rate(self, false: float) -> Figure:
        """True positive rate where a share ``false`` of those that were no members is taken for some.

        The interval resamples patients, and takes the threshold of each resampled set.
        """
        patients = self.scores.shape[1]
        order = np.argsort(-self.scores, axis=None)
        member, who = self.members.ravel()[order], np.tile(np.arange(patients), len(self.scores))[order]

        def found(weights: Floats) -> float:
            w = weights[who]
            hits, misses = np.cumsum(w * member), np.cumsum(w * ~member)
            last = np.searchsorted(misses, false * misses[-1], side="right")
            return float(hits[last - 1] / hits[-1]) if last else 0.0

        rng = np.random.default_rng(0)
        draws = (rng.multinomial(patients, np.full(patients, 1 / patients)) for _ in range(RESAMPLES))
        low, high = np.quantile([found(d.astype(np.float64)) for d in draws], [0.025, 0.975])
        return Figure(found(np.ones(patients)), float(low), float(high))

    @property
    def area(self) -> float:
        """Area under the ROC curve."""
        from sklearn.metrics import roc_auc_score

        return float(roc_auc_score(self.members.ravel(), self.scores.ravel()))

    @property
    def figures(self) -> dict[str, Figure]:
        """True positive rates at each of :data:`RATES`, and the area."""
        found = {f"TPR at {100 * r:g} % FPR": self.rate(r) for r in RATES}
        return {**found, "AUC": Figure(self.area)}


def audit(
    study: Study,
    heads: int,
    epsilons: Sequence[float],
    on_head: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[AttackResult]:
    """Attack a study's head as decrypted and as released, and private heads on the same patients.

    Args:
        heads: shadow heads of each kind.
        epsilons: budgets of private heads, at a delta of a tenth of one over the patients.
        on_head: called with heads trained and in all.
    """
    classes, patients = len(study.settings.classes), len(np.unique(study.patients))
    delta = 0.1 / patients
    recipes = {
        CONTROL: memorising(classes),
        "none: the decrypted head": decrypted(study),
        "sanitised release": decrypted(study, released=True),
    }
    for target in epsilons:
        recipes[f"differential privacy, epsilon {target:g}"] = private(
            classes, study.features.shape[1], patients // 2, target, delta
        )
    done, results = 0, list[AttackResult]()

    def one() -> None:
        nonlocal done
        done += 1
        on_head(done, heads * len(recipes))

    for protection, recipe in recipes.items():
        found = attack(recipe, study.features, study.labels, study.patients, heads, one)
        figures, head = found.figures, study.settings.head["name"]
        rate = figures[f"TPR at {100 * RATES[-1]:g} % FPR"]
        if protection == CONTROL:
            control = (rate.low or 0.0) > 10 * RATES[-1]
        results.append(
            AttackResult(
                attack="membership inference",
                target=f"{head} head, {classes} classes, {patients:,} patients",
                protection=protection,
                figures=figures,
                trials=heads,
                control=control,
                command=f"blindtune audit membership STUDY --heads {heads}"
                + "".join(f" --epsilon {e:g}" for e in epsilons),
                versions=versions(),
            )
        )
    return results


def attack(
    recipe: Recipe,
    features: Floats,
    labels: Labels,
    patients: Labels,
    heads: int,
    on_head: Callable[[], None] = lambda: None,
    seed: int = 0,
) -> Attacked:
    """Train heads on random halves of the patients and attack each with all the others.

    Args:
        features, labels, patients: rows (n, d), (n,), (n,).
        heads: how many.
        on_head: called after each.
        seed: of the halves.

    Raises:
        InputError: too few heads to estimate anything from, or a half without some class.
    """
    if heads < FEWEST_HEADS:
        raise InputError(f"{heads} shadow heads", where="--heads", remedy=f"Use {FEWEST_HEADS} at least.")
    _, who = np.unique(patients, return_inverse=True)
    count, classes = int(who.max()) + 1, int(labels.max()) + 1
    rng = np.random.default_rng(seed)
    members = np.zeros((heads, count), bool)
    confidence = np.zeros((heads, len(labels)))
    for h in range(heads):
        members[h, rng.permutation(count)[: count // 2]] = True
        rows = members[h][who]
        if len(np.unique(labels[rows])) < classes:
            raise InputError("too few patients for random halves", remedy="Attack a larger study.")
        logits = recipe(features[rows], labels[rows], who[rows])(features)
        confidence[h] = _confidence(logits, labels)
        on_head()
    return Attacked(_ratios(confidence, members, who), members)


def _confidence(logits: Floats, labels: Labels) -> Floats:
    """Log-odds of each row's own class (n,), which are nearly normal over heads."""
    both = np.hstack([-logits / 2, logits / 2]) if logits.shape[1] == 1 else logits
    p = np.clip(probabilities(both)[np.arange(len(labels)), labels], 1e-12, 1 - 1e-12)
    return np.asarray(np.log(p) - np.log1p(-p))


def _ratios(confidence: Floats, members: Booleans, who: Labels) -> Floats:
    """Log-ratio of each head and patient, from the other heads."""
    inside = members[:, who]
    logs = []
    for side in (inside, ~inside):
        n = side.sum(axis=0)
        total, squares = (side * confidence).sum(axis=0), (side * confidence**2).sum(axis=0)
        # The attacked head itself is left out of the side that it is on.
        left = n - side
        mean = (total - side * confidence) / np.maximum(left, 1)
        spread = (squares - side * confidence**2) / np.maximum(left, 1) - mean**2
        deviation = np.sqrt(np.maximum(spread, SPREAD**2))
        logs.append(-0.5 * ((confidence - mean) / deviation) ** 2 - np.log(deviation))
    difference = logs[0] - logs[1]
    found = np.zeros(members.shape)
    for h in range(len(members)):
        found[h] = np.bincount(who, difference[h], members.shape[1])
    return found
