"""Blind rounds: single encrypted steps, averaged, are the step on the pooled data."""

from __future__ import annotations

import re

import numpy as np
import pytest

from blindtune.client.blind import HereProvider, sanitised
from blindtune.errors import FederationError, PlanError
from blindtune.federation.blind import BlindLearner
from blindtune.federation.contributions import known
from blindtune.federation.heads import Cases, HeadLearner
from blindtune.privacy.account import Release
from blindtune.wire.bundle import Bundle

BLIND = {"directions": 4, "loss": "one-vs-rest", "blind": True, "reach": 16.0}
STEP = {"every": 1, "unit": "batches", "batch": 1 << 14, "rate": 4.0}


def pooled(study, totals, steps):
    """Full-batch steps on all sites' rows in one place, whitened by the same moments."""
    x = np.concatenate([study.training[n].features for n in study.names])
    y = np.concatenate([study.training[n].labels for n in study.names])
    local = study.local.model_copy(update={"every": steps})
    everyone = HeadLearner(study.model, Cases(x, y), Cases(x[:0], y[:0]), 3, local)
    everyone.begin(known(study.agreement, totals))
    return everyone.train(study.start)


def blind_site(made, name, directory):
    cases = made.training[name], made.validation[name]
    return BlindLearner(made.agreement, *cases, directory / name / "blind", HereProvider(2))


def encrypted(study, directory):
    """A study after its first round in clear, and a site whose rows are encrypted for the next."""
    made = study(sites=3, rounds=1, model=BLIND, local=STEP)
    coordinator = made.coordinator()
    list(coordinator.run())
    learner = blind_site(made, "site-0", directory)
    learner.begin(known(made.agreement, coordinator.totals))
    return made, learner


@pytest.mark.parametrize("weights", [False, True])
def test_averaged_single_steps_are_the_pooled_step(study, weights):
    made = study(sites=3, rounds=4, model=BLIND, local={**STEP, "class_weights": weights})
    coordinator = made.coordinator()
    rounds = list(coordinator.run())
    np.testing.assert_allclose(coordinator.values, pooled(made, coordinator.totals, 4), atol=1e-5)
    assert rounds[-1].loss < rounds[0].loss


def test_the_same_at_real_parameters_under_encryption(study, tmp_path):
    made = study(sites=3, rounds=2, model=BLIND, local={**STEP, "class_weights": True})
    learners = {n: blind_site(made, n, tmp_path) for n in made.names}
    for name, learner in learners.items():
        made.channel.sites[name] = made.site(name, learner=learner).handle
    coordinator = made.coordinator()
    list(coordinator.run())
    wanted = pooled(made, coordinator.totals, 2)
    # The noise that hides the decryption's error, and nothing else.
    assert np.abs(coordinator.values - wanted).max() < 2e-2
    p = learners["site-0"].outsourced.plan.parameters
    assert p.security == 128
    assert p.modulus_bits < 430


PRIVATE = {"noise": 2.0, "sampling": 1.0, "survivors": 3, "moments": 8.0, "clip": 6.0}


def test_no_patient_adds_more_than_the_clip_to_a_blind_step(study):
    made = study(sites=3, rounds=1, model=BLIND, local=STEP, privacy=PRIVATE)
    rng = np.random.default_rng(3)
    values = (rng.normal(size=made.start.shape) * 0.5).astype(np.float32)
    labels, patients = rng.integers(0, 3, 40), np.arange(40) // 4
    x = (rng.normal(size=(40, 5)) * 10.0 ** rng.uniform(-2, 3, (40, 1))).astype(np.float32)
    totals = known(made.agreement, {"moments": rng.normal(size=20) * 5})

    def slope(rows):
        cases = Cases(x[rows], labels[rows], patients[rows])
        site = HeadLearner(made.model, cases, cases, 3, made.local, cut=6.0)
        site.begin(totals)
        return site.whole_slope(values)

    whole = slope(np.arange(40))
    gone = [np.linalg.norm(whole - slope(np.flatnonzero(patients != p))) for p in range(10)]
    assert max(gone) <= 6.0
    assert max(gone) > 1.0


