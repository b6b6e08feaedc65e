"""Networks trained end to end at sites."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blindtune.errors import FederationError
from blindtune.federation.agreement import Local, NetworkModel
from blindtune.federation.learner import local_batches, scores
from blindtune.federation.networks import Images, NetworkLearner
from blindtune.models.networks import build_network

PLAIN = {"turn": 0.0, "shift": 0.0, "zoom": 0.0, "contrast": 0.0}


def images(n: int, seed: int = 0, channels: int = 1) -> Images:
    """Two classes of grey noise, one of them with a bright half."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pixels = rng.integers(0, 120, (n, channels, 64, 64))
    pixels[labels == 1, :, :32] += 100
    return Images(pixels.astype(np.uint8), labels.astype(np.int64))


def learner(changed=None, channels=1, seed=0, **local):
    torch.manual_seed(seed)
    network = build_network("test_resnet", 2, channels=channels)
    told = {"mean": [0.4] * channels, "std": [0.2] * channels, **(changed or {})}
    model = NetworkModel(network="test_resnet", channels=channels, side=64, **told)
    site = NetworkLearner(
        network, model, images(32, channels=channels), images(16, 1, channels), 2, Local(batch=8, **local)
    )
    site.begin({"images": np.array([16.0, 16.0]), "rows": np.array([32.0]), "pixels": np.ones(2 * channels)})
    return site


def judged(site, values):
    return scores(site.validation.labels, site.predict(values))


@pytest.mark.parametrize(("channels", "mixup"), [(1, 0.0), (3, 0.4)])
def test_it_learns(channels, mixup):
    site = learner({"mixup": mixup}, channels, every=6, rate=0.05, momentum=0.5, class_weights=True)
    before = judged(site, site.start)
    after = judged(site, site.train(site.start))
    assert before.cases == after.cases == 16
    assert after.loss < before.loss
    assert np.trace(after.confusion) >= 14


def test_training_starts_from_the_rounds_values_not_from_its_own():
    site = learner(PLAIN, every=1, unit="batches", rate=0.1)
    start = site.start
    for _ in range(2):
        torch.manual_seed(5)
        found = site.train(start)
        again, found = found, None
    torch.manual_seed(5)
    np.testing.assert_allclose(site.train(start), again, atol=1e-6)


def test_one_step_is_one_step_of_gradient_descent():
    site = learner(PLAIN, every=1, unit="batches", rate=0.1)
    start = site.start
    torch.manual_seed(5)
    found = site.train(start)
    torch.manual_seed(5)
    [rows] = local_batches(32, site._local, lambda n: torch.randperm(n).numpy())
    other = learner(PLAIN, every=1, unit="batches", rate=0.1)
    x, y = other._batch(rows)
    torch.nn.functional.cross_entropy(other._network(x), y).backward()
    slope = np.concatenate([p.grad.numpy().ravel() for p in other._network.parameters()])
    np.testing.assert_allclose(found, start - 0.1 * slope, atol=1e-5)


def test_a_proximal_term_pulls_towards_the_rounds_model():
    moved = []
    for mu in (0.0, 5.0):
        site = learner(PLAIN, every=4, rate=0.05, proximal=mu)
        torch.manual_seed(5)
        moved.append(np.linalg.norm(site.train(site.start) - site.start))
    assert moved[1] < 0.8 * moved[0]


def test_images_that_do_not_fit():
    with pytest.raises(FederationError, match="shape"):
        Images(np.zeros((2, 8, 8), np.uint8), np.zeros(2, np.int64))


def test_means_of_all_pixels_from_summed_images():
    site = learner({"mean": [], "std": []})
    [*pieces] = site.summands(np.arange(32))
    pixels = site.training.pixels / 255
    site.begin({"pixels": np.sum(pieces, axis=(0, 1)), "rows": np.array([32.0]), "images": np.ones(2)})
    np.testing.assert_allclose(site._mean, [pixels.mean()], rtol=1e-9)
    np.testing.assert_allclose(site._std, [pixels.std()], rtol=1e-9)
    assert abs(float(site._normal(site.training.pixels).mean())) < 1e-4


def test_single_slopes_add_up_to_a_step():
    site = learner(PLAIN, every=1, unit="batches", rate=0.1)
    slopes = np.concatenate(list(site.slopes(site.start, np.arange(8))))
    assert slopes.shape == (8, len(site.start))
    other = learner(PLAIN, every=1, unit="batches", rate=0.1)
    x, y = other._batch(np.arange(8))
    torch.nn.functional.cross_entropy(other._network(x), y).backward()
    whole = np.concatenate([p.grad.numpy().ravel() for p in other._network.parameters()])
    np.testing.assert_allclose(slopes.mean(axis=0), whole, atol=1e-5)


def test_images_of_another_size_than_the_plans():
    site = learner()
    model = NetworkModel(network="test_resnet", side=64)
    with pytest.raises(FederationError, match="the plan has 3 channels"):
        NetworkLearner(site._network, model, images(4), images(2), 2, Local())


def test_normalisations_that_stay_at_the_site_outlive_its_process(tmp_path):
    def site():
        torch.manual_seed(0)
        network = build_network("test_resnet", 2, channels=1, norm="local")
        model = NetworkModel(network="test_resnet", channels=1, side=64, norm="local", mean=[0.4], std=[0.2])
        local = Local(batch=8, rate=0.1)
        return NetworkLearner(network, model, images(32), images(16, 1), 2, local, tmp_path / "kept")

    first = site()
    values = first.train(first.start)
    after = site()
    assert not np.allclose(site().predict(values), build_and_predict(values), atol=1e-4)
    np.testing.assert_allclose(after.predict(values), first.predict(values), atol=1e-6)


def build_and_predict(values):
    """What a process that forgot would tell."""
    torch.manual_seed(0)
    network = build_network("test_resnet", 2, channels=1, norm="local")
    model = NetworkModel(network="test_resnet", channels=1, side=64, norm="local", mean=[0.4], std=[0.2])
    return NetworkLearner(network, model, images(32), images(16, 1), 2, Local()).predict(values)
