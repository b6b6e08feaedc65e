"""From a plan and a hospital's files to a learner, and from a finished study to a model on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import FederationError, InputError
from blindtune.federation.agreement import Agreement, HeadModel, Local, NetworkModel, Privacy
from blindtune.federation.contributions import known
from blindtune.federation.heads import Cases, HeadLearner, agreed_whitening
from blindtune.federation.learner import Learner, Totals, Values, fingerprint
from blindtune.files import whole_file

if TYPE_CHECKING:
    from blindtune.client.blind import Provider
    from blindtune.imaging import Embeddings

NETWORK_WEIGHTS, KEPT = "network.safetensors", "normalisation.safetensors"
OnImage = Callable[[int, int], None]
"""Called with images done and in all."""

Outsourcing = tuple["Provider", Path]
"""Who computes blind rounds, and a hospital's directory for keys and bundles."""

Maker = Callable[[Agreement, Path | None, Outsourcing | None], Learner]
"""A learner for a plan, a folder for normalisations that stay here, and what blind rounds need."""


def draft(
    study: str,
    classes: Sequence[str],
    model: HeadModel | NetworkModel,
    *,
    rounds: int,
    local: Local | None = None,
    privacy: Privacy | None = None,
    weights: Path | None = None,
    **further: Any,
) -> tuple[Agreement, Values]:
    """A plan, and the values that its first round begins with.

    Args:
        weights: a safetensors file of the network's pretrained weights; a network starts from random ones
            without it, a head from zero.
        further: other fields of :class:`~blindtune.federation.agreement.Agreement`.

    Raises:
        FederationError: fields that do not fit together.
        ModelError: an unknown network, or weights of another one.
    """
    if isinstance(model, NetworkModel):
        start = _network(model, len(classes), weights)[1]
    else:
        start = np.zeros(len(classes) * ((model.directions or model.features) + 1), np.float32)
    told = {
        "study": study,
        "classes": list(classes),
        "model": model.model_dump(),
        "parameters": len(start),
        "start": fingerprint(start),
        "rounds": rounds,
        "local": (local or Local()).model_dump(),
        "privacy": privacy.model_dump() if privacy else None,
        **further,
    }
    return Agreement.checked(told), start


def build_learner(
    plan: Agreement,
    data: Path,
    *,
    labels: Path | None = None,
    weights: Path | None = None,
    cache: Path | None = None,
    provider: Outsourcing | None = None,
    on_image: OnImage | None = None,
) -> Learner:
    """What a hospital brings to a study.

    Args:
        data: a folder of scans, or an ``.npz`` of embeddings for a head.
        labels: of the scans, if not beside them.
        weights: of the backbone, for a head on scans.
        cache: folder where features, or normalisations that stay here, are kept between runs.

    Raises:
        FederationError: classes, features or a backbone that are not the plan's.
        InputError: unusable files.
    """
    made = open_data(plan, data, labels=labels, weights=weights, cache=cache, on_image=on_image)
    return made(plan, cache, provider)


def open_data(
    plan: Agreement,
    data: Path,
    *,
    labels: Path | None = None,
    weights: Path | None = None,
    cache: Path | None = None,
    on_image: OnImage | None = None,
) -> Maker:
    """A hospital's data, read once for all plans that differ from this one in their local part.

    Args, Raises: as :func:`build_learner`.
    """
    model = plan.model
    if isinstance(model, NetworkModel):
        return _network_maker(plan, model, data, labels, on_image)
    found = _embeddings(plan, model, data, labels, weights, cache, on_image)
    return _head_maker(plan, model, found)


def save_model(plan: Agreement, values: Values, totals: Totals, directory: Path) -> None:
    """Write a study's model: a head as :class:`blindtune.models.linear.LinearHead` does, on raw features;
    a network as ``network.safetensors`` by the names of timm.
    """
    from blindtune.models.linear import LinearHead

    provenance = {"trained": "federated", "study": plan.study, "plan": plan.digest, "rounds": plan.rounds}
    if isinstance(plan.model, HeadModel):
        weight, bias = raw_head(plan, plan.model, values, totals)
        backbone = {"name": plan.model.backbone, "fingerprint": plan.model.fingerprint}
        head = LinearHead(weight, bias, tuple(plan.classes), "multiclass", backbone, provenance)
        head.save(directory)
        return
    from safetensors.torch import save_file

    from blindtune.models.networks import from_vector, shared_names

    network, _ = _network(plan.model, len(plan.classes), None)
    names = shared_names(network, plan.model.norm)
    from_vector(network, names, values)
    parameters = dict(network.named_parameters())
    directory.mkdir(parents=True, exist_ok=True)
    with whole_file(directory / NETWORK_WEIGHTS) as path:
        save_file({n: parameters[n].detach().contiguous() for n in names}, path)


