"""What leaves a site in a study: the parcels of its sums, and what goes into them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from blindtune.errors import FederationError
from blindtune.federation.agreement import Agreement, HeadModel, NetworkModel, Privacy
from blindtune.federation.learner import BINS, Scores, Values
from blindtune.federation.parcel import COUNT_BOUND, Parcel, Part
from blindtune.federation.secagg.quantise import Quantiser
from blindtune.privacy.mechanism import Mechanism

STATISTICS, UPDATE, FINISHED = "statistics", "update", "finished"
"""What is summed before the first round, and in each; and the last model on its way to the sites."""

LOSS_BOUND = float(1 << 20)
"""Of the sum of a site's losses: eight a case for the largest site, with four digits for the smallest."""

MAX_HEADER = 1 << 14
"""Bytes of a safetensors header with few arrays."""

ROWS_AT_ONCE = 64
"""Rows whose products are in memory together."""


def moment_count(model: HeadModel) -> int:
    """Values of moments: sums of rows and, for whitening, of the products of their features."""
    d = model.features
    return d + d * (d + 1) // 2 if model.directions else d


def summed(plan: Agreement) -> tuple[str, int] | None:
    """Name and length of the sum that the model needs of the confederation's data; None if none."""
    model = plan.model
    if isinstance(model, NetworkModel):
        return None if model.mean else ("pixels", 2 * model.channels)
    return ("moments", moment_count(model)) if model.summed else None


def statistics_parcel(plan: Agreement) -> Parcel | None:
    """What is summed before the first round; None if it is nothing."""
    parts = [] if plan.privacy else [Part("images", len(plan.classes), count=True)]
    needed = summed(plan)
    if needed and plan.privacy:
        parts.append(whole_part(*needed, len(plan.privacy.patients)))
    elif needed:
        # Each case adds at most one to each value.
        rows = plan.model.rows if isinstance(plan.model, HeadModel) else COUNT_BOUND
        parts.append(Part(*needed, float(rows)))
    return Parcel(tuple(parts)) if parts else None


def update_parcel(plan: Agreement) -> Parcel:
    """What is summed in a round: the weighed update, and the round's model on the sites' validation cases."""
    cells, private = len(plan.classes) ** 2, plan.privacy
    if private is None:
        return Parcel(
            (
                Part("update", plan.parameters, plan.bound),
                Part("weight", 1, 1.0),
                Part("confusion", cells, count=True),
                Part("histogram", len(plan.classes) * 2 * BINS, count=True),
                Part("loss", 1, LOSS_BOUND),
                Part("stopped", 1, count=True),
            )
        )
    sites = len(private.patients)
    if private.where == "distributed":
        parts = [whole_part("slope", plan.parameters, sites)]
    else:
        parts = [Part("update", plan.parameters, plan.bound)]
    if private.validation:
        parts.append(whole_part("confusion", cells, sites))
    return Parcel(tuple(parts))


def whole_part(name: str, length: int, sites: int) -> Part:
    """Whole numbers whose sum over all sites is exact, as large as they can be."""
    top = Quantiser(1.0, sites).top
    # A site's rounding moves it by half a step of the quantiser; all of them stay below a quarter.
    bound = min(1 << 24, 1 << int(math.log2(top / (2 * sites))))
    return Part(name, length, float(bound), count=True)


def cut(parcel: Parcel, name: str, whole: NDArray[np.int64]) -> NDArray[np.int64]:
    """Noisy whole numbers within their part's bound: what is beyond is cut, after the noise."""
    bound = int(next(p.bound for p in parcel.parts if p.name == name))
    return np.clip(whole, -bound, bound)


def plain_parts(update: ArrayLike, weight: float, scores: Scores, stopped: bool) -> dict[str, ArrayLike]:
    """The parts of a round without privacy."""
    return {
        "update": update,
        "weight": [weight],
        "confusion": scores.confusion.ravel(),
        "histogram": scores.histogram.ravel(),
        "loss": [scores.loss * scores.cases],
        "stopped": [float(stopped)],
    }


def share(plan: Agreement, private: Privacy, site: str) -> float:
    """A site's weight in a private study: by its patients as the plan tells them, or one."""
    if plan.average == "uniform":
        return 1.0
    return private.patients[site] / sum(private.patients.values())


def slope_mechanism(plan: Agreement, private: Privacy) -> Mechanism:
    """The noisy sum of gradients in a step."""
    return Mechanism(plan.parameters, private.clip, private.noise, private.parties)


