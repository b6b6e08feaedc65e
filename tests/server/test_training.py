"""A claimed job's training, in this process: heads, what is kept of each step, and going on from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindtune.errors import BlindtuneError, BundleError, EngineError
from blindtune.he.openfhe.bootstrapping import Bootstrapping
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program
from blindtune.server.training import ClaimLost, Pulse, Training
from blindtune.wire.bundle import Bundle, write_bundle
from blindtune.wire.manifest import (
    Manifest,
    expected_parts,
    layout_model,
    parameters_model,
    program_model,
)
from blindtune.wire.models import bootstrapping_model
from tests.openfhe import keys_of
from tests.server.placing import Place


class Died(Exception):
    """The worker is gone."""


class DiesIn(Pulse):
    """Ends a training in a step, as a kill would: nothing of what follows is done."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step, self._progress = step, None

    @property
    def progress(self) -> Any:
        return self._progress

    @progress.setter
    def progress(self, told: Any) -> None:
        self._progress = told
        if told is not None and told.step == self._step:
            raise Died


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "data")
    yield made
    made.service.close()


def train(place: Place, work: Path, pulse: Pulse | None = None) -> None:
    """Claim a job and train it; where the worker dies the job is queued again."""
    claim = place.service.leases.claim("host", 1)
    assert claim is not None
    work.mkdir()
    try:
        Training(place.service, claim, work, pulse or Pulse()).run()
    except Died:
        place.service.leases.abandon(claim)


def test_a_study_is_trained_as_in_clear(study: Any, place: Place, tmp_path: Path) -> None:
    job, pulse = place.start(study), Pulse()
    train(place, tmp_path / "work", pulse)
    head = study.decrypt(place.head(study, tmp_path / "head"))
    assert np.abs(head - study.dense()).max() < 1e-3
    found = place.done(job)
    assert found.progress is not None
    assert (found.progress["step"], found.progress["eta"]) == (2, 0)
    assert found.progress["done"] == found.progress["total"]
    done, planned = found.progress["operations"], found.progress["planned"]
    assert {name: done[name] for name in planned} == planned
    assert 0 < found.progress["modulus_bits"] < found.progress["modulus_bits_whole"]
    timing = place.service.jobs.timing(job)
    assert timing is not None
    assert [(r["step"], r["phase"]) for r in timing["phases"]] == [
        (1, "backward"),
        (1, "update"),
        *((2, phase) for phase in ("forward", "residual", "backward", "update")),
    ]
    assert sum(row["seconds"] for row in timing["phases"]) == pytest.approx(timing["seconds_training"])
    assert 0 < timing["seconds_operations"] <= timing["seconds_training"] * 1.01
    assert timing["seconds_predicted"] > 0
    assert len(place.kept(study)) == 1


def test_signs_of_life_end_before_the_job_is_done(study: Any, place: Place, tmp_path: Path) -> None:
    """A heart that beat after it would take the job's end for a loss, and end the worker on the spot."""
    job, states = place.start(study), []

    class Watched(Pulse):
        def stop(self) -> None:
            found = place.service.jobs.get(job)
            assert found is not None
            states.append(found.state)

    train(place, tmp_path / "work", Watched())
    assert states == ["running"]
    place.done(job)


@pytest.mark.parametrize("given", [{"steps": 4}, {"steps": 3, "started": True}])
def test_workers_that_die_repeat_a_step_at_most_and_the_head_is_the_same(
    given: dict[str, Any], make_study: Any, place: Place, tmp_path: Path
) -> None:
    study = make_study("s", **given)
    if study.started:
        study._bundles = [*study.bundles(), study.start(np.full((11, 2), 0.1))]
    south = place.service.tenants.make("south")
    undisturbed = place.start(study, south)
    train(place, tmp_path / "work")
    disturbed = place.start(study)
    for step in range(1, study.steps + 1):
        train(place, tmp_path / f"work-{step}", DiesIn(step))
        assert place.job(disturbed).step == step - 1
        assert place.job(disturbed).state == "queued"
        assert len(place.kept(study)) == (step > 1)
    train(place, tmp_path / "last")
    assert place.done(disturbed).attempts == 2
    heads = [place.head(study, tmp_path / (t or "north"), t) / "parts" / "weights" for t in (south, None)]
    assert heads[0].read_bytes() == heads[1].read_bytes()
    assert len(place.kept(study)) == 1
    # Who loads the data anew lowers them in one go; all else was done and told once.
    told = [place.service.jobs.timing(job) for job in (undisturbed, disturbed)]
    counts = [
        [(r["name"], r["level"], r["count"]) for r in t["operations"] if r["name"] != "switch"]
        for t in told
        if t is not None
    ]
    assert counts[0] == counts[1]


