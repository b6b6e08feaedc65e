"""Training on all hospitals' rows, as far as it goes without the hospitals: from refresh to refresh.

Whoever trains reads the mailbox and holds public material only. Weights that are to be refreshed are left in
a file for the hospitals; a step that is done is kept, so that a training that was stopped, or that waits for
a hospital, goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from blindtune.errors import BundleError
from blindtune.federation.threshold.party import Waiting
from blindtune.federation.threshold.refresh import Refresh, write_stale
from blindtune.federation.threshold.transcript import Transcript
from blindtune.files import whole_file
from blindtune.he.engine import Ciphertext, Engine
from blindtune.kernels.training import Progress, State
from blindtune.wire.bundle import Bundle
from blindtune.wire.checkpoint import checkpoint, inputs_digest, read_checkpoint
from blindtune.wire.study import dumped, open_study, write_head

HEAD = "head"


class _Absent(Exception):
    """Training cannot go on: hospitals have to answer first."""

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting


class JointTraining:
    """One study's training; needs OpenFHE where its program has refreshes.

    Args:
        transcript: of a study whose keys are made.
        keys, data: bundle directories, of :func:`.rows.write_keys` and each member.
        place: a directory of its own; made if it is missing.
        cores: threads.
        insecure: accept test parameters without a security level.

    Raises:
        BundleError: bundles that are altered or do not belong together, or are not of these terms.
    """

    def __init__(
        self,
        transcript: Transcript,
        keys: Path,
        data: Sequence[Path],
        place: Path,
        *,
        cores: int = 1,
        insecure: bool = False,
    ) -> None:
        self._transcript, self._place = transcript, place
        place.mkdir(parents=True, exist_ok=True)
        self._study = open_study(keys, data, cores=cores, insecure=insecure)
        manifest, terms = self._study.manifest, transcript.terms
        if (manifest.study, manifest.program, manifest.parameters) != (
            terms.study,
            terms.program,
            terms.parameters,
        ):
            raise BundleError("the bundles are not of the agreed study")
        self._inputs = inputs_digest([Bundle(path, insecure=insecure) for path in (keys, *data)])
        self._state = self._kept()

    @property
    def engine(self) -> Engine:
        """What evaluates."""
        return self._study.trainer.engine

    def stale(self, number: int) -> Path:
        """Where the weights of a refresh are left for the hospitals."""
        return self._place / f"refresh-{number}"

    @property
    def head(self) -> Path:
        """Where the encrypted head's bundle is left."""
        return self._place / HEAD

    def advance(
        self,
        on_progress: Callable[[Progress], None] = lambda _: None,
        on_step: Callable[[State], None] = lambda _: None,
    ) -> Waiting:
        """Train to the next refresh that a hospital has not answered; with nobody absent the head is there.

        Args:
            on_progress, on_step: see :meth:`blindtune.kernels.training.Trainer.train`.

        Raises:
            FederationError: someone ended the study, or what someone said is wrong.
        """

        def done(state: State) -> None:
            self._keep(state)
            on_step(state)

        if not self.head.exists():
            try:
                weights = self._study.trainer.train(
                    self._study.manifest.checked_program,
                    on_progress,
                    on_step=done,
                    resume=self._state,
                    refresh=self._refresh,
                )
            except _Absent as held_up:
                return held_up.waiting
            write_head(self.head, self._study.manifest, dumped(self._study.trainer, weights))
        return Waiting(HEAD, ())

    def _refresh(self, number: int, weights: list[Ciphertext]) -> list[Ciphertext]:
        engine = self.engine
        blobs = [engine.dump(c) for c in weights]
        if not self.stale(number).exists():
            write_stale(self.stale(number), blobs)
        refresh = Refresh(self._transcript, number, blobs)
        waiting = refresh.advance()
        if waiting.absent:
            raise _Absent(waiting)
        return [engine.load(data) for data in refresh.fresh()]

    def _keep(self, state: State) -> None:
        self._state = state
        engine = self.engine
        with whole_file(self._checkpoint(state.step)) as partial_file, partial_file.open("wb") as file:
            file.writelines(checkpoint(engine, self._inputs, state))
        self._checkpoint(state.step - 1).unlink(missing_ok=True)

    def _kept(self) -> State | None:
        """The last step that is whole on the disk; trained again, all steps give the same residues."""
        trainer, program = self._study.trainer, self._study.manifest.checked_program
        read = partial(read_checkpoint, engine=trainer.engine, layout=trainer.layout, program=program)
        for step in range(program.steps, 0, -1):
            if self._checkpoint(step).exists():
                with suppress(BundleError):
                    return read(self._checkpoint(step), inputs=self._inputs, step=step)
        return None

    def _checkpoint(self, step: int) -> Path:
        return self._place / f"checkpoint-{step}"
