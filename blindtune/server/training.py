"""One claimed job: its study verified, loaded and trained, each step kept, and the head placed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection

from blindtune.errors import BundleError, EngineError
from blindtune.he.engine import Engine, Ledger
from blindtune.kernels import cost
from blindtune.kernels.layout import Layout
from blindtune.kernels.machine import Machine, this_machine
from blindtune.kernels.products import Grid
from blindtune.kernels.training import Program, Progress, State, Trainer
from blindtune.params import Parameters
from blindtune.server.cluster import cluster
from blindtune.server.leases import Claim
from blindtune.server.progress import JobProgress, modulus_bits
from blindtune.server.refreshing import Refreshing
from blindtune.server.service import Service
from blindtune.server.spent import Spent
from blindtune.wire.bundle import PARTS, Bundle
from blindtune.wire.checkpoint import checkpoint, inputs_digest, read_checkpoint
from blindtune.wire.manifest import Manifest
from blindtune.wire.study import check_study, dumped, load_engine, load_start, load_trainer, write_head

Executor = Literal["local", "ray"]
"""Where training runs: on this host, or on a Ray cluster."""


class ClaimLost(Exception):
    """The job is another worker's by now, or nobody's: whatever is done here changes nothing."""


class Pulse:
    """What a worker tells of itself while it works.

    Attributes:
        progress: where its job stands; None before it can be told.
        memory: bytes that the process holds.
        peak: the most it has held.
    """

    def __init__(self) -> None:
        self.progress: JobProgress | None = None
        self.memory = self.peak = 0

    def stop(self) -> None:
        """Tell no more: the claim is about to end, and its end would look like its loss."""


@dataclass(frozen=True)
class Loaded:
    """A study in memory.

    Attributes:
        inputs: digest of all that the result depends on.
        planned: all operations of the training.
    """

    keys: Manifest
    layout: Layout
    program: Program
    parameters: Parameters
    inputs: bytes
    planned: Ledger
    trainer: Trainer
    start: Grid | None

    @property
    def engine(self) -> Engine:
        """The trainer's."""
        return self.trainer.engine