def test_a_damaged_checkpoint_costs_its_steps_and_nothing_else(
    make_study: Any, place: Place, tmp_path: Path
) -> None:
    study = make_study("s", steps=3)
    job = place.start(study)
    train(place, tmp_path / "work", DiesIn(3))
    (kept,) = place.kept(study)
    file = place.service.contents.path(place.tenant, kept)
    file.write_bytes(file.read_bytes()[:-1])
    train(place, tmp_path / "again")
    place.done(job)
    head = study.decrypt(place.head(study, tmp_path / "head"))
    assert np.abs(head - study.dense()).max() < 2e-3
    assert len(place.kept(study)) == 1


def test_who_lost_the_claim_leaves_no_head(study: Any, place: Place, tmp_path: Path) -> None:
    class Cancelled(Pulse):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "progress" and value is not None and value.step == 2:
                place.service.jobs.cancel(job)

    job = place.start(study)
    with pytest.raises(ClaimLost):
        train(place, tmp_path / "work", Cancelled())
    assert place.job(job).state == "cancelled"
    assert place.service.studies.head(place.tenant, study.id) is None


def test_a_job_that_was_stopped_is_gone_on_from_by_the_next_one(
    make_study: Any, place: Place, tmp_path: Path
) -> None:
    study = make_study("s", steps=3)
    first = place.start(study)
    train(place, tmp_path / "work", DiesIn(3))
    place.service.jobs.cancel(first)
    second = place.service.jobs.enqueue(place.tenant, study.id)
    assert second.step == 2
    train(place, tmp_path / "again", DiesIn(2))
    assert place.done(second.id).step == 2
    assert len(place.kept(study)) == 1


def test_altered_parts_and_parts_of_nonsense(make_study: Any, place: Place, tmp_path: Path) -> None:
    study, nonsense = make_study("altered"), make_study("nonsense")
    nonsense.key.encrypt = lambda values: b"no ciphertext" * 100
    place.start(study)
    part = Bundle(study.bundles()[1], insecure=True).manifest.parts[0]
    file = place.service.contents.path(place.tenant, part.sha256)
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=f"part {part.name} was altered"):
        train(place, tmp_path / "altered-work")
    place.start(nonsense)
    with pytest.raises(BlindtuneError, match="part data-0-0: neither a ciphertext nor a key of this format"):
        train(place, tmp_path / "nonsense-work")


class Bootstrapped:
    """A study that the server bootstraps, with other bytes where ciphertexts would be."""

    id = "5" * 32

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def bundles(self) -> list[Path]:
        literal = Bootstrapping(1024, 5, 16, security=0)
        keys = keys_of(literal)
        for kind in ("keys", "data"):
            manifest = Manifest(
                kind=kind,
                study=self.id,
                members=["north"],
                member="north",
                key="a" * 32,
                parameters=parameters_model(literal.parameters(keys.primes)),
                bootstrapping=bootstrapping_model(literal, keys),
                layout=layout_model(Layout(512, 4, (4,), 2, 1, 1)),
                program=program_model(Program(2, 3, (0, 0), (1.0, 1.0), refreshes=(1,))),
                parts=[],
            )
            wanted = expected_parts(manifest).items()
            junk = [(name, [f"{name} {n}".encode() for n in range(count)]) for name, (count, _) in wanted]
            write_bundle(self._directory / kind, manifest, junk)
        return [self._directory / "keys", self._directory / "data"]


def test_a_bootstrap_is_not_spread_over_a_cluster(place: Place, tmp_path: Path) -> None:
    place.start(Bootstrapped(tmp_path / "study"))
    claim = place.service.leases.claim("host", 1)
    assert claim is not None
    (tmp_path / "work").mkdir()
    with pytest.raises(EngineError, match="not spread over a cluster"):
        Training(place.service, claim, tmp_path / "work", Pulse(), "ray").run()
