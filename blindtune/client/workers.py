"""Work on all cores, its results in order: the binding of SEAL holds the interpreter lock, so processes.

Workers are forked and so share the key; each goes through the same tasks and does every n-th of them.
A pipe holds little, so a worker waits until its result is wanted: memory stays bounded. SEAL asks the
operating system for a new seed for every ciphertext and key, hence a fork copies no random state.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import TypeVar

from blindtune.errors import EngineError

Item = TypeVar("Item")

_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031
"""``fcntl.F_SETPIPE_SZ``, which Python 3.10 lacks."""


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def ordered(
    tasks: Callable[[], Iterable[Item]], work: Callable[[Item], bytes], workers: int
) -> Iterator[Iterator[bytes]]:
    """``work`` of every task, in order.

    Args:
        tasks: called once by every worker: must give the same tasks each time.
        workers: processes; with one, everything happens here.

    Raises:
        EngineError: from ``work``, or a worker died.
    """
    if workers < 2:
        yield map(work, tasks())
        return
    processes: list[ForkProcess] = []
    pipes: list[Connection] = []
    try:
        # Ctrl-C reaches every process of a terminal: it is this one's to handle, so workers never see it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for index in range(workers):
                _start(processes, pipes, (tasks, work, index, workers))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield _results(pipes)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.terminate()
            process.join(10)


def _start(processes: list[ForkProcess], pipes: list[Connection], arguments: tuple[object, ...]) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    with suppress(OSError):
        # A whole ciphertext fits, so that its worker goes on with the next one.
        fcntl.fcntl(theirs.fileno(), _SET_PIPE_SIZE, _PIPE_BYTES)
    pipes.append(ours)
    process = context.Process(target=_serve, args=(*arguments, theirs, list(pipes)), daemon=True)
    with warnings.catch_warnings():
        # Newer Pythons warn of forks beside threads: workers touch nothing that a thread could hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    processes.append(process)
    theirs.close()


def _results(pipes: list[Connection]) -> Iterator[bytes]:
    while True:
        for pipe in pipes:
            try:
                kind, data = pipe.recv_bytes(), pipe.recv_bytes()
            except (EOFError, OSError) as error:
                raise EngineError("an encryption worker died", remedy="It may be out of memory.") from error
            if kind == b"end":
                return
            if kind == b"error":
                what, remedy = json.loads(data)
                raise EngineError(what, remedy=remedy)
            yield data


def _serve(
    tasks: Callable[[], Iterable[Item]],
    work: Callable[[Item], bytes],
    index: int,
    workers: int,
    pipe: Connection,
    others: list[Connection],
) -> None:
    """A worker: ends after its last task, or when nobody reads its pipe any more."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:
        other.close()
    status = 1
    try:
        for number, task in enumerate(tasks()):
            if number % workers == index:
                _send(pipe, b"item", work(task))
        _send(pipe, b"end", b"")
        status = 0
    except EngineError as error:
        _send(pipe, b"error", json.dumps([error.what, error.remedy]).encode())
    except (BrokenPipeError, ConnectionResetError):
        status = 0
    except Exception as error:
        what = f"{type(error).__name__} in an encryption worker"
        _send(pipe, b"error", json.dumps([what, ""]).encode())
    finally:
        os._exit(status)


def _send(pipe: Connection, kind: bytes, data: bytes) -> None:
    pipe.send_bytes(kind)
    pipe.send_bytes(data)
