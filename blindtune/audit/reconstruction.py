"""The inversion audit: the same patients attacked through each protection, and judged beside a guess."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blindtune.audit.inversion import Prior, Strength, invert
from blindtune.audit.observed import Mode, Network, Sight
from blindtune.audit.quality import anova, judged, mse, nearest, ssim, t_test
from blindtune.audit.results import AttackResult, proportion, versions
from blindtune.audit.scans import Pixels, Scans
from blindtune.errors import InputError
from blindtune.files import whole_file
from blindtune.models.networks import Norm
from blindtune.report.figures import Figure

ATTACK = "gradient inversion"
OPEN, GUESS = "none: one image's gradient", "a guess: the mean of public images"


@dataclass(frozen=True)
class Setting:
    """What is attacked.

    Attributes:
        network: in timm's registry.
        norm, mode: see :class:`~blindtune.audit.observed.Network`.
        side: of the images in pixels.
        images: patients that are attacked, one image each, through every protection.
        strength: of the attack.
        seed: of the network's weights and of which patients.
    """

    network: str = "resnet18"
    norm: Norm = "group"
    mode: Mode = "training"
    side: int = 32
    images: int = 4
    strength: Strength = field(default_factory=Strength)
    seed: int = 0

    @property
    def target(self) -> str:
        """In words."""
        kinds = {"group": "group normalisation", "local": f"batch normalisation in {self.mode} mode"}
        norm = kinds[self.norm] if self.network.startswith("resnet") else "layer normalisation"
        return f"{self.network}, {norm}, {self.side} px"


def sights(
    batch: int,
    sites: Sequence[int],
    noises: Sequence[tuple[float, float]],
    clip: float = 1.0,
    statistics: bool = False,
) -> list[Sight]:
    """The protections of an audit, from none to noise.

    Args:
        batch: images in a site's step.
        sites: in a secure sum.
        noises: epsilon, and the noise over the clip that gives it.
        statistics: whether there are a batch's own, which a site might give away too.
    """
    told = [Sight("none: one image's gradient and its batch statistics", statistics=True)]
    found = [Sight(OPEN), *told[: int(statistics)], Sight(f"none: a site's update of {batch} images", batch)]
    found += [Sight(f"secure sum of {n} sites, {batch} images each", batch, n) for n in sites]
    if noises:
        found.append(Sight("clipping, noise left out: one image", clip=clip))
    found += [Sight(f"epsilon {e:g}: one image", clip=clip, noise=noise) for e, noise in noises]
    return found


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """Images of one protection.

    Attributes:
        images, truth: shape (n, side, side).
        hits: whether each one's nearest true image is its own patient's.
        labelled: labels that were found; None where none were looked for.
        distance: mean distance that the search reached.
    """

    images: Pixels
    truth: Pixels
    hits: NDArray[np.bool_]
    labelled: int | None = None
    distance: float | None = None


def attack(
    scans: Scans,
    setting: Setting,
    protections: Sequence[Sight],
    *,
    state: Path | None = None,
    command: str = "",
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[AttackResult], dict[str, Pixels]]:
    """Attack the same patients through each protection.

    Args:
        protections: from :func:`sights`; the first is the positive control.
        state: folder where what was rebuilt is kept; a run that was stopped goes on from it.
        command: for the results.
        progress: called with a protection's name, images done and images in all.

    Returns:
        a result for each protection and for the guess, and rows of images to look at.

    Raises:
        InputError: too few patients for what is asked, or a network that cannot learn from one such image.
    """
    network = Network(
        setting.network,
        len(scans.classes),
        setting.side,
        norm=setting.norm,
        mode=setting.mode,
        seed=setting.seed,
    )
    public, held = scans.halves(setting.seed)
    held = held[np.random.default_rng(setting.seed).permutation(len(held))]
    most = max(setting.images, *(p.together for p in protections))
    victims = scans.one_each(held)
    if len(victims) < most:
        raise InputError(
            f"{len(victims)} patients to attack, {most} are needed",
            where="scans",
            remedy="Ask for fewer sites, a smaller batch or fewer images.",
        )
    shown, gallery = scans.pixels(public, setting.side), scans.pixels(held, setting.side)
    place = {int(row): at for at, row in enumerate(held)}
    network.mean, network.std = float(shown.mean()), float(shown.std())
    prior = Prior(shown, setting.strength.components, network)

    def hits(images: Pixels, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(scans.patients[held[nearest(images, gallery)]] == scans.patients[rows])

    found: dict[str, Rebuilt] = {}
    for sight in protections:
        size = sight.together
        rows = victims[: min(-(-setting.images // size), len(victims) // size) * size]
        truth, labels = gallery[[place[int(r)] for r in rows]], scans.labels[rows]
        pieces, labelled = [], 0
        for start in range(0, len(rows), size):
            if progress:
                progress(sight.name, start, len(rows))
            shots, classes = truth[start : start + size], labels[start : start + size]
            make = partial(_one, network, sight, prior, setting, shots, classes)
            piece = _kept(state, _name(setting, sight, shots), make)
            labelled += (Counter(piece["labels"].tolist()) & Counter(classes.tolist())).total()
            pieces.append(piece)
        if progress:
            progress(sight.name, len(rows), len(rows))
        images = np.concatenate([p["images"] for p in pieces])
        distance = float(np.mean([p["distance"] for p in pieces]))
        found[sight.name] = Rebuilt(images, truth, hits(images, rows), labelled, distance)
    truth = found[protections[0].name].truth
    guess = np.repeat(prior.mean[None], len(truth), axis=0)
    guessed = Rebuilt(guess, truth, hits(guess, victims[: len(truth)]))
    told = _figures(found, guessed)
    lowest = told[protections[0].name]["patients re-identified"].low
    # The attack works where nothing protects: more patients than chance explains.
    control = lowest is not None and lowest > 1 / len(gallery)
    target = f"{setting.target}; {scans.source}"
    results = [
        AttackResult(ATTACK, target, name, told[name], len(one.images), control, command, versions())
        for name, one in {**found, GUESS: guessed}.items()
    ]
    widest = max((one.truth for one in found.values()), key=len)
    pictures = {"true": widest, **{name: one.images for name, one in found.items()}, GUESS: guess[:1]}
    return results, pictures


def _one(
    network: Network, sight: Sight, prior: Prior, setting: Setting, truth: Pixels, labels: NDArray[np.int64]
) -> dict[str, NDArray[np.generic]]:
    import torch
    from scipy.optimize import linear_sum_assignment

    pixels = torch.from_numpy(truth)[:, None]
    seen = network.sight(pixels, torch.from_numpy(labels), sight)
    statistics = network.statistics(pixels).numpy() if sight.statistics else None
    images, told, distance = invert(
        network, seen, len(truth), sight.sites, prior, setting.strength, setting.seed, statistics
    )
    # A batch has no order: each true image gets the rebuilt one that makes the whole fit best.
    costs = np.stack([mse(images, np.broadcast_to(t, images.shape)) for t in truth])
    order = linear_sum_assignment(costs)[1]
    return {"images": images[order], "labels": told, "distance": np.array(distance)}


def _kept(
    state: Path | None, name: str, make: Callable[[], dict[str, NDArray[np.generic]]]
) -> dict[str, NDArray[np.generic]]:
    """What an earlier run made, or what is made now."""
    path = None if state is None else state / f"{name}.npz"
    if path is not None and path.is_file():
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except (ValueError, OSError, zipfile.BadZipFile):
            path.unlink()
    found = make()
    if path is not None:
        with whole_file(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **found)  # type: ignore[arg-type]
    return found


def _name(setting: Setting, sight: Sight, truth: Pixels) -> str:
    told = repr((sorted(asdict(setting).items()), sight)).encode()
    return hashlib.sha256(told + truth.tobytes()).hexdigest()[:24]


def _figures(found: dict[str, Rebuilt], guessed: Rebuilt) -> dict[str, dict[str, Figure]]:
    """Figures by protection, and of the guess."""
    similar = {name: ssim(one.images, one.truth) for name, one in found.items()}
    first = next(iter(similar))
    told = {}
    for name, one in {**found, GUESS: guessed}.items():
        figures = judged(one.images, one.truth, one.hits)
        if one.labelled is not None:
            figures["labels recovered"] = proportion(one.labelled, len(one.images))
        if one.distance is not None:
            figures["distance reached"] = Figure(one.distance)
        if name == first:
            figures["ANOVA of SSIM over the protections, p"] = anova(list(similar.values()))
        elif name in similar:
            figures["t-test of SSIM against no protection, p"] = t_test(similar[first], similar[name])
        told[name] = figures
    return told