def moments_mechanism(model: HeadModel, noise: float, parties: int = 1) -> Mechanism:
    """The noisy sum of moments: a row of length 1 has a product matrix of length 1 beside it."""
    longest = math.sqrt(2) if model.directions else 1.0
    return Mechanism(moment_count(model), longest, noise, parties)


def counts_mechanism(plan: Agreement, private: Privacy) -> Mechanism:
    """The noisy validation counts: all cases of a patient have one vote together."""
    return Mechanism(len(plan.classes) ** 2, 1.0, private.validation, private.parties)


def votes(
    labels: NDArray[np.int64], patients: NDArray[np.int64], told: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    """Confusion of each patient's cases, which share one vote.

    Args:
        labels, patients, told: shape (n,).

    Returns:
        shape (patients, classes ** 2).
    """
    names, where, cases = np.unique(patients, return_inverse=True, return_counts=True)
    found = np.zeros((len(names), classes * classes))
    np.add.at(found, (where, labels * classes + told), 1 / cases[where])
    return found


def row_moments(model: HeadModel, rows: NDArray[np.floating]) -> Iterator[NDArray[np.float64]]:
    """Each row's moments, the row cut to the plan's reach and given relative to it; some rows at a time.

    Args:
        rows: features, shape (n, features).

    Yields:
        shape (m, moment_count(model)); off-diagonal products times the root of two, so that a row's
        products are as long as its matrix.
    """
    i, j = np.triu_indices(model.features)
    factors = np.where(i == j, 1.0, math.sqrt(2))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        x = rows[start : start + ROWS_AT_ONCE].astype(np.float64) / model.reach
        x /= np.maximum(1.0, np.linalg.norm(x, axis=1))[:, None]
        yield np.hstack([x, x[:, i] * x[:, j] * factors]) if model.directions else x


def moments(model: HeadModel, total: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of rows (d,) and of their products (d, d) from summed :func:`row_moments` of a whitened head."""
    d = model.features
    i, j = np.triu_indices(d)
    second = np.zeros((d, d))
    second[i, j] = second[j, i] = total[d:] / np.where(i == j, 1.0, math.sqrt(2)) * model.reach**2
    return total[:d] * model.reach, second


def known(plan: Agreement, totals: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Sums with what follows from them: how many ``rows`` they are of, and moments in their own unit."""
    found, private = dict(totals), plan.privacy
    if private is None:
        found["rows"] = np.array([found["images"].sum()])
        return found
    found["rows"] = np.array([float(sum(private.patients.values()))])
    if "moments" in found and isinstance(plan.model, HeadModel):
        step = moments_mechanism(plan.model, private.moments, private.parties).step
        found["moments"] = found["moments"] * step
    return found


def model_digest(values: Values, totals: Mapping[str, NDArray[np.float64]]) -> str:
    """SHA-256 of all that sites start a round from."""
    found = hashlib.sha256(values.astype("<f4", copy=False).tobytes())
    for name in sorted(totals):
        found.update(name.encode() + b"\0" + totals[name].astype("<f8", copy=False).tobytes())
    return found.hexdigest()


def model_bytes(plan: Agreement) -> int:
    """Most bytes of what comes with a round."""
    parcel = statistics_parcel(plan)
    return 4 * plan.parameters + 8 * (parcel.length if parcel else 0) + MAX_HEADER


def write_model(values: Values, totals: Mapping[str, NDArray[np.float64]]) -> bytes:
    """What comes with a round."""
    return save({"values": values, **{f"total.{n}": a for n, a in totals.items()}})


def read_model(plan: Agreement, data: bytes) -> tuple[Values, dict[str, NDArray[np.float64]]]:
    """Read what comes with a round.

    Raises:
        FederationError: another size, other arrays than the plan's, or a value that is not a number.
    """
    parcel = statistics_parcel(plan)
    parts = parcel.parts if parcel else ()
    shapes = {"values": (plan.parameters,), **{f"total.{p.name}": (p.length,) for p in parts}}
    try:
        if len(data) > model_bytes(plan):
            raise ValueError
        arrays = load(data)
        kinds = {n: a.dtype for n, a in arrays.items()}
        if {n: a.shape for n, a in arrays.items()} != shapes or kinds.pop("values") != np.float32:
            raise ValueError
        if any(kind != np.float64 for kind in kinds.values()):
            raise ValueError
    except (ValueError, SafetensorError):
        raise FederationError(
            f"a model of {len(data):,} bytes that is not the plan's", where="federation"
        ) from None
    if not all(np.isfinite(a).all() for a in arrays.values()):
        raise FederationError("a model with values that are not numbers", where="federation")
    return arrays.pop("values"), {n.removeprefix("total."): a for n, a in arrays.items()}
