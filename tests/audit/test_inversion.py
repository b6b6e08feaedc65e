"""Gradients give images away: positive controls, and what the attacker sees is what a site sends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blindtune.audit.inversion import (
    Prior,
    Strength,
    classified,
    invert,
    patches,
    recovered_labels,
)
from blindtune.audit.observed import Network, Sight
from blindtune.audit.quality import mse, nearest, psnr
from blindtune.audit.scans import Scans
from blindtune.federation.agreement import Local, NetworkModel
from blindtune.federation.networks import Images, NetworkLearner
from blindtune.models.networks import build_network, to_vector

DEIT = "deit_tiny_patch16_224"


@pytest.fixture(scope="module")
def deit():
    return Network(DEIT, 3, 32)


@pytest.fixture(scope="module")
def drawn(chests):
    """Public images, attacked ones and their labels."""
    public, held = chests.halves()
    return chests.pixels(public, 32), chests.pixels(held, 32), chests.labels[held]


@pytest.fixture(scope="module")
def many():
    """Two scans each of 60 invented patients: a linear map wants some."""
    return Scans.invented(60)


OPEN = Sight("none")


def seen(network, images, labels, what=OPEN, **given):
    return network.sight(torch.from_numpy(images)[:, None], torch.from_numpy(labels), what, **given)


def test_control_a_transformers_gradient_of_one_image_is_the_image(deit, drawn):
    public, held, labels = drawn
    prior = Prior(public, 10, deit)
    for i in range(3):
        found, told, distance = invert(
            deit, seen(deit, held[i : i + 1], labels[i : i + 1]), 1, 1, prior, Strength()
        )
        assert psnr(found, held[i : i + 1])[0] > 50
        assert told == labels[i]
        assert distance < 1e-4


def test_control_clipping_without_noise_hides_nothing_and_noise_does(deit, drawn):
    public, held, labels = drawn
    one, label = held[:1], labels[:1]
    clipped = patches(deit, seen(deit, one, label, Sight("clip", clip=0.1)))
    assert psnr(clipped, one)[0] > 40
    noisy = patches(deit, seen(deit, one, label, Sight("noise", clip=0.1, noise=1.0), seed=1))
    assert mse(noisy, one)[0] > mse(Prior(public, 5, deit).mean[None], one)[0]


@pytest.mark.parametrize(
    ("norm", "mode", "side"),
    [("group", "training", 32), ("local", "training", 48), ("local", "evaluation", 32)],
)
def test_control_what_the_classifier_was_given_decodes_to_the_scan(many, norm, mode, side):
    public, held = many.halves()
    victims, gallery = many.one_each(held)[:20], many.pixels(held, side)
    network = Network("resnet18", 3, side, norm=norm, mode=mode)
    prior, quick = Prior(many.pixels(public, side), 60, network), Strength(iterations=0)
    hits = {False: 0, True: 0}
    for row in victims:
        [at] = np.flatnonzero(held == row)
        pixels = torch.from_numpy(gallery[at])[None, None]
        gradient = seen(network, gallery[at : at + 1], many.labels[row : row + 1])
        with torch.no_grad():
            np.testing.assert_allclose(classified(gradient), network.features(pixels)[0], atol=1e-4)
        told = [None, network.statistics(pixels).numpy()][: 1 + (norm == "local" and mode == "training")]
        for statistics in told:
            found, _, _ = invert(network, gradient, 1, 1, prior, quick, statistics=statistics)
            same = many.patients[held[nearest(found, gallery)[0]]] == many.patients[row]
            hits[statistics is not None] += int(same)
    # Chance is two thirds of a patient. Where sites average batch statistics, these tell more.
    assert hits[False] >= 3
    assert hits[True] >= 5 * (norm == "local" and mode == "training")


def test_control_a_search_comes_closer_than_where_it_begins(drawn):
    public, held, labels = drawn
    network = Network("test_resnet", 3, 32, norm="local", mode="evaluation")
    prior = Prior(public, 20, network)
    gradient = seen(network, held[:1], labels[:1])
    tries = [Strength(iterations=n, restarts=r) for n, r in ((0, 1), (4, 2), (100, 1))]
    begun, little, much = (invert(network, gradient, 1, 1, prior, strength) for strength in tries)
    assert much[1] == labels[0]
    assert nearest(much[0], held)[0] == 0
    assert much[2] < 0.7 * begun[2]
    assert much[2] < little[2] <= begun[2]
    assert mse(much[0], held[:1])[0] < mse(begun[0], held[:1])[0]


def test_labels_of_a_batch_follow_from_the_bias(deit, drawn):
    public, held, _ = drawn
    for labels in ([0, 0, 1], [2, 2, 2], [0, 1, 2]):
        gradient = seen(deit, held[:3], np.array(labels), Sight("sum", images=1, sites=3))
        np.testing.assert_array_equal(recovered_labels(deit, gradient, 3, Prior(public, 5, deit)), labels)


@pytest.mark.parametrize("name", ["test_resnet", DEIT])
def test_what_is_seen_of_one_image_is_what_a_site_computes(name, drawn):
    _, held, labels = drawn
    pixels = np.rint(held[:2] * 255).astype(np.uint8)[:, None]
    images = Images(pixels, labels[:2])
    still = {"turn": 0.0, "shift": 0.0, "zoom": 0.0, "contrast": 0.0, "mean": [0.5], "std": [0.25]}
    model = NetworkModel(network=name, channels=1, side=32, **still)
    network = Network(name, 3, 32)
    copy = build_network(name, 3, channels=1, size=32)
    copy.load_state_dict(network.module.state_dict())
    site = NetworkLearner(copy, model, images, images, 3, Local())
    [slope] = site.slopes(to_vector(copy, network.shared), np.array([0]))
    ours = seen(network, (pixels[:1, 0] / 255).astype(np.float32), labels[:1])
    at, found = 0, dict(network.module.named_parameters())
    for parameter in network.shared:
        size = found[parameter].numel()
        if parameter in network.looked_at:
            mine = ours[network.looked_at.index(parameter)].numpy().ravel()
            np.testing.assert_allclose(mine, slope[0, at : at + size], atol=2e-5)
        at += size


def test_a_secure_sum_is_the_mean_of_the_sites_gradients(chests):
    held, labels = chests.pixels(np.arange(4), 64), chests.labels[:4]
    network = Network("test_resnet", 3, 64, norm="local", mode="training")
    before = {n: v.clone() for n, v in network.module.state_dict().items()}
    both = seen(network, held[:4], labels[:4], Sight("sum", images=2, sites=2))
    apart = [seen(network, held[i : i + 2], labels[i : i + 2], Sight("site", images=2)) for i in (0, 2)]
    for whole, one, other in zip(both, *apart, strict=True):
        torch.testing.assert_close(whole, (one + other) / 2, atol=1e-5, rtol=1e-3)
    for name, value in network.module.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(value, before[name])
