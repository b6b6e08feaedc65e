"""``blindtune federate search``: trials in one process, stopped and resumed, and what privacy allows."""

from __future__ import annotations

import json

import pytest

SITES = ("east", "north", "west")
SPACE = {"rate": {"low": 0.01, "high": 1, "log": True}, "momentum": {"options": [0.0, 0.5]}}


@pytest.fixture
def space(tmp_path):
    """A space's file."""
    path = tmp_path / "space.json"
    path.write_text(json.dumps(SPACE))
    return path


@pytest.fixture
def search(blindtune, plan, sites, space, tmp_path):
    """Runs the command."""

    def run(*more):
        given = (plan, sites, "--out", tmp_path / "out", "--space", space)
        return blindtune("federate", "search", *given, *more)

    return run


def lines(ran):
    """JSON of each line."""
    assert ran.code == 0, ran.err
    return [json.loads(line) for line in ran.out.splitlines()]


def test_a_search_ends_in_a_plan_that_can_be_run(blindtune, search, sites, tmp_path):
    first, *trials, best = lines(search("--trials", 3, "--json"))
    assert (first["sites"], first["trials"], first["left"]) == (list(SITES), 3, 3)
    assert [t["trial"] for t in trials] == [0, 1, 2]
    assert best["score"] == max(t["score"] for t in trials)
    assert best["values"] == trials[best["best"]]["values"]
    shown = json.loads(blindtune("federate", "plan", best["plan"], "--json").out)
    assert shown["digest"] == best["digest"]
    assert shown["plan"]["study"] == "trial-best"
    assert shown["plan"]["local"]["rate"] == best["values"]["rate"]
    ran = blindtune("federate", "run", best["plan"], sites, "--out", tmp_path / "final", "--json")
    assert [r["round"] for r in lines(ran)[1:]] == [0, 1, 2]
    # Nothing is left to do, and the table tells of all.
    again = search("--trials", 3)
    assert again.code == 0
    rows = [line.split() for line in again.out.splitlines() if line.strip()[:1] == "│"]
    assert [row[1] for row in rows] == ["0", "1", "2"]
    assert sum("best" in row for row in rows) == 1


@pytest.mark.parametrize(
    "place",
    [
        "blindtune.federation.coordinator:Coordinator._keep",
        "blindtune.federation.trials:_proposed",
        "blindtune.federation.heads:HeadLearner.train",
        "blindtune.federation.trials:objective",
    ],
)
def test_a_search_that_was_stopped_goes_on(search, press, monkeypatch, place):
    with monkeypatch.context():
        press(place, 3)
        ran = search("--trials", 3, "--objective", "auc", "--json")
    assert ran.code == 130, ran.err
    assert ran.err.splitlines()[-1] == "error: stopped; run the same command again to go on"
    before = [json.loads(line) for line in ran.out.splitlines()]
    first, *trials, best = lines(search("--trials", 3, "--objective", "auc", "--json"))
    assert first["left"] == 3 - len(before[1:])
    numbers = [t["trial"] for t in [*before[1:], *trials]]
    assert numbers == sorted(set(numbers))
    assert best["best"] in numbers


def test_trials_that_all_diverge_are_told(search, space):
    space.write_text(json.dumps({"rate": {"options": [100.0]}, "momentum": {"options": [0.99]}}))
    ran = search("--trials", 2)
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("error: search: no trial could be finished")
    assert "trial 1 failed: round" in ran.err


def test_a_search_as_a_plan_for_a_network(blindtune, plan, space, tmp_path):
    given = ("--space", space, "--trials", 5, "--objective", "auc")
    blindtune("federate", "plan", plan, *given).refused("--space", "--out")
    ran = blindtune("federate", "plan", plan, *given, "--out", tmp_path / "search", "--json")
    told = json.loads(ran.out)
    assert (told["plan"]["trials"], told["plan"]["objective"]) == (5, "auc")
    assert told["plan"]["base"] == json.loads(plan.read_text())
    shown = blindtune("federate", "plan", tmp_path / "search" / "search.json", "--json")
    assert json.loads(shown.out) == told
    assert (tmp_path / "search" / "start.safetensors").read_bytes() == plan.with_name(
        "start.safetensors"
    ).read_bytes()


