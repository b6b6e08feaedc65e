"""Search over the confederation: inside the space, resumable, judged by sums, charged when private."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef, roc_auc_score

from blindtune.errors import FederationError
from blindtune.federation.channel import LocalChannel, Request
from blindtune.federation.coordinator import Coordinator
from blindtune.federation.learner import BINS, macro_auc, scores
from blindtune.federation.search import Options, SearchPlan, SearchSite, Span, mcc, search
from blindtune.federation.secagg.journal import Journal
from blindtune.federation.secagg.member import Member
from blindtune.federation.site import Site

SPACE = {"rate": Span(low=1e-4, high=1.0, log=True), "momentum": Options(options=[0.0, 0.5])}


class Searching:
    """A search over the sites of a study."""

    def __init__(self, made, **told):
        self.made = made
        self.plan = SearchPlan(base=made.agreement, space=SPACE, **{"trials": 4, **told})
        self.begun = []

    def site(self, name):
        made = self.made

        def make(agreement):
            place = made.directory / name / agreement.study
            place.mkdir(parents=True, exist_ok=True)
            made.journals.append(Journal(made.directory / name / "journal.sqlite"))
            member = Member(name, made.identities[name], made.roster, made.journals[-1], made.policy)
            learner = made.learner(name)
            learner._local = agreement.local
            return Site(member, agreement, learner, place, made.ledgers.get(name))

        return SearchSite(self.plan, make).handle

    def run(self, agreement, wrapped, directory):
        self.begun.append(agreement)
        channel = wrapped(LocalChannel({n: self.site(n) for n in self.made.names}))
        return Coordinator(agreement, self.made.roster, channel, directory, self.made.start)

    def trials(self):
        return search(self.plan, self.made.directory / "search", self.run, seed=1)


def test_trials_are_studies_inside_the_space_and_the_best_is_known(study):
    searching = Searching(study(rounds=3, local={"every": 2}))
    trials = list(searching.trials())
    assert [t.number for t in trials] == [0, 1, 2, 3]
    assert len({json.dumps(t.values) for t in trials}) > 1
    assert all(1e-4 <= t.values["rate"] <= 1 and len(t.rounds) == 3 for t in trials)
    assert all(t.score == pytest.approx(mcc(np.array(t.rounds[-1].confusion))) for t in trials)
    assert max(t.score for t in trials) > 0.3
    assert len({a.study for a in searching.begun}) == 4
    assert list(searching.trials()) == []


def test_a_search_that_was_stopped_goes_on_in_the_round_where_it_stopped(study):
    searching = Searching(study(rounds=3), objective="auc")
    assert next(searching.trials()).number == 0
    trained, run = [], searching.run

    def stopped(agreement, wrapped, directory):
        coordinator = run(agreement, wrapped, directory)
        next(coordinator.run())
        raise KeyboardInterrupt

    searching.run = stopped
    with pytest.raises(KeyboardInterrupt):
        next(searching.trials())

    def counting(agreement, wrapped, directory):
        coordinator = run(agreement, wrapped, directory)
        trained.append((agreement.study, len(coordinator.progress.rounds)))
        return coordinator

    searching.run = counting
    rest = list(searching.trials())
    assert trained == [("study-t1", 1), ("study-t2", 0), ("study-t3", 0)]
    assert [t.number for t in rest] == [1, 2, 3]
    assert all(0 < t.score <= 1 and len(t.rounds) == 3 for t in rest)


def test_a_private_search_spends_the_budget_of_every_trial(study):
    private = {"noise": 5.0, "sampling": 0.5, "survivors": 2, "validation": 9.0}
    local = {"every": 1, "unit": "batches"}
    searching = Searching(study(rounds=2, local=local, privacy=private), trials=3)
    searching.plan = SearchPlan(base=searching.made.agreement, space={"rate": SPACE["rate"]}, trials=3)
    list(searching.trials())
    for ledger in searching.made.ledgers.values():
        assert sum(r.count for r in ledger.spent() if r.sampling == 0.5) == 6


class TestRefusals:
    @pytest.mark.parametrize(
        ("head", "why"),
        [
            ({"trial": 9, "values": {"rate": 0.1, "momentum": 0.0}}, "outside the search"),
            ({"trial": 0, "values": {"rate": 50.0, "momentum": 0.0}}, "outside the search"),
            ({"trial": 0, "values": {"rate": 0.1, "momentum": 0.25}}, "outside the search"),
            ({"trial": 0, "values": {"rate": 0.1}}, "outside the search"),
            ({"trial": 0, "values": {"rate": 0.1, "momentum": 0.0, "every": 9}}, "outside the search"),
            ({"trial": 0}, "says of no trial"),
        ],
    )
    def test_what_was_not_agreed_on_is_never_trained(self, study, head, why):
        site = Searching(study()).site("site-0")
        with pytest.raises(FederationError, match=why):
            site(Request("trial/hello", json.dumps({"head": "{}", **head}).encode()))

    def test_requests_outside_a_trial(self, study):
        with pytest.raises(FederationError, match="of kind hello"):
            Searching(study()).site("site-0")(Request("hello", b"{}"))

    def test_another_search_in_the_directory(self, study):
        made = study(rounds=1)
        list(Searching(made, trials=1).trials())
        with pytest.raises(FederationError, match="another search"):
            list(Searching(made, trials=2).trials())

    @pytest.mark.parametrize(
        "told",
        [
            {"space": {"colour": SPACE["rate"]}},
            {"space": {}},
            {"trials": 0},
            {"objective": "accuracy"},
        ],
    )
    def test_plans_that_cannot_be(self, study, told):
        base = {"base": study().agreement, "space": SPACE, "trials": 2}
        with pytest.raises(ValueError, match=r".+"):
            SearchPlan(**{**base, **told})

    def test_a_private_search_without_noisy_counts(self, study):
        made = study(local={"every": 1, "unit": "batches"}, privacy={"noise": 1.0, "sampling": 0.5})
        told = {
            "base": made.agreement.model_dump(),
            "space": {"rate": {"low": 0.1, "high": 1.0}},
            "trials": 2,
        }
        with pytest.raises(FederationError, match="noisy validation counts"):
            SearchPlan.read(json.dumps(told).encode())


def test_mcc_and_auc_of_counts_are_those_of_cases():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 500)
    told = rng.dirichlet(np.ones(3), 500) + 0.5 * np.eye(3)[labels]
    # In the middle of bins, so that no two bins of one class hold ties.
    told = (np.floor(told / told.sum(axis=1, keepdims=True) * BINS) + 0.5) / BINS
    found = scores(labels, told)
    assert mcc(found.confusion) == pytest.approx(matthews_corrcoef(labels, told.argmax(axis=1)))
    each = [roc_auc_score(labels == k, told[:, k]) for k in range(3)]
    assert macro_auc(found.histogram) == pytest.approx(np.mean(each))
    assert mcc(np.zeros((2, 2))) is None
    assert macro_auc(np.zeros((2, 2, BINS))) is None
