"""Rounds over sites: what is averaged, who is left out, and that nothing is lost."""

from __future__ import annotations

import json

import numpy as np
import pytest

from blindtune.errors import FederationError
from blindtune.federation.channel import Request
from blindtune.federation.contributions import known, read_model, write_model
from blindtune.federation.heads import Cases, HeadLearner
from blindtune.federation.learner import fingerprint, scores
from blindtune.federation.setup import raw_head
from blindtune.models.linear import LinearHead
from blindtune.models.softmax import probabilities

ONE_STEP = {"every": 1, "unit": "batches", "batch": 1000, "rate": 0.5}


def pooled(study, steps, **changed):
    """The head of all sites' cases in one place, by full-batch steps."""
    x = np.concatenate([c.features for c in study.training.values()])
    y = np.concatenate([c.labels for c in study.training.values()])
    local = study.local.model_copy(update={"every": steps, **changed})
    everyone = HeadLearner(study.model, Cases(x, y), Cases(x[:0], y[:0]), 3, local, seed=1)
    everyone.begin({"images": np.bincount(y, minlength=3)})
    return everyone.train(study.start)


@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("weights", [True, False])
def test_weighted_single_steps_are_the_pooled_full_batch_steps(study, secure, weights):
    made = study(secure=secure, rounds=4, local={**ONE_STEP, "class_weights": weights})
    coordinator = made.coordinator()
    rounds = list(coordinator.run())
    error = 4 * len(made.names) * made.agreement.bound * 2**-28 * 10
    np.testing.assert_allclose(coordinator.values, pooled(made, 4), atol=max(error, 1e-5), rtol=0)
    assert [r.sites for r in rounds] == [made.names] * 4
    labels = np.concatenate([c.labels for c in made.training.values()])
    np.testing.assert_array_equal(coordinator.totals["images"], np.bincount(labels, minlength=3))


def test_secure_sums_change_nothing_but_the_last_digits(study):
    plan = {"rounds": 2, "local": {"every": 2, "unit": "epochs", "batch": 8, "momentum": 0.5}}
    found = []
    for secure in (True, False):
        coordinator = study(secure=secure, **plan).coordinator()
        rounds = list(coordinator.run())
        found.append((coordinator.values, [r.confusion for r in rounds], [r.loss for r in rounds]))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-5)
    assert found[0][1] == found[1][1]
    np.testing.assert_allclose(found[0][2], found[1][2], rtol=1e-3)


def test_uniform_averaging_counts_every_site_alike(study):
    made = study(average="uniform", rounds=1, local=ONE_STEP)
    coordinator = made.coordinator()
    list(coordinator.run())
    each = [made.learner(n).train(made.start) for n in made.names]
    np.testing.assert_allclose(coordinator.values, np.mean(each, axis=0), atol=1e-6)


def test_curves_are_of_the_confederation(study):
    made = study(rounds=3, local={"every": 3, "batch": 10})
    coordinator = made.coordinator()
    rounds = list(coordinator.run())
    found = [scores(made.validation[n].labels, made.learner(n).predict(made.start)) for n in made.names]
    np.testing.assert_array_equal(rounds[0].confusion, sum(s.confusion for s in found))
    assert rounds[0].loss == pytest.approx(np.log(3), rel=1e-3)
    assert rounds[-1].loss < rounds[0].loss
    assert rounds[-1].accuracy > rounds[0].accuracy
    assert all(r.change > 0 for r in rounds)


def test_a_proximal_term_keeps_sites_near_the_rounds_model(study):
    changes = []
    for mu in (0.0, 1.0):
        made = study(rounds=1, local={"every": 20, "proximal": mu})
        changes.append(next(iter(made.coordinator().run())).change)
    assert changes[1] < 0.7 * changes[0]