class Training:
    """The training of one claim.

    Args:
        work: a directory of this claim's own; the caller removes it.
        pulse: is told where the job stands.
        executor: ``ray`` spreads the work over the nodes of a cluster.
    """

    def __init__(
        self, service: Service, claim: Claim, work: Path, pulse: Pulse, executor: Executor = "local"
    ) -> None:
        self._service, self._claim, self._work, self._pulse = service, claim, work, pulse
        self._executor = executor
        self._machine: Machine = this_machine()
        self._spent, self._kept = Spent.of(claim.timing), claim.checkpoint

    def run(self) -> None:
        """Train the job to its end.

        Raises:
            ClaimLost: it is not this worker's any more.
            Waits: the hospitals have to answer first.
            BlindtuneError: the study cannot be trained.
            OSError: the storage failed.
        """
        with ExitStack() as held:
            self._train(self._load(held))

    def _train(self, loaded: Loaded) -> None:
        resume = self._resumed(loaded)
        loaded.engine.ledger = self._spent.ledger
        whole = self._machine.total(loaded.planned, loaded.parameters.ring_degree)
        last = time.perf_counter()

        def progressed(at: Progress) -> None:
            nonlocal last
            now, spent = time.perf_counter(), self._spent
            spent.phases[at.step, at.phase] += now - last
            spent.training += now - last
            last = now
            share = self._machine.total(spent.ledger, loaded.parameters.ring_degree) / whole
            eta = max(0.0, spent.training * (1 - share) / share)
            self._tell(loaded.parameters, at, spent.training, eta, loaded.planned.totals)

        def keep(state: State) -> None:
            # The last step's weights are the head.
            if state.step < loaded.program.steps:
                self._keep(loaded, state, whole)

        # What bootstraps asks nobody.
        refreshing = (
            None
            if loaded.keys.bootstrapping
            else Refreshing(
                self._service, self._claim, self._work, loaded.engine, len(loaded.program.refreshes)
            )
        )
        weights = loaded.trainer.train(loaded.program, progressed, loaded.start, keep, resume, refreshing)
        self._finish(loaded, weights, whole)

    def _load(self, held: ExitStack) -> Loaded:
        claim, began = self._claim, time.perf_counter()
        keys, data, start = self._service.studies.bundles(claim.tenant, claim.study, self._work / "study")
        parameters, program = keys.manifest.checked_parameters, keys.manifest.checked_program
        everything = [keys, *data, *([start] if start else [])]
        counted = self._counter("verify", program, parameters, everything)
        for bundle in everything:
            bundle.verify(counted)
        verified = time.perf_counter()
        layout = check_study(keys.manifest, [b.manifest for b in data])
        if keys.manifest.bootstrapping and self._executor == "ray":
            raise EngineError(
                "bootstrapping is not spread over a cluster",
                remedy="Train on a server without --executor ray.",
            )
        counted = self._counter("load", program, parameters, [keys, *data])
        engine = load_engine(keys, claim.cores, counted)
        if self._executor == "ray":
            spread = held.enter_context(cluster(engine, layout, keys))
            spread.load(program, data, counted)
            trainer = Trainer(spread)
        else:
            # What training will need is taken beside the loading: too little is found out now, not half way.
            with ThreadPoolExecutor(1) as ahead:
                reserved = ahead.submit(engine.reserve, cost.working_bytes(layout, program, parameters))
                trainer = load_trainer(engine, layout, data, counted, threads=claim.cores)
                reserved.result()
        first = load_start(engine, layout, start) if start else None
        planned = cost.count(layout, program, parameters)
        self._spent.verifying, self._spent.loading = verified - began, time.perf_counter() - verified
        return Loaded(
            keys.manifest, layout, program, parameters, inputs_digest(everything), planned, trainer, first
        )

    def _resumed(self, loaded: Loaded) -> State | None:
        """What the job's last worker kept; None to begin, and if that is damaged or of other inputs."""
        if self._kept is None:
            return None
        try:
            path = self._service.contents.path(self._claim.tenant, self._kept)
            return read_checkpoint(
                path, loaded.engine, loaded.layout, loaded.program, loaded.inputs, self._claim.step
            )
        except (BundleError, FileNotFoundError):
            self._spent = Spent(self._spent.verifying, self._spent.loading)
            return None

    def _keep(self, loaded: Loaded, state: State, predicted: float) -> None:
        """Keep a step's weights, in the place of those before them."""
        file = self._work / "checkpoint"
        with open(file, "wb") as out:
            out.writelines(checkpoint(loaded.engine, loaded.inputs, state))
        sha256 = self._service.contents.keep(self._claim.tenant, file)
        told = self._told(predicted)
        self._written(
            lambda forget: self._service.leases.keep(self._claim, state.step, sha256, told, forget), sha256
        )

    def _finish(self, loaded: Loaded, weights: Grid, predicted: float) -> None:
        head = self._work / "head"
        manifest = write_head(head, loaded.keys, dumped(loaded.trainer, weights))
        for part in manifest.parts:
            self._service.contents.keep(self._claim.tenant, head / PARTS / part.name)
        told, progress = self._told(predicted), self._pulse.progress
        assert progress is not None

        def place(forget: Callable[[Connection], None]) -> bool:
            def also(db: Connection) -> None:
                self._service.studies.put_head(db, self._claim.tenant, self._claim.study, manifest)
                forget(db)

            return self._service.leases.finish(self._claim, asdict(progress), told, also)

        self._pulse.stop()
        self._written(place, None)

    def _written(self, write: Callable[[Callable[[Connection], None]], bool], kept: str | None) -> None:
        """Write under the claim; what was kept before is forgotten with it, then removed."""
        contents, tenant, before, gone = self._service.contents, self._claim.tenant, self._kept, []

        def forget(db: Connection) -> None:
            gone.extend(contents.forget(db, tenant, [before] if before else []))

        if not write(forget):
            raise ClaimLost
        self._kept = kept
        contents.remove(tenant, gone)

    def _told(self, predicted: float) -> dict[str, Any]:
        self._spent.peak = max(self._spent.peak, self._pulse.peak)
        return self._spent.told(self._claim.cores, predicted)

    # Progress

    def _counter(
        self, phase: str, program: Program, parameters: Parameters, bundles: Sequence[Bundle]
    ) -> Callable[[int], None]:
        """Counts bytes, before training."""
        began, done, total = time.perf_counter(), 0, sum(b.size for b in bundles)

        def count(size: int) -> None:
            nonlocal done
            done += size
            seconds = time.perf_counter() - began
            at = Progress(0, program.steps, phase, parameters.levels, done, total)
            self._tell(parameters, at, seconds, seconds * (total - done) / done, {})

        return count

    def _tell(
        self, parameters: Parameters, at: Progress, seconds: float, eta: float, planned: dict[str, int]
    ) -> None:
        self._pulse.progress = JobProgress(
            step=at.step,
            steps=at.steps,
            phase=at.phase,
            level=at.level,
            modulus_bits=modulus_bits(parameters, at.level),
            modulus_bits_whole=modulus_bits(parameters, parameters.levels),
            done=at.done,
            total=at.total,
            seconds=seconds,
            eta=eta,
            operations=self._spent.ledger.totals,
            planned=planned,
            memory=self._pulse.memory,
        )
