"""The real thing: an aggregator and three hospitals as processes over TLS, and one that is killed."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from blindtune.federation.members import Members, make, write
from blindtune.federation.plans import complete, read_plan, read_start, write_plan
from blindtune.federation.search import SearchPlan
from blindtune.federation.secagg.quantise import Quantiser
from blindtune.federation.setup import build_learner, open_data
from blindtune.federation.simulation import simulated
from blindtune.federation.trials import objective
from blindtune.privacy.account import Release, epsilon
from blindtune.privacy.ledger import Ledger

NAMES, ROUNDS = ("east", "north", "west"), 4
DRAFT = {
    "study": "deployed",
    "classes": ["a", "b", "c"],
    "model": {"kind": "head", "features": 6},
    "rounds": ROUNDS,
    "local": {"every": 1, "unit": "batches", "batch": 1000, "rate": 0.5},
}


class Process:
    """A command in a process of its own, whose lines can be waited for."""

    def __init__(self, place, *arguments):
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "blindtune.cli.main", "federate", *map(str, arguments)],
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1"},
        )
        self.lines, self.said = queue.Queue(), []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        with self.popen.stdout as lines:
            for line in lines:
                self.lines.put(line)
        self.lines.put(None)

    def until(self, *words):
        """The next line that holds all these words."""
        while True:
            line = self.lines.get(timeout=90)
            assert line is not None, "".join(self.said)
            self.said.append(line)
            if all(word in line for word in words):
                return line

    def ended(self, code=0):
        assert self.popen.wait(60) == code, "".join(self.said)


def embeddings(place, name, rows):
    rng = np.random.default_rng(len(name) + rows)
    labels = np.arange(rows) % 3
    centres = np.random.default_rng(7).normal(size=(3, 6))
    np.savez(
        place / f"{name}.npz",
        embeddings=(centres[labels] + rng.normal(size=(rows, 6))).astype(np.float32),
        labels=labels,
        classes=np.array(DRAFT["classes"]),
        patients=np.arange(rows).astype(str),
    )


@pytest.fixture
def place(tmp_path):
    """Keys, roster, plan, and each hospital's data."""
    cards = []
    for rows, name in zip((60, 90, 120), NAMES, strict=True):
        (tmp_path / name).mkdir()
        cards.append(make(tmp_path / name, name))
        embeddings(tmp_path, name, rows)
    write(tmp_path / "roster.json", Members(members=cards))
    (tmp_path / "draft.json").write_text(json.dumps(DRAFT))
    complete(tmp_path / "draft.json", tmp_path)
    return tmp_path


@pytest.fixture
def start(place, authority):
    """Starts commands; ended with the test."""
    started = []

    def serve(port=0, plan="plan.json"):
        files = ("--certificate", authority / "server.pem", "--key", authority / "server.key")
        given = ("--roster", "roster.json", "--out", "study", "--port", port, *files, "--json")
        started.append(Process(place, "serve", plan, *given))
        return started[-1]

    def join(name, address, *further, plan="plan.json"):
        given = ("--home", name, "--roster", "roster.json", "--ca", authority / "ca.pem")
        data = ("--data", f"{name}.npz", *further)
        started.append(Process(place, "join", plan, address, *given, *data))
        return started[-1]

    yield serve, join
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.wait()
        process.reader.join(30)


def plain_average(place):
    """The model of the same cohort by plain averaging, in this process."""
    (place / "plain.json").write_text(json.dumps({**DRAFT, "secure": False}))
    (place / "plain").mkdir()
    plan = complete(place / "plain.json", place / "plain")
    learners = {name: build_learner(plan, place / f"{name}.npz") for name in NAMES}
    values = read_start(place / "plain" / "start.safetensors", plan)
    with simulated(plan, values, learners, place / "simulated") as coordinator:
        rounds = list(coordinator.run())
        return plan, coordinator.values, rounds


def test_a_hospital_killed_in_a_round_comes_back_and_the_study_is_the_same(place, start):
    serve, join = start
    aggregator = serve()
    address = json.loads(aggregator.until('"address"'))["address"]
    hospitals = {name: join(name, address) for name in NAMES}
    aggregator.until('"round": 0')
    # In the middle of a round: its shares are with the others, its vector is not yet.
    hospitals["north"].until("secagg/sharing: answered")
    hospitals["north"].popen.send_signal(signal.SIGKILL)
    hospitals["north"].popen.wait()
    hospitals["north"] = join("north", address)
    found = [json.loads(aggregator.until(f'"round": {n}')) for n in range(1, ROUNDS)]
    aggregator.ended()
    assert all(done["sites"] == list(NAMES) for done in found)
    plan, expected, rounds = plain_average(place)
    kept = json.loads((place / "study" / "study.json").read_text())
    values = read_start(place / "study" / kept["model"], plan)
    # A round adds the rounding of three sums of updates, in units of the bound.
    error = ROUNDS * plan.bound * Quantiser(1.0, len(NAMES)).error(len(NAMES))
    np.testing.assert_allclose(values, expected, rtol=0, atol=error + 1e-6)
    assert np.abs(values).max() > 0.1
    assert [done["accuracy"] for done in found] == pytest.approx([done.accuracy for done in rounds[1:]])
    for process in hospitals.values():
        assert process.popen.poll() is None
        process.popen.send_signal(signal.SIGINT)
        process.ended(130)