class TestRefusals:
    @pytest.mark.parametrize(
        ("told", "why"),
        [
            ("{", "not JSON"),
            ({"rate": {"low": 1.0, "high": 0.1}}, "larger high"),
            ({"speed": {"options": [1.0]}}, "speed"),
            ({"every": {"options": [0]}}, "every = 0"),
            ({}, "space"),
        ],
    )
    def test_a_space_that_is_none(self, search, space, told, why):
        space.write_text(told if isinstance(told, str) else json.dumps(told))
        search().refused(why)

    def test_what_is_not_there(self, search, space, tmp_path):
        search("--objective", "accuracy").refused("objective")
        space.unlink()
        search().refused("space.json", "cannot be read")
        assert not (tmp_path / "out").exists()

    def test_another_search_in_the_directory(self, search):
        assert search("--trials", 1, "--json").code == 0
        search("--trials", 2).refused("another search is kept here")


class TestPrivateSearches:
    @pytest.fixture
    def draft(self, draft):
        """Noise for every step and every count."""
        private = {"noise": 15.0, "sampling": 1.0, "survivors": 2, "validation": 20.0}
        local = {"every": 1, "unit": "batches", "rate": 0.5}
        patients = {"east": 40, "north": 50, "west": 60}
        return {**draft, "rounds": 2, "local": local, "privacy": {**private, "patients": patients}}

    @pytest.fixture
    def space(self, space):
        """One step a round has no momentum."""
        space.write_text(json.dumps({"rate": {"low": 0.1, "high": 1.0}}))
        return space

    def open(self, blindtune, place, *budgets):
        place.mkdir()
        for name, budget in zip(SITES, budgets, strict=True):
            file = place / f"{name}.ledger"
            assert blindtune("dp", "open", file, "--epsilon", budget, "--delta", 1e-3).code == 0
        return place

    def test_it_says_what_it_will_spend_and_spends_it(self, blindtune, search, tmp_path):
        books = self.open(blindtune, tmp_path / "books", 9, 9, 5)
        first, *trials, best = lines(search("--trials", 2, "--ledgers", books, "--json"))
        assert len(trials) == 2
        for name in SITES:
            told = first["privacy"][name]
            found = json.loads(blindtune("dp", "show", books / f"{name}.ledger", "--json").out)
            assert told["spent"] == 0
            assert found["spent"] == pytest.approx(told["after"])
            assert told["after"] < told["with_training"] < told["budget"]
            assert {c["purpose"].split(",")[0] for c in found["charges"]} == {"trial-t0", "trial-t1"}
        ran = blindtune(
            *("federate", "run", best["plan"], tmp_path / "sites", "--out", tmp_path / "final"),
            *("--ledgers", books, "--json"),
        )
        assert len(lines(ran)) == 3
        shown = search("--trials", 2, "--ledgers", books)
        assert "is spent" in " ".join(shown.err.split())

    def test_beyond_a_budget_nothing_is_begun(self, blindtune, search, tmp_path):
        books = self.open(blindtune, tmp_path / "books", 9, 9, 0.2)
        ran = search("--trials", 5, "--ledgers", books, "--json")
        ran.refused("west", "the search would take epsilon to", "Nothing was begun")
        for name in SITES:
            found = json.loads(blindtune("dp", "show", books / f"{name}.ledger", "--json").out)
            assert found["charges"] == []

    def test_without_ledgers(self, search, tmp_path):
        search().refused("--ledgers", "blindtune dp open")
        search("--ledgers", tmp_path).refused("no privacy ledger here")
