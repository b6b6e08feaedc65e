"""Private studies of a network, end to end: images in, noisy secure sums, a ledger at every site."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from timm.models import register_model

from blindtune.errors import FederationError
from blindtune.federation.agreement import Local, NetworkModel, Privacy
from blindtune.federation.networks import Images, NetworkLearner
from blindtune.federation.setup import draft
from blindtune.federation.simulation import simulated
from blindtune.models.networks import build_network
from blindtune.privacy.account import Release, epsilon
from blindtune.privacy.ledger import Ledger

SITES = {"east": 9, "north": 12, "west": 15}
DELTA = 1e-3
PLAIN = {"turn": 0.0, "shift": 0.0, "zoom": 0.0, "contrast": 0.0}
ONE_STEP = {"every": 1, "unit": "batches", "rate": 0.5}


@register_model
def blindtune_tiny(pretrained=False, *, num_classes, in_chans, **ignored):
    """Fifty-eight parameters for one channel and two classes; its normalisation becomes one by groups."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(in_chans, 4, 3, stride=2),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, num_classes),
    )


def images(patients, seed, each=1):
    """Grey noise; the second class has a bright half."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(patients), each)
    labels = people % 2
    pixels = rng.integers(0, 120, (len(people), 1, 16, 16))
    pixels[labels == 1, :, :8] += 100
    return Images(pixels.astype(np.uint8), labels, people)


class Study:
    """A plan over three sites in a directory, as their processes make it whenever they start."""

    def __init__(self, directory, rounds=3, budget=99.0, each=1, more=1, local=None, **privacy):
        self.directory, self.patients = directory, {s: n * more for s, n in SITES.items()}
        told = {"noise": 4.0, "sampling": 0.5, "survivors": 3, "patients": self.patients, **privacy}
        model = NetworkModel(network="blindtune_tiny", channels=1, side=16, mean=[0.4], std=[0.2], **PLAIN)
        torch.manual_seed(0)
        self.plan, self.start = draft(
            "private",
            ["dark", "bright"],
            model,
            rounds=rounds,
            local=Local(**(local or ONE_STEP)),
            privacy=Privacy(**told),
        )
        self.training = {s: images(n, n, each) for s, n in self.patients.items()}
        self.books = {s: directory / f"{s}.ledger" for s in SITES}
        for book in self.books.values():
            Ledger.create(book, budget, DELTA).close()

    def learner(self, site):
        network = build_network("blindtune_tiny", 2, channels=1, size=16)
        validation = images(6, 100)
        model, local = self.plan.model, self.plan.local
        return NetworkLearner(network, model, self.training[site], validation, 2, local)

    def opened(self):
        learners = {s: self.learner(s) for s in SITES}
        return simulated(self.plan, self.start, learners, self.directory, ledgers=self.books)

    def charges(self):
        found = []
        for book in self.books.values():
            ledger = Ledger(book)
            found.append(ledger.spent())
            ledger.close()
        return found


def cut_step(study, clip):
    """One step on all patients' single gradients, each cut."""
    slopes = []
    for site, held in study.training.items():
        slopes += study.learner(site).slopes(study.start, np.arange(len(held.labels)))
    lengths = np.array([np.linalg.norm(s) for s in slopes])
    kept = [s[0] * min(1.0, clip / n) for s, n in zip(slopes, lengths, strict=True)]
    return study.start - 0.5 * np.sum(kept, axis=0) / sum(study.patients.values()), lengths


@pytest.mark.parametrize("where", ["distributed", "local"])
def test_with_next_to_no_noise_it_is_the_step_on_gradients_cut_by_image(tmp_path, where):
    noise = 0.5
    made = Study(tmp_path, rounds=1, more=10, where=where, noise=noise, clip=1.0, sampling=1.0)
    wanted, lengths = cut_step(made, 1.0)
    # Some are cut, and some are not.
    assert 0.3 < (lengths > 1.0).mean() < 0.7
    with made.opened() as coordinator:
        [done] = coordinator.run()
    assert done.sites == list(SITES)
    # Six standard deviations of the noise of three sites, and the margin of the clip for rounding.
    spread = 0.5 * noise * np.sqrt(3) / sum(made.patients.values())
    np.testing.assert_allclose(coordinator.values, wanted, atol=6 * spread + 0.5 * 0.02)
    assert np.abs(wanted - made.start).max() > 0.03


def test_a_study_over_images_is_charged_by_patient_and_its_model_comes_to_all(tmp_path):
    made = Study(tmp_path, rounds=2, each=3, validation=9.0)
    with made.opened() as coordinator:
        rounds = list(coordinator.run())
        assert coordinator.publish() == list(SITES)
    assert made.charges() == [[Release(4.0, 0.5, 2), Release(9.0, 1.0, 2)]] * 3
    assert [r.loss for r in rounds] == [None, None]
    assert all(r.change > 0 for r in rounds)
    for site in SITES:
        [found] = (tmp_path / "sites" / site).rglob("network.safetensors")
        told = np.concatenate([a.ravel() for a in load_file(found).values()])
        assert sorted(told) == pytest.approx(sorted(coordinator.values))


def test_a_budget_that_is_spent_ends_it_and_the_model_stays(tmp_path):
    two = [Release(8.0, 1.0, 2)]
    made = Study(tmp_path, rounds=9, budget=1.01 * epsilon(two, DELTA), noise=8.0, sampling=1.0)
    with made.opened() as coordinator:
        with pytest.raises(FederationError, match="would take epsilon"):
            list(coordinator.run())
        assert len(coordinator.progress.rounds) == 2
    assert made.charges() == [two] * 3
    # Whoever starts again gets no further.
    with made.opened() as again:
        np.testing.assert_array_equal(again.values, coordinator.values)
        with pytest.raises(FederationError, match="would take epsilon"):
            next(again.run())
        np.testing.assert_array_equal(again.values, coordinator.values)
    assert made.charges() == [two] * 3


def test_a_study_that_is_stopped_goes_on_and_pays_every_round_once(tmp_path):
    made = Study(tmp_path, rounds=3)
    with made.opened() as coordinator:
        first = list(itertools.islice(coordinator.run(), 1))
        values = coordinator.values
    with made.opened() as again:
        np.testing.assert_array_equal(again.values, values)
        rounds = list(again.run())
    assert [r.number for r in (*first, *rounds)] == [0, 1, 2]
    assert made.charges() == [[Release(4.0, 0.5, 3)]] * 3


def test_local_noise_is_in_every_step_between_two_syncs(tmp_path):
    local = {"every": 2, "unit": "epochs", "rate": 0.1, "momentum": 0.5}
    made = Study(tmp_path, rounds=1, where="local", local=local, sampling=0.25)
    with made.opened() as coordinator:
        list(coordinator.run())
    # A pass is four steps of a quarter each.
    assert made.charges() == [[Release(4.0, 0.25, 8)]] * 3
    assert np.linalg.norm(coordinator.values - made.start) > 0