def test_a_private_one_step_head_under_encryption_costs_what_a_gaussian_costs(study, tmp_path):
    made = study(sites=3, rounds=1, model=BLIND, local=STEP, privacy=PRIVATE)
    for name in made.names:
        learner = blind_site(made, name, tmp_path)
        made.channel.sites[name] = made.site(name, learner=learner).handle
    coordinator = made.coordinator()
    list(coordinator.run())
    for ledger in made.ledgers.values():
        assert ledger.spent() == [Release(2.0), Release(8.0)]
    patients = sum(made.agreement.privacy.patients.values())
    totals, total = known(made.agreement, coordinator.totals), np.zeros(len(made.start))
    for name in made.names:
        clear = HeadLearner(made.model, made.training[name], made.validation[name], 3, made.local, cut=6.0)
        clear.begin(totals)
        total += clear.whole_slope(made.start)
    noise = coordinator.values + 4.0 * total / patients
    # Of fifteen values: beyond these bounds once in ten million.
    assert 0.2 < noise.std() / (4.0 * 2 * 6 / patients) < 2.5


def test_a_steps_error_is_far_below_its_bound(study, tmp_path):
    made = study(sites=3, rounds=1, model=BLIND, local=STEP)
    coordinator = made.coordinator()
    list(coordinator.run())
    values = coordinator.values
    weights = np.vstack([values[:-3].reshape(3, -1).T, values[-3:]]).astype(np.float64)
    found = []
    for name in ("one", "two"):
        learner = blind_site(made, "site-0", tmp_path / name)
        learner.begin(known(made.agreement, coordinator.totals))
        found.append(learner.outsourced.step(weights))
    clear = made.learner("site-0")
    clear.begin(known(made.agreement, coordinator.totals))
    apart = clear._residuals(values.astype(np.float64), np.arange(40))
    slope = np.vstack([clear._x.T @ apart, apart.sum(axis=0)]) / 40
    np.testing.assert_allclose(found[0], weights - 4.0 * slope, atol=1e-7)
    # Under two keys: what differs is what depends on keys.
    error = np.sqrt(np.mean((found[0] - found[1]) ** 2) / 2)
    assert 0 < error < learner.outsourced.error / 4


def test_rows_go_up_once_and_again_only_when_they_changed(study, tmp_path):
    made = study(sites=3, rounds=1, model=BLIND, local=STEP)
    coordinator = made.coordinator()
    list(coordinator.run())
    totals = known(made.agreement, coordinator.totals)
    place = tmp_path / "site-0" / "blind" / "outbox" / "data"
    first, again = blind_site(made, "site-0", tmp_path), blind_site(made, "site-0", tmp_path)
    first.begin(totals)
    study_of = Bundle(place).manifest.study
    # Another process of the same hospital.
    again.begin(totals)
    assert Bundle(place).manifest.study == study_of
    again.begin({**totals, "moments": totals["moments"] * 1.5})
    assert Bundle(place).manifest.study != study_of


def test_logits_beyond_the_polynomial_are_refused_before_anything_is_sent(study, tmp_path):
    made, learner = encrypted(study, tmp_path)
    with pytest.raises(FederationError, match="leaves the polynomial") as refusal:
        learner.train(np.full_like(made.start, 50.0))
    # How far it leaves is of this hospital's rows, and the coordinator reads this.
    assert re.findall(r"\d+", refusal.value.what) == ["12"]
    assert not (tmp_path / "site-0" / "blind" / "outbox" / "start").exists()


def test_weights_that_would_not_fit_are_refused_before_anything_is_sent(study, tmp_path):
    _, learner = encrypted(study, tmp_path)
    with pytest.raises(PlanError, match=r"weights of up to 1\d\d\.\d after this step"):
        learner.outsourced.step(np.full((5, 3), 99.0))
    assert not (tmp_path / "site-0" / "blind" / "outbox" / "start").exists()


def test_what_is_told_of_decrypted_weights_hides_their_error():
    exact = np.linspace(-1, 1, 400).reshape(100, 4)
    error = 1e-9
    told = sanitised(exact, error, rounds=4)
    # On a grid, the digits below it are gone; one that is finer than the error, or rounding would tell of it.
    step = error / 8
    np.testing.assert_allclose(told / step, np.rint(told / step), atol=1e-4)
    sigma = np.sqrt(12 * 4 * 400) * 2**15 * (error + step)
    assert (told - exact).std() == pytest.approx(sigma, rel=6 / np.sqrt(800))


@pytest.mark.parametrize(
    "changed",
    [{"every": 2}, {"unit": "epochs"}, {"proximal": 0.1}, {"decay": 0.1}, {"batch": 32}],
)
def test_plans_that_cannot_be_blind(study, changed):
    with pytest.raises(ValueError, match="blind"):
        study(sites=3, model=BLIND, local={**STEP, **changed})
