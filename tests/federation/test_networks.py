"""Networks trained end to end at sites."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blindtune.errors import FederationError
from blindtune.federation.agreement import Local
from blindtune.federation.learner import local_batches
from blindtune.federation.networks import Images, NetworkLearner, Recipe
from blindtune.models.networks import build_network

PLAIN = {"turn": 0.0, "shift": 0.0, "zoom": 0.0, "contrast": 0.0}


def images(n: int, seed: int = 0, channels: int = 1) -> Images:
    """Two classes of grey noise, one of them with a bright half."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pixels = rng.integers(0, 120, (n, channels, 64, 64))
    pixels[labels == 1, :, :32] += 100
    return Images(pixels.astype(np.uint8), labels.astype(np.int64))


def learner(recipe=None, channels=1, seed=0, **local):
    torch.manual_seed(seed)
    model = build_network("test_resnet", 2, channels=channels)
    recipe = Recipe((0.4,) * channels, (0.2,) * channels, **(recipe or {}))
    return NetworkLearner(
        model, images(32, channels=channels), images(16, 1, channels), 2, Local(batch=8, **local), recipe
    )


@pytest.mark.parametrize(("channels", "mixup"), [(1, 0.0), (3, 0.4)])
def test_it_learns(channels, mixup):
    site = learner({"mixup": mixup}, channels, every=6, rate=0.05, momentum=0.5, class_weights=True)
    before = site.evaluate(site.start)
    after = site.evaluate(site.train(site.start, site.counts()))
    assert before.cases == after.cases == 16
    assert after.loss < before.loss
    assert np.trace(after.confusion) >= 14


def test_training_starts_from_the_rounds_values_not_from_its_own():
    site = learner(PLAIN, every=1, unit="batches", rate=0.1)
    start = site.start
    for _ in range(2):
        torch.manual_seed(5)
        found = site.train(start, site.counts())
        again, found = found, None
    torch.manual_seed(5)
    np.testing.assert_allclose(site.train(start, site.counts()), again, atol=1e-6)


def test_one_step_is_one_step_of_gradient_descent():
    site = learner(PLAIN, every=1, unit="batches", rate=0.1)
    start = site.start
    torch.manual_seed(5)
    found = site.train(start, site.counts())
    torch.manual_seed(5)
    [rows] = local_batches(32, site._local, lambda n: torch.randperm(n).numpy())
    other = learner(PLAIN, every=1, unit="batches", rate=0.1)
    x, y = other._batch(rows)
    torch.nn.functional.cross_entropy(other._model(x), y).backward()
    slope = np.concatenate([p.grad.numpy().ravel() for p in other._model.parameters()])
    np.testing.assert_allclose(found, start - 0.1 * slope, atol=1e-5)


def test_a_proximal_term_pulls_towards_the_rounds_model():
    moved = []
    for mu in (0.0, 5.0):
        site = learner(PLAIN, every=4, rate=0.05, proximal=mu)
        torch.manual_seed(5)
        moved.append(np.linalg.norm(site.train(site.start, site.counts()) - site.start))
    assert moved[1] < 0.8 * moved[0]


def test_images_that_do_not_fit():
    with pytest.raises(FederationError, match="shape"):
        Images(np.zeros((2, 8, 8), np.uint8), np.zeros(2, np.int64))
