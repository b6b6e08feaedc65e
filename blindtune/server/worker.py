"""Trains one study in a process of its own: ``python -m blindtune.server.worker DATA_DIR STUDY``.

The server's queue starts it; states and progress go through the store. SIGTERM, or the end of the
process that started it, stops it and leaves no head behind.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from blindtune.errors import BlindtuneError
from blindtune.he.engine import Ciphertext, Ledger
from blindtune.kernels import cost
from blindtune.kernels.machine import Machine, this_machine
from blindtune.kernels.training import Program, Progress, Trainer
from blindtune.server.states import JobProgress
from blindtune.server.store import Store
from blindtune.wire.study import check_study, dumped, load_engine, load_start, load_trainer, write_head

PAUSE = 0.25
"""Seconds between two records of progress."""


class Watch:
    """Samples the memory of this process, and ends it when its parent is gone."""

    def __init__(self) -> None:
        self.peak = 0
        self._parent = os.getppid()
        self._stop = threading.Event()

    def end_if_orphan(self) -> None:
        """End this process if the one that started it is gone: its successor trains the study anew."""
        if os.getppid() != self._parent:
            os.kill(os.getpid(), signal.SIGTERM)

    def sample(self) -> None:
        """Take one sample."""
        self.peak = max(self.peak, psutil.Process().memory_info().rss)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Sample twice a second."""

        def loop() -> None:
            while not self._stop.wait(0.5):
                self.end_if_orphan()
                self.sample()

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


class Job:
    """One study's training.

    Args:
        store: where it lies.
        study: its identifier; its state is ``running``.
        cores: threads.
    """

    def __init__(self, store: Store, study: str, cores: int) -> None:
        self._store, self._study, self._cores = store, study, cores
        self._watch = Watch()
        self._last = 0.0
        self._steps = self._levels = 0

    def run(self) -> None:
        """Verify, load, train, write the head and the timing.

        Raises:
            BlindtuneError: the study cannot be trained.
        """
        store, study = self._store, self._study
        shutil.rmtree(store.head(study), ignore_errors=True)
        keys, data, start = store.bundles(study)
        p, program = keys.manifest.checked_parameters, keys.manifest.checked_program
        self._steps, self._levels = program.steps, p.levels
        everything = [keys, *data, *([start] if start else [])]
        total = sum(b.size for b in everything)
        began = time.perf_counter()
        on_part = self._counter("verify", total)
        for bundle in everything:
            bundle.verify(on_part)
        verified = time.perf_counter()
        layout = check_study(keys.manifest, [b.manifest for b in data])
        engine = load_engine(keys, self._cores)
        # What training will need is taken beside the loading: too little is found out now, not half way.
        with ThreadPoolExecutor(1) as ahead:
            reserved = ahead.submit(engine.reserve, cost.working_bytes(layout, program, p))
            on_part = self._counter("load", sum(b.size for b in data))
            trainer = load_trainer(engine, layout, data, on_part, threads=self._cores)
            first = load_start(engine, layout, start) if start else None
            reserved.result()
        self._watch.sample()
        planned, machine = cost.count(layout, program, p), this_machine()
        loaded = time.perf_counter()
        ledger = engine.ledger = Ledger()
        weights, phases = self._train(trainer, program, first, planned, machine)
        trained = time.perf_counter()
        write_head(store.head(study), keys.manifest, dumped(trainer, weights))
        timing = {
            "cores": self._cores,
            "seconds_verifying": verified - began,
            "seconds_loading": loaded - verified,
            "seconds_training": trained - loaded,
            "seconds_predicted": machine.total(planned, p.ring_degree),
            "phases": [
                {"step": step, "phase": phase, "seconds": seconds}
                for (step, phase), seconds in phases.items()
            ],
            "seconds_operations": ledger.total_seconds,
            "peak_bytes": self._watch.peak,
            "operations": [
                {
                    "name": name,
                    "level": level,
                    "count": count,
                    "calls": ledger.calls[name, level],
                    "seconds": ledger.seconds[name, level],
                }
                for (name, level), count in sorted(ledger.counts.items())
            ],
        }
        store.timing(study).write_text(json.dumps(timing, indent=1))
        # From here on the queue may end this process at any moment of its shutdown.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        store.states.finish(study)

    def _train(
        self,
        trainer: Trainer,
        program: Program,
        first: list[list[Ciphertext]] | None,
        planned: Ledger,
        machine: Machine,
    ) -> tuple[list[list[Ciphertext]], dict[tuple[int, str], float]]:
        """The weights, and the seconds of each step's phases."""
        ledger, ring_degree = trainer.engine.ledger, trainer.engine.parameters.ring_degree
        whole = machine.total(planned, ring_degree)
        phases: defaultdict[tuple[int, str], float] = defaultdict(float)
        with self._watch.running():
            start = last = time.perf_counter()

            def on_progress(at: Progress) -> None:
                nonlocal last
                now = time.perf_counter()
                phases[at.step, at.phase] += now - last
                last, seconds = now, now - start
                share = machine.total(ledger, ring_degree) / whole
                eta = max(0.0, seconds * (1 - share) / share)
                operations: dict[str, int] = {}
                for (name, _), count in ledger.counts.items():
                    operations[name] = operations.get(name, 0) + count
                self._record(
                    JobProgress(
                        at.step, at.steps, at.phase, at.level, at.done, at.total, seconds, eta, operations
                    )
                )

            weights = trainer.train(program, on_progress, first)
            self._watch.sample()
        return weights, phases

    def _counter(self, phase: str, total: int) -> Progressing:
        return Progressing(self, phase, total)

    def _record(self, progress: JobProgress) -> None:
        now = time.monotonic()
        if now - self._last >= PAUSE or progress.done == progress.total:
            self._last = now
            self._watch.end_if_orphan()
            self._store.states.record(self._study, progress)


class Progressing:
    """Records progress in bytes, before training."""

    def __init__(self, job: Job, phase: str, total: int) -> None:
        self._job, self._phase, self._total = job, phase, total
        self._done, self._start = 0, time.perf_counter()

    def __call__(self, size: int) -> None:
        job = self._job
        self._done += size
        seconds = time.perf_counter() - self._start
        eta = seconds * (self._total - self._done) / self._done
        job._record(
            JobProgress(0, job._steps, self._phase, job._levels, self._done, self._total, seconds, eta, {})
        )


def main(arguments: list[str] | None = None) -> int:
    """Train one study; the exit status is 0 if its state says what became of it."""
    parser = argparse.ArgumentParser(prog="blindtune.server.worker")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("study")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--insecure", action="store_true")
    given = parser.parse_args(arguments)
    # At once, as kill -9 would: an exception could come up inside a compiler, which then prints it.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    store = Store(given.data_dir, insecure=given.insecure)
    try:
        Job(store, given.study, given.cores).run()
    except BlindtuneError as error:
        store.states.fail(given.study, error.what, error.remedy)
    except MemoryError:
        store.states.fail(given.study, "the training process ran out of memory", "Use a larger machine.")
    except Exception as error:
        # The kind alone: a message could hold anything.
        store.states.fail(
            given.study, f"the training process failed ({type(error).__name__})", "Start it again."
        )
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
