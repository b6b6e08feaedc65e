"""Search over the confederation: inside the space, resumable, judged by sums, charged when private."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef, roc_auc_score

from blindtune.errors import FederationError, PrivacyError
from blindtune.federation.channel import LocalChannel, Request
from blindtune.federation.coordinator import Coordinator, Round
from blindtune.federation.learner import BINS, macro_auc, scores
from blindtune.federation.search import Options, SearchPlan, Span
from blindtune.federation.secagg.journal import Journal
from blindtune.federation.secagg.member import Member
from blindtune.federation.site import Site
from blindtune.federation.spending import afford
from blindtune.federation.trials import Search, SearchSite, mcc, objective
from blindtune.privacy.account import epsilon

ONE_STEP = {"every": 1, "unit": "batches"}
PRIVATE = {"noise": 15.0, "sampling": 1.0, "survivors": 2, "validation": 20.0}
SPACE = {"rate": Span(low=1e-4, high=1.0, log=True), "momentum": Options(options=[0.0, 0.5])}


class Searching:
    """A search over the sites of a study."""

    def __init__(self, made, **told):
        self.made = made
        self.plan = SearchPlan(base=made.agreement, **{"space": SPACE, "trials": 4, **told})
        self.begun, self.done = [], {}

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

    def train(self, number, agreement, wrapped, directory):
        channel = wrapped(LocalChannel({n: self.site(n) for n in self.made.names}))
        coordinator = Coordinator(agreement, self.made.roster, channel, directory, self.made.start)
        self.begun.append((agreement.study, len(coordinator.progress.rounds)))
        self.done[number] = coordinator.progress.rounds
        for _ in coordinator.run():
            self.after_a_round()
        return coordinator

    def after_a_round(self):
        """Something may happen here."""

    def search(self):
        return Search(self.plan, self.made.directory / "search", seed=1)

    def afford(self):
        search = self.search()
        begun = search.begun
        return afford(self.plan, self.made.ledgers, search.left - len(begun), begun)

    def trials(self):
        return self.search().run(self.train)


def test_trials_are_studies_inside_the_space_and_the_best_is_known(study):
    searching = Searching(study(rounds=3, local={"every": 2}))
    trials = list(searching.trials())
    assert [t.number for t in trials] == [0, 1, 2, 3]
    assert len({json.dumps(t.values) for t in trials}) == 4
    assert all(1e-4 <= t.values["rate"] <= 1 and len(searching.done[t.number]) == 3 for t in trials)
    assert all(
        t.score == pytest.approx(mcc(np.array(searching.done[t.number][-1].confusion))) for t in trials
    )
    assert [name for name, _ in searching.begun] == ["study-t0", "study-t1", "study-t2", "study-t3"]
    search = searching.search()
    assert list(search.run(searching.train)) == []
    assert search.finished == trials
    assert search.best == max(trials, key=lambda t: t.score)
    assert search.best.score > 0.3
    best = searching.plan.best(search.best.values)
    assert best.study == "study-best"
    assert best.local.rate == search.best.values["rate"]
    assert best.local.every == 2


def test_a_search_that_was_stopped_goes_on_in_the_round_where_it_stopped(study):
    searching = Searching(study(rounds=3), objective="auc")
    first = next(searching.trials())
    assert first.number == 0
    searching.begun.clear()

    def stop():
        raise KeyboardInterrupt

    searching.after_a_round = stop
    with pytest.raises(KeyboardInterrupt):
        next(searching.trials())
    del searching.after_a_round
    assert searching.search().left == 3
    rest = list(searching.trials())
    assert searching.begun == [("study-t1", 0), ("study-t1", 1), ("study-t2", 0), ("study-t3", 0)]
    assert [t.number for t in rest] == [1, 2, 3]
    # The same seed, in processes that began anew: nothing is proposed twice.
    assert len({t.values["rate"] for t in [first, *rest]}) == 4
    assert all(0 < t.score <= 1 for t in rest)


def test_one_that_was_stopped_while_it_proposed_goes_on(study):
    searching = Searching(study(rounds=2), trials=2)
    searching.search()._study.ask()
    trials = list(searching.trials())
    assert [t.number for t in trials] == [1]
    assert [t.score is None for t in searching.search().finished] == [True, False]


def test_a_trial_that_cannot_be_done_has_failed_and_others_go_on(study):
    searching = Searching(study(rounds=2), trials=3)
    train = searching.train

    def failing(number, *given):
        if number == 1:
            raise FederationError("round 0 failed 3 times")
        return train(number, *given)

    searching.train = failing
    trials = list(searching.trials())
    assert [t.why for t in trials] == ["", "round 0 failed 3 times", ""]
    assert trials[1].score is None
    assert searching.search().best.number != 1


def test_counts_of_nobody(study):
    searching = Searching(study(rounds=2))
    last = Round(1, [], {}, [[0.0] * 3] * 3, None, None, 0, 0.0, 1)
    with pytest.raises(FederationError, match="no validation counts"):
        objective(searching.plan, last)
    private = Searching(study(rounds=2, local=ONE_STEP, privacy=PRIVATE), space={"rate": SPACE["rate"]})
    assert objective(private.plan, last) == 0


class TestPrivateSearches:
    def searching(self, study, **told):
        told = {"sites": 3, "rounds": 2, "local": ONE_STEP, "privacy": PRIVATE, **told}
        return Searching(study(**told), trials=2, space={"rate": SPACE["rate"]})

    def test_every_trial_is_charged_as_it_was_told(self, study):
        searching = self.searching(study)
        told = searching.afford()
        list(searching.trials())
        for name, ledger in searching.made.ledgers.items():
            assert sum(r.count for r in ledger.spent() if r.noise == 15.0) == 4
            assert ledger.spent_epsilon == pytest.approx(told[name].search)
            assert told[name].search < told[name].training

    def test_what_a_stopped_trial_was_charged_is_not_counted_again(self, study):
        searching = self.searching(study)
        before = searching.afford()

        def stop():
            raise KeyboardInterrupt

        searching.after_a_round = stop
        with pytest.raises(KeyboardInterrupt):
            next(searching.trials())
        assert all(ledger.spent() for ledger in searching.made.ledgers.values())
        assert searching.afford() == before

    def test_a_search_beyond_a_budget_is_not_begun(self, study):
        searching = self.searching(study)
        one = epsilon(searching.plan.releases(), 1e-4)
        poor = self.searching(study, budget=(1.1 * one, 1e-4))
        with pytest.raises(PrivacyError, match=r"would take epsilon .* Nothing was begun"):
            poor.afford()
        assert not any(ledger.spent() for ledger in poor.made.ledgers.values())

    def test_the_dearest_of_searched_steps_is_what_is_told(self, study):
        private = {**PRIVATE, "where": "local", "sampling": 0.5}
        made = study(rounds=4, local={"every": 1, "unit": "batches"}, privacy=private)
        space = {"every": Options(options=[1, 5, 2]), "unit": Options(options=["batches", "epochs"])}
        plan = SearchPlan(base=made.agreement, space=space, trials=2)
        # Five passes of two steps each, in four rounds.
        assert [r.count for r in plan.releases() if r.sampling == 0.5] == [40]


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
        made = study(rounds=2)
        Searching(made, trials=1).search()
        with pytest.raises(FederationError, match="another search"):
            Searching(made, trials=2).search()
        (made.directory / "search" / "search.sqlite").write_bytes(b"no database, but long enough" * 999)
        with pytest.raises(FederationError, match="cannot be used"):
            Searching(made, trials=1).search()

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

    @pytest.mark.parametrize(
        ("space", "why"),
        [
            (b"{", "not JSON"),
            (b"[]", "should be an object"),
            (b'{"rate": {"low": 2, "high": 1}}', "a larger high"),
            (b'{"rate": {"low": 0.1, "high": NaN}}', "finite number"),
            (b'{"rate": {"low": 0.1, "high": 200}}', "rate = 200"),
            (b'{"every": {"low": 1, "high": 5}}', "every = 1.0"),
            (b'{"every": {"options": [1, 0]}}', "every = 0"),
            (b'{"colour": {"options": [1]}}', "colour"),
        ],
    )
    def test_spaces_that_no_plan_has(self, study, space, why):
        with pytest.raises(FederationError, match=why):
            SearchPlan.of(study().agreement, space, 5, "mcc")

    def test_one_round_is_nothing_to_judge_by(self, study):
        with pytest.raises(FederationError, match="two rounds or more"):
            SearchPlan.of(study(rounds=1).agreement, b'{"rate": {"low": 0.1, "high": 1}}', 5, "mcc")

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