def test_an_aggregator_that_is_stopped_goes_on_where_it_was(place, start):
    serve, join = start
    aggregator = serve()
    address = json.loads(aggregator.until('"address"'))["address"]
    for name in NAMES:
        join(name, address)
    aggregator.until('"round": 0')
    aggregator.popen.send_signal(signal.SIGINT)
    aggregator.until("stopped; run the same command again to go on")
    aggregator.ended(130)
    again = serve(address.rpartition(":")[2])
    done = json.loads(again.until('"rounds_done"'))["rounds_done"]
    assert done >= 1
    if done < ROUNDS:
        again.until(f'"round": {ROUNDS - 1}')
    again.ended()
    assert (place / "study" / "model").is_dir()


def test_a_private_study_ends_when_one_hospitals_ledger_would_be_exceeded(place, start):
    patients = {"east": 60, "north": 90, "west": 120}
    private = {"noise": 5.0, "sampling": 1.0, "survivors": 3, "patients": patients}
    (place / "private.json").write_text(json.dumps({**DRAFT, "privacy": private}))
    complete(place / "private.json", place)
    one = [Release(5.0, 1.0, 1)]
    budgets = {"east": 9.0, "north": 1.01 * epsilon(one, 1e-3), "west": 9.0}
    for name, budget in budgets.items():
        Ledger.create(place / f"{name}.ledger", budget, 1e-3).close()
    serve, join = start
    aggregator = serve()
    address = json.loads(aggregator.until('"address"'))["address"]
    hospitals = {n: join(n, address, "--ledger", place / f"{n}.ledger") for n in NAMES}
    done = json.loads(aggregator.until('"round": 0'))
    assert (done["sites"], done["loss"]) == (list(NAMES), None)
    hospitals["north"].until("refused", "would take epsilon")
    aggregator.until("round 1 failed", "north: it refused: this release would take epsilon")
    for process in (aggregator, *hospitals.values()):
        process.popen.send_signal(signal.SIGINT)
        process.ended(130)
    ledger = Ledger(place / "north.ledger")
    assert ledger.spent() == one
    ledger.close()


class TestSearch:
    @pytest.fixture
    def search(self, place):
        """Writes a search of two trials around a draft."""

        def make(**further):
            (place / "around.json").write_text(json.dumps({**DRAFT, "rounds": 2, **further}))
            base = complete(place / "around.json", place)
            plan = SearchPlan.of(base, b'{"rate": {"low": 0.1, "high": 2}}', 2, "mcc")
            write_plan(plan, read_start(place / "start.safetensors", base), place)
            return plan

        return make

    def test_one_that_is_stopped_goes_on_and_its_trials_are_those_in_one_process(self, place, start, search):
        plan, (serve, join) = search(), start
        aggregator = serve(plan="search.json")
        first = json.loads(aggregator.until('"address"'))
        assert (first["search"], first["left"]) == (plan.digest, 2)
        for name in NAMES:
            join(name, first["address"], plan="search.json")
        trials = [json.loads(aggregator.until('"trial": 0'))]
        aggregator.popen.send_signal(signal.SIGINT)
        aggregator.popen.wait(60)
        again = serve(first["address"].rpartition(":")[2], plan="search.json")
        left = json.loads(again.until('"left"'))["left"]
        if left:
            trials.append(json.loads(again.until('"trial": 1')))
        best = json.loads(again.until('"best"'))
        again.ended()
        learners = {name: open_data(plan.base, place / f"{name}.npz") for name in NAMES}
        values = read_start(place / "start.safetensors", plan.base)
        for trial in trials:
            agreed = plan.trial(trial["trial"], trial["values"])
            here = {name: made(agreed, None, None) for name, made in learners.items()}
            with simulated(agreed, values, here, place / f"alone-{trial['trial']}") as coordinator:
                assert trial["score"] == pytest.approx(objective(plan, list(coordinator.run())[-1]))
        assert best["score"] >= max(t["score"] for t in trials)
        assert read_plan(place / best["plan"]).study == "deployed-best"

    def test_a_hospital_says_what_it_costs_and_stays_away_beyond_its_budget(self, place, start, search):
        patients = {"east": 60, "north": 90, "west": 120}
        private = {"noise": 15.0, "sampling": 1.0, "survivors": 3, "validation": 20.0, "patients": patients}
        search(privacy=private)
        for name, budget in (("east", 9.0), ("north", 0.3)):
            Ledger.create(place / f"{name}.ledger", budget, 1e-3).close()
        _, join = start
        joined = [
            join(name, "127.0.0.1:1", "--ledger", place / f"{name}.ledger", plan="search.json")
            for name in ("east", "north")
        ]
        joined[0].until("epsilon 0 of 9 is spent", "at most after the search")
        joined[1].until("error: north: the search would take epsilon to", "of 0.3")
        joined[1].ended(2)
