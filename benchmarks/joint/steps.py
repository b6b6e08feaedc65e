"""Many steps under a joint key: weights refreshed by the hospitals, against the same steps in clear."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from blindtune.federation.agreement import HeadModel
from blindtune.federation.heads import Cases
from blindtune.federation.identity import Identity
from blindtune.federation.threshold.decryption import Opening
from blindtune.federation.threshold.mailbox import DirectoryMailbox
from blindtune.federation.threshold.party import Party
from blindtune.federation.threshold.refresh import Refresh
from blindtune.federation.threshold.rehearsal import MARGIN, Rehearsal
from blindtune.federation.threshold.rows import JointRows, write_keys
from blindtune.federation.threshold.standin import stand_in
from blindtune.federation.threshold.terms import Task, Terms
from blindtune.federation.threshold.transcript import STAGES, Transcript
from blindtune.he.blob import read_header
from blindtune.he.engine import Ciphertext
from blindtune.he.openfhe.opening import Opened, fuse
from blindtune.kernels.layout import Layout
from blindtune.kernels.packing import unpack_weights
from blindtune.kernels.training import Program, State
from blindtune.models.heads import Encoded
from blindtune.models.rehearsal import rehearse
from blindtune.models.whitening import Whitening
from blindtune.params import Parameters, ParametersLiteral
from blindtune.wire.bundle import Bundle, frame
from blindtune.wire.manifest import layout_model, parameters_model, program_model
from blindtune.wire.study import dumped, open_study, write_head

NAMES = ("north", "south", "west")
TRAINED = {"directions": 63, "epsilon": 0.05, "degree": 7, "interval": 12.0}
RATE, STEPS, EVERY = 6.0, 10, 2
LAYOUT, PARAMETERS = Layout(16384, 16, (32,), 8, 1, 1), ParametersLiteral(32768, 13, 55, 56, 60)
"""Thirteen levels: two steps of degree 7 and a refresh."""


def task_of(features: int, steps: int = STEPS) -> Task:
    """Each of ten digits against the rest; rare classes bear a high rate, but no balance of weights."""
    model = HeadModel(features=features, rows=1 << 14, loss="one-vs-rest", blind=True, **TRAINED)
    return Task(model=model, classes=[str(n) for n in range(10)], rates=[RATE] * steps, balanced=False)


def program_of(task: Task) -> Program:
    """The task's steps, with a refresh after every so many."""
    return replace(task.head.program, refreshes=tuple(range(EVERY, len(task.rates), EVERY)))


def in_clear(cases: Cases, task: Task) -> tuple[Whitening, Encoded, list[Any]]:
    """The task's steps in clear: the whitening, what is encrypted beside rows, and each step's weights on
    whitened features (columns, classes).
    """
    x = cases.features.astype(np.float64)
    whitening = Whitening.fit(x, task.model.directions, task.model.epsilon, "")
    truth = np.eye(len(task.classes))[cases.labels]
    encoded = Encoded(truth - 0.5, np.ones_like(truth) * task.head.coefficients[:, None, None])
    found = []
    for steps in range(1, len(task.rates) + 1):
        head = task.model_copy(update={"rates": task.rates[:steps]}).head
        rehearsed = rehearse(whitening.apply(x), encoded, head)
        if not rehearsed.inside(head):
            raise SystemExit(f"logits of up to {max(rehearsed.largest):.1f} leave the interval")
        found.append(rehearsed.weights)
    return whitening, encoded, found


