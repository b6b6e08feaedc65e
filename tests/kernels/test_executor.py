"""Forked workers: the very head of one process, and errors that name what happened."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindtune.errors import EngineError
from blindtune.he.clear import ClearEngine
from blindtune.he.engine import KeySet, Ledger
from blindtune.he.secret import SecretKey
from blindtune.kernels.executor import ForkExecutor, SerialExecutor
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program, Task, Trainer, train
from blindtune.params import Parameters

LAYOUT = Layout(512, 2, (8, 4), 4, 2, 2)
PROGRAM = Program(3, 3, (0, 1, 0), (1.0, 0.9, 1.0))


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.fixture
def study(draw_study: Any) -> Any:
    return draw_study(LAYOUT, PROGRAM, (400, 20, 4), 4)


@pytest.fixture
def engine(tiny: Parameters) -> ClearEngine:
    return ClearEngine(tiny, LAYOUT.keys())


def serial(study: Any, engine: Any, encrypted: Any, workers: int) -> list[list[bytes]]:
    """The head from one process that cuts its tasks as ``workers`` would."""
    executor = SerialExecutor(Trainer(engine, study.layout, dict(encrypted[0]), *encrypted[1:]))
    executor.workers = workers
    found = train(executor, study.layout, study.program, engine.parameters.levels)
    return [[engine.dump(c) for c in block] for block in found]


@pytest.mark.parametrize("sent_rotated", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_forked_workers_give_the_same_bytes(
    study: Any, engine: ClearEngine, rotated: Any, workers: int, sent_rotated: bool
) -> None:
    encrypted = study.encrypted(engine.encrypt)
    if sent_rotated:
        encrypted += (rotated(study, engine.encrypt),)
    alone = serial(study, engine, encrypted, workers)
    counted, engine.ledger = engine.ledger, Ledger()
    before = children()
    seen = []
    with ForkExecutor(Trainer(engine, LAYOUT, dict(encrypted[0]), *encrypted[1:]), workers) as executor:
        assert len(set(executor.pids)) == workers
        assert set(map(str, executor.pids)) <= children()
        forked = train(executor, LAYOUT, PROGRAM, 11, seen.append)
    assert forked == alone
    assert children() == before
    assert seen[-1].done == seen[-1].total
    # Each worker lowers its own copy of the data, and ciphertexts pass between processes only here;
    # everything else is counted alike.
    assert not engine.ledger.counts
    ours, theirs = dict(executor.ledger.counts), dict(counted.counts)
    for counts in (ours, theirs):
        for key in [k for k in counts if k[0] in ("switch", "dump", "load")]:
            del counts[key]
    assert ours == theirs
    dumped = {level: n for (name, level), n in executor.ledger.counts.items() if name == "dump"}
    assert dumped[min(dumped)] == len(LAYOUT.widths) * LAYOUT.weight_blocks


def test_cutting_the_work_changes_no_more_than_rounding(study: Any, engine: ClearEngine) -> None:
    encrypted = study.encrypted(engine.encrypt)
    heads = []
    for workers in (1, 2, 3, 5):
        dumped = serial(study, engine, encrypted, workers)
        heads.append(study.head(dumped, lambda b: engine.decrypt(engine.load(b))))
    for head in heads[1:]:
        np.testing.assert_allclose(head, heads[0], atol=1e-12)


def test_forked_workers_give_the_same_bytes_encrypted(tiny_key: SecretKey, draw_study: Any) -> None:
    layout, program = Layout(512, 4, (8,), 4, 1, 1), Program(2, 3, (0, 0), (1.0, 1.0))
    study = draw_study(layout, program, (100, 16, 3), 6)
    engine = tiny_key.engine(layout.keys())
    data, residuals = study.encrypted(tiny_key.encrypt)

    def loaded() -> Any:
        # Loaded anew for each run: a trainer may lower its dataset in place.
        fresh = {key: engine.load(blob) for key, blob in data.items()}
        return fresh, {key: [engine.load(blob) for blob in blobs] for key, blobs in residuals.items()}

    alone = serial(study, engine, loaded(), 2)
    with ForkExecutor(Trainer(engine, layout, *loaded()), 2) as executor:
        assert train(executor, layout, program, 11) == alone


def test_a_refusal_in_a_worker_says_what_it_was(study: Any, tiny: Parameters) -> None:
    engine = ClearEngine(tiny, KeySet(LAYOUT.keys().rotations[:1]))
    trainer = study.trainer(engine, engine.encrypt)
    before = children()
    with (
        pytest.raises(EngineError, match=r"no key for a rotation by"),
        ForkExecutor(trainer, 2) as executor,
    ):
        train(executor, LAYOUT, PROGRAM, 11)
    assert children() == before


def test_a_killed_worker_is_an_error(study: Any, engine: ClearEngine) -> None:
    trainer = study.trainer(engine, engine.encrypt)
    before = children()

    def kill(progress: Any) -> None:
        if progress.done == 5:
            os.kill(executor.pids[0], signal.SIGKILL)

    with pytest.raises(EngineError, match="worker died"), ForkExecutor(trainer, 2) as executor:
        train(executor, LAYOUT, PROGRAM, 11, kill)
    assert children() == before


def test_a_crash_in_a_worker_is_an_error(study: Any, engine: ClearEngine) -> None:
    # A task that the trainer does not know is a KeyError there, which no worker answers.
    with (
        pytest.raises(EngineError, match="worker died"),
        ForkExecutor(study.trainer(engine, engine.encrypt), 1) as executor,
    ):
        executor.run([(Task("steal", ()), [])], lambda: None)


def test_blobs_that_do_not_load_are_refused_in_the_worker(study: Any, engine: ClearEngine) -> None:
    with (
        pytest.raises(EngineError, match="do not load"),
        ForkExecutor(study.trainer(engine, engine.encrypt), 1) as executor,
    ):
        executor.run([(Task("residual", (0, 0, 0)), [b"nonsense"])], lambda: None)


def test_an_interrupt_in_the_parent_leaves_no_worker(study: Any, engine: ClearEngine) -> None:
    trainer = study.trainer(engine, engine.encrypt)
    before = children()

    def interrupt(progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ForkExecutor(trainer, 2) as executor:
        train(executor, LAYOUT, PROGRAM, 11, interrupt)
    assert children() == before
