"""Where tasks run: in this process, or in forked workers that share the study's ciphertexts.

The binding of SEAL holds the interpreter lock, so threads do not help. Workers are forked after the
study is loaded and share its memory; ciphertexts that pass between them travel as bytes over pipes
(length-framed JSON and engine blobs, no pickle).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import cast

from blindtune.errors import BlindtuneError, EngineError
from blindtune.he.engine import Ciphertext, Ledger
from blindtune.kernels.training import Task, Trainer


class SerialExecutor:
    """Runs tasks here, one after the other; handles are the ciphertexts themselves."""

    workers = 1

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def run(
        self, tasks: Sequence[tuple[Task, Sequence[Ciphertext]]], on_done: Callable[[], None]
    ) -> list[list[Ciphertext]]:
        """See :class:`~blindtune.kernels.training.Executor`."""
        results = []
        for task, inputs in tasks:
            results.append(self._trainer.run(task, inputs))
            on_done()
        return results


class ForkExecutor:
    """Runs tasks in forked workers; handles are serialised ciphertexts. A context manager.

    Args:
        trainer: loaded before the fork, so that its ciphertexts and keys are shared.
        workers: processes.

    Attributes:
        ledger: operations of all workers together.
    """

    def __init__(self, trainer: Trainer, workers: int) -> None:
        self.workers, self.ledger = workers, Ledger()
        fork = multiprocessing.get_context("fork")
        self._processes = []
        self._pipes: list[Connection] = []
        for _ in range(workers):
            ours, theirs = fork.Pipe()
            process = fork.Process(target=_serve, args=(trainer, theirs, [*self._pipes, ours]), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    @property
    def pids(self) -> list[int]:
        """The workers' process identifiers."""
        return [p.pid for p in self._processes if p.pid]

    def __enter__(self) -> ForkExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            if error is not None:
                process.terminate()
            process.join(10)

    def run(
        self, tasks: Sequence[tuple[Task, Sequence[bytes]]], on_done: Callable[[], None]
    ) -> list[list[bytes]]:
        """See :class:`~blindtune.kernels.training.Executor`.

        Raises:
            EngineError: an operation failed in a worker, or a worker died.
        """
        results: list[list[bytes]] = [[] for _ in tasks]
        waiting = list(range(len(tasks)))[::-1]
        idle, busy = list(self._pipes), dict[Connection, int]()
        try:
            while waiting or busy:
                while waiting and idle:
                    pipe, index = idle.pop(0), waiting.pop()
                    task, inputs = tasks[index]
                    _send(pipe, {"kind": task.kind, "numbers": task.numbers}, inputs)
                    busy[pipe] = index
                for ready in wait(list(busy)):
                    pipe = cast(Connection, ready)
                    head, blobs = _receive(pipe)
                    if "error" in head:
                        raise EngineError(str(head["error"]))
                    self._account(head)
                    results[busy.pop(pipe)] = blobs
                    idle.append(pipe)
                    on_done()
        except (EOFError, OSError) as error:
            raise EngineError(
                "a training worker died", remedy="It may have been out of memory: see the plan's memory."
            ) from error
        return results

    def _account(self, head: dict[str, object]) -> None:
        rows = head["ledger"]
        assert isinstance(rows, list)
        for name, level, count, seconds in rows:
            self.ledger.counts[name, level] += count
            self.ledger.seconds[name, level] += seconds


def _serve(trainer: Trainer, pipe: Connection, others: list[Connection]) -> None:
    """A worker's loop: ends when the parent closes its pipe or dies."""
    for other in others:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    engine = trainer.engine
    while True:
        try:
            head, blobs = _receive(pipe)
        except (EOFError, OSError):
            os._exit(0)
        engine.ledger = Ledger()
        try:
            task = Task(str(head["kind"]), tuple(head["numbers"]))  # type: ignore[arg-type]
            out = [engine.dump(c) for c in trainer.run(task, [engine.load(b) for b in blobs])]
        except BlindtuneError as error:
            _send(pipe, {"error": str(error)}, [])
            continue
        except MemoryError:
            _send(pipe, {"error": "a training worker ran out of memory"}, [])
            continue
        ledger = engine.ledger
        rows = [[*key, count, ledger.seconds[key]] for key, count in ledger.counts.items()]
        _send(pipe, {"ledger": rows}, out)


def _send(pipe: Connection, head: dict[str, object], blobs: Sequence[bytes]) -> None:
    pipe.send_bytes(json.dumps({**head, "blobs": len(blobs)}).encode())
    for blob in blobs:
        pipe.send_bytes(blob)


def _receive(pipe: Connection) -> tuple[dict[str, object], list[bytes]]:
    head = json.loads(pipe.recv_bytes())
    return head, [pipe.recv_bytes() for _ in range(head["blobs"])]