class Rounds:
    """A study of three hospitals in one process, each with its own directory, one after the other.

    Args:
        work: an empty directory.
        shards: each hospital's rows.
    """

    def __init__(
        self,
        work: Path,
        shards: dict[str, Cases],
        task: Task,
        layout: Layout,
        parameters: Parameters,
        *,
        length: float | None = None,
    ) -> None:
        self._work, self._shards, self._task = work, shards, task
        self.seconds: dict[str, float] = {}
        program = program_of(task)
        if length is None:
            start = time.perf_counter()
            most = max(len(cases.labels) for cases in shards.values())
            train = stand_in(task, layout, len(shards), most, program=program)
            length = MARGIN * Rehearsal(parameters, layout, len(shards)).length(train)
            self.seconds["rehearsal"] = time.perf_counter() - start
        self._identities = {name: Identity.generate() for name in shards}
        self.terms = Terms(
            study=os.urandom(16).hex(),
            members={name: identity.public.hex() for name, identity in self._identities.items()},
            parameters=parameters_model(parameters),
            layout=layout_model(layout),
            program=program_model(program),
            task=task,
            length=length,
        )
        self.terms = Terms.parse(self.terms.model_dump_json().encode())
        self._mailbox = DirectoryMailbox(work / "mailbox")
        self._insecure = not parameters.security
        self._parties = {name: self._party(name) for name in shards}

    def run(self) -> dict[str, Any]:
        """Everything from key generation to the opened head; see the page for what comes back."""
        start = time.perf_counter()
        for _ in STAGES:
            for party in self._parties.values():
                party.advance()
        self.seconds["keys"] = (time.perf_counter() - start) / len(self._parties)
        rows = {name: JointRows(party, self._shards[name]) for name, party in self._parties.items()}
        for one in rows.values():
            one.contribute()
        start = time.perf_counter()
        for name, one in rows.items():
            one.write(self._work / f"rows-{name}")
        self.seconds["rows"] = (time.perf_counter() - start) / len(rows)
        transcript = Transcript(self.terms, self._mailbox)
        write_keys(transcript, self._work / "keys")
        steps, refreshes = self._train(transcript)
        start = time.perf_counter()
        result = list(Bundle(self._work / "head", insecure=self._insecure).items("weights"))
        openings = [Opening(party, result) for party in self._parties.values()]
        for opening in openings:
            opening.consent()
        for opening in openings:
            opening.advance()
        head = openings[0].head()
        self.seconds["opening"] = (time.perf_counter() - start) / len(openings)
        own = next(iter(rows.values()))
        return {
            "heads": [own.raw(self._opened(step)) for step in steps],
            "opened": own.raw(head),
            "refreshes": refreshes,
            "seconds": self.seconds,
            "sent": self._sent(),
            "length": self.terms.length,
            "error": self.terms.error,
        }

    def _train(self, transcript: Transcript) -> tuple[list[list[bytes]], list[dict[str, float]]]:
        """Weights after each step, at any level; and what each refresh cost a hospital."""
        start = time.perf_counter()
        data = [self._work / f"rows-{name}" for name in self._shards]
        study = open_study(self._work / "keys", data, insecure=self._insecure)
        self.seconds["loading"] = time.perf_counter() - start
        engine = study.trainer.engine
        steps: list[list[bytes]] = []

        def keep(state: State) -> None:
            print(f"step {state.step} at level {state.weights[0][0].level}", flush=True)
            steps.append([engine.dump(c) for row in state.weights for c in row])

        refreshes: list[dict[str, float]] = []

        def refresh(number: int, weights: list[Ciphertext]) -> list[Ciphertext]:
            stale, asked = [engine.dump(c) for c in weights], time.perf_counter()
            for party in self._parties.values():
                Refresh(party.transcript, number, stale).answer(party)
            seconds = (time.perf_counter() - asked) / len(self._parties)
            refreshes.append({"seconds": seconds, "received": sum(map(len, frame(stale)))})
            return [engine.load(data) for data in Refresh(transcript, number, stale).fresh()]

        start = time.perf_counter()
        program = study.manifest.checked_program
        weights = study.trainer.train(program, on_step=keep, refresh=refresh)
        away = len(self._parties) * sum(one["seconds"] for one in refreshes)
        self.seconds["training"] = time.perf_counter() - start - away
        write_head(self._work / "head", study.manifest, dumped(study.trainer, weights))
        return steps, refreshes

    def _opened(self, weights: Sequence[bytes]) -> Any:
        """Weights in clear: all hospitals' shares in one place, as no study may have them."""
        p, layout = self.terms.checked_parameters, self.terms.checked_layout
        values = []
        for data, period in zip(weights, self.terms.periods, strict=True):
            opened = Opened.read(data, p, read_header(data, p).limbs - 1, period)
            parts = [party.share.partial(opened, np.zeros(period)) for party in self._parties.values()]
            values.append(fuse(opened, parts, p))
        return unpack_weights(values, layout)

    def _party(self, name: str) -> Party:
        return Party(
            self.terms,
            self.terms,
            name,
            self._identities[name],
            self._mailbox,
            self._work / name,
            insecure=self._insecure,
        )

    def _sent(self) -> dict[str, int]:
        """Bytes of one hospital's messages in each stage."""
        found: dict[str, int] = {}
        for path in sorted((self._work / "mailbox").rglob(f"*.{next(iter(self._shards))}")):
            stage = path.parent.name.partition("-")[0]
            found[stage] = found.get(stage, 0) + path.stat().st_size
        return found