class TestSitesThatFail:
    def test_a_site_that_is_away_comes_back_later(self, study):
        made = study(rounds=3)
        handler = made.channel.sites.pop("site-2")
        rounds = made.coordinator().run()
        assert next(rounds).sites == ["site-0", "site-1", "site-3"]
        made.channel.sites["site-2"] = handler
        assert next(rounds).sites == made.names

    @pytest.mark.parametrize("stage", ["advert", "sharing", "masked", "consent", "opening"])
    def test_a_site_that_dies_in_a_round_is_left_out_or_counted(self, study, stage):
        made = study(rounds=2, local=ONE_STEP)
        alive = made.channel.sites["site-1"]

        def dying(request):
            if request.kind == f"secagg/{stage}" and b'"purpose":"update"' in request.head:
                raise OSError("killed")
            return alive(request)

        made.channel.sites["site-1"] = dying
        coordinator = made.coordinator()
        done = next(iter(coordinator.run()))
        counted = stage in ("consent", "opening")
        assert ("site-1" in done.sites) == counted
        assert "failed (OSError)" in done.excluded["site-1"]
        others = {n: c for n, c in made.training.items() if counted or n != "site-1"}
        made.training = others
        np.testing.assert_allclose(coordinator.values, pooled(made, 1), atol=1e-5)

    def test_too_many_away_is_an_error_and_the_study_goes_on_later(self, study):
        made = study(rounds=2, local=ONE_STEP)
        coordinator = made.coordinator()
        next(iter(coordinator.run()))
        away = {n: made.channel.sites.pop(n) for n in made.names[:2]}
        with pytest.raises(FederationError, match="failed 3 times"):
            list(coordinator.run())
        made.channel.sites |= away
        again = made.coordinator()
        assert len(again.progress.rounds) == 1
        assert len(list(again.run())) == 1
        np.testing.assert_allclose(again.values, pooled(made, 2), atol=1e-5)

    @pytest.mark.parametrize(
        ("kind", "why"),
        [("nan", "not a number"), ("shape", "shape"), ("huge", "beyond"), ("raise", "failed")],
    )
    @pytest.mark.parametrize("secure", [True, False])
    def test_bad_updates_are_named_and_the_round_goes_on(self, study, kind, why, secure):
        made = study(rounds=1, secure=secure, local=ONE_STEP)
        learner = made.learner("site-1")
        train = learner.train

        def bad(values):
            found = train(values)
            if kind == "raise":
                raise RuntimeError("patient 17")
            if kind == "shape":
                return found[:-1]
            return found * np.float32(np.nan if kind == "nan" else 1e9)

        learner.train = bad
        made.channel.sites["site-1"] = made.site("site-1", learner=learner).handle
        done = next(iter(made.coordinator().run()))
        assert done.sites == ["site-0", "site-2", "site-3"]
        assert why in done.excluded["site-1"] or "failed" in done.excluded["site-1"]
        assert "patient 17" not in done.excluded["site-1"]

    def test_another_plan_is_named(self, study):
        made = study(rounds=1)
        other = made.agreement.model_copy(update={"rounds": 9})
        made.channel.sites["site-1"] = made.site("site-1", agreement=other).handle
        done = next(iter(made.coordinator().run()))
        assert done.excluded == {"site-1": "another plan"}

    def test_vectors_in_clear_leave_no_site_of_a_secure_study(self, study):
        made = study(rounds=1)
        list(made.coordinator().run())
        head = json.dumps(
            {
                "study": "study",
                "round": 0,
                "attempt": 9,
                "model": made.agreement.start,
                "purpose": "update",
                "length": 5,
                "threshold": 3,
            }
        ).encode()
        with pytest.raises(FederationError, match="secure sums only"):
            made.site("site-0").handle(Request("plain/vector", head))


IMAGES = {"images": np.ones(3)}


class TestRequestsThatDoNotFit:
    @pytest.mark.parametrize(
        ("head", "values", "totals", "why"),
        [
            (b"{}", np.zeros(18), IMAGES, "without its number"),
            (b'{"round": 99}', np.zeros(18), IMAGES, "does not have"),
            (b'{"round": 0}', np.zeros(18), {"images": np.ones(2)}, "not the plan's"),
            (b'{"round": 0}', np.zeros(18), {}, "not the plan's"),
            (b'{"round": 0}', np.zeros(17), IMAGES, "not the plan's"),
            (b'{"round": 0}', np.zeros(9999), IMAGES, "not the plan's"),
            (b'{"round": 0}', np.zeros(18), {**IMAGES, "moments": np.ones(1)}, "not the plan's"),
            (b'{"round": 1}', np.full(18, np.nan), IMAGES, "not numbers"),
            (b'{"round": 0}', np.ones(18), IMAGES, "first model that is not the plan's"),
        ],
    )
    def test_rounds(self, study, head, values, totals, why):
        body = write_model(values.astype(np.float32), totals)
        with pytest.raises(FederationError, match=why):
            study().site("site-0").handle(Request("update", head, body))

    @pytest.mark.parametrize("body", [b"", b"123", b"\xff" * 72, b"\x08" + bytes(7) + b"[[[[[[[["])
    def test_bodies_that_are_none(self, study, body):
        with pytest.raises(FederationError, match="not the plan's"):
            study().site("site-0").handle(Request("update", b'{"round": 0}', body))

    def test_other_sums_than_the_others_were_told_end_the_round(self, study):
        made = study(rounds=1)
        alive = made.channel.sites["site-1"]

        def told_other(request):
            if request.kind == "update":
                values, totals = read_model(made.agreement, request.body)
                body = write_model(values, {"images": totals["images"] + 1})
                request = Request(request.kind, request.head, body)
            return alive(request)

        made.channel.sites["site-1"] = told_other
        done = next(iter(made.coordinator().run()))
        assert done.sites == ["site-0", "site-2", "site-3"]
        assert "nothing is ready" in done.excluded["site-1"]

    def test_kinds(self, study):
        site = study().site("site-0")
        for request in (
            Request("secret", b"{}"),
            Request("secagg/key", b"{}"),
            Request("secagg/advert", b"[]"),
        ):
            with pytest.raises(FederationError):
                site.handle(request)


