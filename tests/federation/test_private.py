"""Private rounds: what is charged, what is released, and that nothing leaves without noise."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from blindtune.errors import FederationError, PrivacyError
from blindtune.federation.agreement import Agreement
from blindtune.federation.channel import Request
from blindtune.federation.contributions import known, slope_mechanism, write_model
from blindtune.federation.private import local_steps, spent
from blindtune.privacy.account import Release, epsilon

ONE_STEP = {"every": 1, "unit": "batches", "rate": 0.5}
QUIET = {"noise": 0.5, "sampling": 1.0, "survivors": 2, "clip": 6.0}
"""Little noise: the result is near that of the same steps without privacy."""


def pooled_step(study, values):
    """The step on all sites' cases together, one vote a patient."""
    slopes = [
        piece
        for name in study.names
        for piece in study.learner(name).slopes(values, np.arange(len(study.training[name].labels)))
    ]
    return values - study.local.rate * np.concatenate(slopes).mean(axis=0)


@pytest.mark.parametrize("where", ["distributed", "local"])
@pytest.mark.parametrize("secure", [True, False])
def test_without_noise_to_speak_of_it_is_the_pooled_step(study, where, secure):
    if where == "distributed" and not secure:
        pytest.skip("shares of noise protect secure sums only")
    made = study(
        rounds=1, secure=secure, local=ONE_STEP, budget=(99.0, 0.1), privacy={**QUIET, "where": where}
    )
    coordinator = made.coordinator()
    list(coordinator.run())
    values = pooled_step(made, made.start)
    # Six standard deviations.
    np.testing.assert_allclose(coordinator.values, values, atol=0.06)
    assert np.abs(values - made.start).max() > 0.15


def test_distributed_noise_is_that_of_the_account_when_the_fewest_are_left(study):
    private = {"noise": 50.0, "sampling": 1.0, "survivors": 2, "clip": 1e-3}
    made = study(rounds=30, local={**ONE_STEP, "rate": 1.0}, privacy=private)
    made.channel.sites.pop("site-3")
    coordinator = made.coordinator()
    moves, before = [], made.start
    for _ in coordinator.run():
        moves.append(coordinator.values - before)
        before = coordinator.values
    patients = sum(made.agreement.privacy.patients[f"site-{i}"] for i in range(3))
    # Of three sites, where two are counted on; the gradients, cut to next to nothing, stay the same.
    expected = 50.0 * 1e-3 / patients * math.sqrt(3 / 2)
    spread = np.sqrt(np.var(moves, axis=0, ddof=1).mean())
    assert spread == pytest.approx(expected, rel=6 / math.sqrt(2 * np.size(moves)))


def test_what_each_round_costs_is_in_every_ledger(study):
    private = {"noise": 3.0, "sampling": 0.2, "survivors": 2, "validation": 9.0}
    made = study(rounds=3, local=ONE_STEP, privacy=private)
    rounds = list(made.coordinator().run())
    for ledger in made.ledgers.values():
        assert sorted(ledger.spent()) == [Release(3.0, 0.2, 3), Release(9.0, 1.0, 3)]
        assert ledger.spent_epsilon == pytest.approx(spent(made.agreement, 1e-4, 3))
    assert all(r.loss is None for r in rounds)
    # 80 patients have a vote each, give or take noise.
    assert rounds[-1].accuracy is not None
    assert 0 < np.sum(rounds[-1].confusion) < 300


def test_local_steps_are_charged_each(study):
    private = {"noise": 3.0, "sampling": 0.25, "where": "local"}
    made = study(rounds=1, local={"every": 2, "unit": "epochs", "rate": 0.1}, privacy=private)
    assert local_steps(made.agreement, made.agreement.privacy) == 8
    list(made.coordinator().run())
    assert made.ledgers["site-0"].spent() == [Release(3.0, 0.25, 8)]
    assert spent(made.agreement, 1e-4, 1) == epsilon([Release(3.0, 0.25, 8)], 1e-4)


def test_a_budget_that_is_spent_ends_the_study_and_nothing_more_leaves(study):
    private = {"noise": 1.5, "sampling": 1.0, "survivors": 2}
    made = study(rounds=9, local=ONE_STEP, budget=(3.0, 1e-2), privacy=private)
    coordinator = made.coordinator()
    with pytest.raises(FederationError, match="would take epsilon"):
        list(coordinator.run())
    done = len(coordinator.progress.rounds)
    assert 0 < done < 9
    assert spent(made.agreement, 1e-2, done) <= 3.0 < spent(made.agreement, 1e-2, done + 1)
    assert made.ledgers["site-1"].spent_epsilon <= 3.0


def test_a_round_that_is_asked_again_is_not_charged_again(study):
    made = study(rounds=1, local=ONE_STEP, privacy={"noise": 5.0, "sampling": 0.5, "survivors": 2})
    request = Request("update", b'{"round": 0}', write_model(made.start, {}))
    for _ in range(3):
        made.site("site-0").handle(request)
    assert made.ledgers["site-0"].spent() == [Release(5.0, 0.5, 1)]


def test_no_clear_count_leaves_a_private_site(study):
    made = study(rounds=1, local=ONE_STEP, privacy={"noise": 5.0, "sampling": 0.5, "survivors": 2})
    site = made.site("site-0")
    with pytest.raises(FederationError, match="sums nothing before"):
        site.handle(Request("statistics", b"{}"))
    told = []
    handler = made.channel.sites["site-1"]
    made.channel.sites["site-1"] = lambda r: told.append(handler(r)) or told[-1]
    [done] = made.coordinator().run()
    assert done.confusion == [[0.0] * 3] * 3
    assert all(b"confusion" not in t and b"loss" not in t for t in told)