def raw_head(
    plan: Agreement, model: HeadModel, values: Values, totals: Totals
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A head on raw features: weights (classes, features) and biases (classes,)."""
    k = len(plan.classes)
    weights, biases = values[:-k].reshape(k, -1).astype(np.float64), values[-k:].astype(np.float64)
    whitening = agreed_whitening(model, known(plan, totals))
    if whitening is None:
        return weights, biases
    return whitening.fold(np.vstack([weights.T, biases]))


def _network(model: NetworkModel, classes: int, weights: Path | None) -> tuple[Any, Values]:
    from blindtune.models.networks import build_network, shared_names, to_vector

    network = build_network(
        model.network, classes, channels=model.channels, weights=weights, norm=model.norm, size=model.side
    )
    return network, to_vector(network, shared_names(network, model.norm))


def _network_maker(
    plan: Agreement, model: NetworkModel, data: Path, labels: Path | None, on_image: OnImage | None
) -> Maker:
    from blindtune.client.features import load_scan
    from blindtune.federation.networks import Images, NetworkLearner
    from blindtune.imaging import load_cohort

    cohort = load_cohort(data, labels, classes=plan.classes)
    _check_classes(plan, cohort.classes)
    patients = numbered(cohort.patients)

    def images(split: str) -> Images:
        rows = cohort.indices(split)
        pixels = np.empty((len(rows), model.channels, model.side, model.side), np.uint8)
        for i, row in enumerate(rows):
            pixels[i] = np.rint(load_scan(cohort.files[row], model.side) * 255)
            if on_image:
                on_image(i + 1, len(rows))
        return Images(pixels, cohort.labels[rows], patients[rows])

    cases = images("train"), images("val")

    def make(chosen: Agreement, place: Path | None, provider: Outsourcing | None) -> Learner:
        network, _ = _network(model, len(plan.classes), None)
        memory = place / KEPT if place else None
        return NetworkLearner(network, model, *cases, len(plan.classes), chosen.local, memory)

    return make


def _head_maker(plan: Agreement, model: HeadModel, found: Embeddings) -> Maker:
    order = _check_classes(plan, found.classes)
    patients = numbered(found.patients)

    def cases(split: str) -> Cases:
        rows = found.indices(split)
        return Cases(found.features[rows], order[found.labels[rows]], patients[rows])

    own = cases("train"), cases("val")

    def make(chosen: Agreement, place: Path | None, provider: Outsourcing | None) -> Learner:
        if not model.blind:
            return HeadLearner(model, *own, len(plan.classes), chosen.local)
        if provider is None:
            raise FederationError(
                "the plan's rounds are blind",
                where="site",
                remedy="Give a provider that computes on ciphertexts.",
            )
        from blindtune.federation.blind import BlindLearner

        return BlindLearner(chosen, *own, provider[1], provider[0])

    return make


def _embeddings(
    plan: Agreement,
    model: HeadModel,
    data: Path,
    labels: Path | None,
    weights: Path | None,
    cache: Path | None,
    on_image: OnImage | None,
) -> Embeddings:
    from blindtune.client.features import embed_cohort
    from blindtune.imaging import load_cohort, load_embeddings

    if data.is_file():
        return load_embeddings(data)
    if not model.backbone:
        raise FederationError(
            "the plan is on ready embeddings", where="data", remedy="Give an .npz file of embeddings."
        )
    cohort = load_cohort(data, labels, classes=plan.classes)
    place = cache if cache is not None else data / ".features"
    found, origin = embed_cohort(cohort, model.backbone, weights, place, on_image)
    if model.fingerprint and origin["fingerprint"] != model.fingerprint:
        raise FederationError(
            "this backbone is not the plan's", where="weights", remedy="Use the plan's weights."
        )
    return found


def numbered(patients: Sequence[str]) -> NDArray[np.int64]:
    """Patient names to numbers."""
    return np.unique(np.array(patients), return_inverse=True)[1].astype(np.int64)


def _check_classes(plan: Agreement, classes: Sequence[str]) -> NDArray[np.int64]:
    """The plan's number of each class found at a site."""
    unknown = set(classes) - set(plan.classes)
    if unknown:
        # The names are this hospital's own, and the message stays here.
        raise InputError(
            f"{len(unknown)} classes that the plan does not have, such as {min(unknown)!r}",
            where="labels",
            remedy=f"The plan has: {', '.join(plan.classes[:20])}.",
        )
    return np.array([plan.classes.index(name) for name in classes], np.int64)