def test_a_killed_coordinator_goes_on_and_comes_to_the_same(study):
    plan = {"rounds": 4, "local": ONE_STEP}
    made = study(**plan)
    whole = made.coordinator()
    list(whole.run())
    other = study(**plan)
    for _ in range(4):
        next(iter(other.coordinator().run()))
    again = other.coordinator()
    assert list(again.run()) == []
    np.testing.assert_allclose(again.values, whole.values, atol=1e-6)


def test_directories_of_other_studies_are_refused(study):
    made, other = study(rounds=1), study(rounds=2)
    list(made.coordinator().run())
    other.directory = made.directory
    with pytest.raises(FederationError, match="another study"):
        other.coordinator()
    (made.directory / "coordinator" / "study.json").write_text("{}")
    with pytest.raises(FederationError, match="damaged"):
        made.coordinator()


def test_sites_that_no_longer_learn_stop_and_the_study_ends(study):
    made = study(rounds=30, local={"every": 40, "rate": 2.0, "patience": 2})
    coordinator = made.coordinator()
    rounds = list(coordinator.run())
    assert len(rounds) < 30
    assert rounds[-1].stopped == 4
    assert rounds[-1].change == 0
    assert any(0 < r.stopped < 4 for r in rounds)


def test_a_start_that_is_not_the_plans(study):
    made = study()
    made.start = made.start + 1
    assert fingerprint(made.start) != made.agreement.start
    with pytest.raises(FederationError, match="not the plan's"):
        made.coordinator()


def test_a_round_that_is_tried_again_trains_nothing_anew(study):
    made = study(rounds=1, local=ONE_STEP)
    learner, trained = made.learner("site-0"), []
    train = learner.train

    def counting(values):
        trained.append(len(values))
        return train(values)

    learner.train = counting
    made.channel.sites["site-0"] = made.site("site-0", learner=learner).handle
    failed = []
    for name in made.names[2:]:
        handler = made.channel.sites[name]

        def once(request, name=name, handler=handler):
            if request.kind == "secagg/masked" and b'"update"' in request.head and name not in failed:
                failed.append(name)
                raise OSError("killed")
            return handler(request)

        made.channel.sites[name] = once
    coordinator = made.coordinator()
    [done] = coordinator.run()
    assert done.attempts == 2
    assert len(trained) == 1
    np.testing.assert_allclose(coordinator.values, pooled(made, 1), atol=1e-5)


def test_centred_and_whitened_heads_come_out_on_raw_features(study):
    for model in ({"centre": True}, {"directions": 3, "epsilon": 0.01}):
        made = study(rounds=2, local={"every": 3}, model={"reach": 20.0, **model})
        coordinator = made.coordinator()
        list(coordinator.run())
        weights, biases = raw_head(made.agreement, made.model, coordinator.values, coordinator.totals)
        learner = made.learner("site-0")
        learner.begin(known(made.agreement, coordinator.totals))
        raw = probabilities(made.validation["site-0"].features @ weights.T + biases)
        np.testing.assert_allclose(raw, learner.predict(coordinator.values), atol=1e-5)


def test_every_site_that_is_there_gets_the_finished_model_and_others_later(study):
    made = study(rounds=2)
    away = made.channel.sites.pop("site-3")
    coordinator = made.coordinator()
    list(coordinator.run())
    assert coordinator.publish() == made.names[:3]
    places = {n: made.directory / n / "site" / "model" for n in made.names}
    assert [n for n, p in places.items() if p.is_dir()] == made.names[:3]
    made.channel.sites["site-3"] = away
    again = made.coordinator()
    assert list(again.run()) == []
    assert again.publish() == made.names
    weights, biases = raw_head(made.agreement, made.model, coordinator.values, coordinator.totals)
    for place in places.values():
        head = LinearHead.load(place)
        np.testing.assert_allclose(head.weight, weights, atol=1e-6)
        np.testing.assert_allclose(head.bias, biases, atol=1e-6)


def test_a_finished_model_that_is_not_the_plans_is_refused(study):
    made = study()
    with pytest.raises(FederationError, match="not the plan's"):
        made.site("site-0").handle(Request("finished", b"{}", write_model(made.start[:-1], IMAGES)))