def test_whitening_by_noisy_moments(study):
    made = study(
        rounds=1,
        local=ONE_STEP,
        budget=(99.0, 0.1),
        model={"directions": 4, "reach": 8.0},
        privacy={**QUIET, "moments": 0.5},
    )
    coordinator = made.coordinator()
    list(coordinator.run())
    x = np.concatenate([made.training[n].features for n in made.names])
    learner = made.learner("site-0")
    learner.begin(known(made.agreement, coordinator.totals))
    np.testing.assert_allclose(learner._whitening.mean, x.mean(axis=0), atol=0.15)
    assert made.ledgers["site-2"].spent() == [Release(0.5, 1.0, 2)]


def test_centring_by_a_noisy_mean_costs_little(study):
    model = {"centre": True, "reach": 8.0}
    private = {"noise": 50.0, "sampling": 0.5, "survivors": 2, "moments": 2.0}
    made = study(rounds=1, local=ONE_STEP, model=model, privacy=private)
    coordinator = made.coordinator()
    list(coordinator.run())
    learner = made.learner("site-0")
    learner.begin(known(made.agreement, coordinator.totals))
    x = np.concatenate([made.training[n].features for n in made.names])
    # Noise of 2 · 8 over 155 rows, of four sites where two are counted on.
    spread = 2 * 8 / 155 * math.sqrt(2)
    np.testing.assert_allclose(learner._whitening.mean, x.mean(axis=0), atol=6 * spread)
    np.testing.assert_allclose(learner._x, learner.training.features - learner._whitening.mean, atol=1e-9)
    assert Release(2.0) in made.ledgers["site-3"].spent()


def test_a_site_whose_gradients_are_no_numbers_is_named_charged_and_left_out(study):
    made = study(rounds=1, local=ONE_STEP, privacy={"noise": 5.0, "sampling": 1.0, "survivors": 2})
    learner = made.learner("site-1")
    learner.slopes = lambda values, rows: iter([np.full((len(rows), len(values)), np.nan)])
    made.channel.sites["site-1"] = made.site("site-1", learner=learner).handle
    [done] = made.coordinator().run()
    assert done.sites == ["site-0", "site-2", "site-3"]
    assert "not a number" in done.excluded["site-1"]
    # Charged before it was looked at: a ledger never counts too little.
    assert made.ledgers["site-1"].spent() == [Release(5.0, 1.0, 1)]


class TestRefusals:
    def test_a_private_plan_without_a_ledger(self, study):
        made = study(local=ONE_STEP, privacy={"noise": 1.0, "sampling": 0.5})
        with pytest.raises(FederationError, match="privacy ledger"):
            made.site("site-0", ledger=None)

    def test_more_honest_sites_than_this_hospital_counts_on(self, study):
        made = study(rounds=1, local=ONE_STEP, privacy={"noise": 1.0, "sampling": 0.5, "survivors": 2})
        other = made.agreement.privacy.model_copy(update={"survivors": 4})
        with pytest.raises(FederationError, match="counts on 4 honest"):
            made.site("site-0", agreement=made.agreement.model_copy(update={"privacy": other}))

    def test_other_sites_than_the_rosters(self, study):
        made = study(rounds=1, local=ONE_STEP, privacy={"noise": 1.0, "sampling": 0.5})
        other = made.agreement.privacy.model_copy(update={"patients": {"site-0": 5, "elsewhere": 5}})
        with pytest.raises(FederationError, match="name other sites"):
            made.site("site-0", agreement=made.agreement.model_copy(update={"privacy": other}))

    @pytest.mark.parametrize(
        ("changed", "why"),
        [
            ({"local": {"patience": 3}}, "early stopping"),
            ({"local": {"class_weights": True}}, "class weights"),
            ({"local": {"momentum": 0.5}}, "one step a round"),
            ({"local": {"every": 2, "unit": "batches"}}, "one step a round"),
            ({"secure": False}, "secure sum only"),
            ({"model": {"kind": "head", "features": 5, "directions": 2}}, "private moments"),
            ({"model": {"kind": "network", "network": "resnet18", "norm": "local"}}, "batches mix patients"),
            ({"model": {"kind": "network", "network": "resnet18"}}, "private pixels"),
            (
                {
                    "model": {
                        "kind": "network",
                        "network": "a",
                        "mixup": 0.1,
                        "mean": [0.5] * 3,
                        "std": [0.5] * 3,
                    }
                },
                "MixUp",
            ),
        ],
    )
    def test_plans_that_would_not_be_private(self, study, changed, why):
        made = study(rounds=1, local=ONE_STEP, privacy={"noise": 1.0, "sampling": 0.5})
        told = made.agreement.model_dump()
        for name, value in changed.items():
            told[name] = {**told[name], **value} if name == "local" else value
        with pytest.raises(FederationError, match=why):
            Agreement.read(json.dumps(told).encode())


def test_a_contribution_that_is_not_a_number_is_refused_before_noise(study):
    made = study(rounds=1, local=ONE_STEP, privacy={"noise": 1.0, "sampling": 1.0, "survivors": 2})
    mechanism = slope_mechanism(made.agreement, made.agreement.privacy)
    with pytest.raises(PrivacyError, match="not a number"):
        mechanism.whole(np.full((1, mechanism.length), np.nan))
