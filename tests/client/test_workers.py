"""Encryption on all cores: ordered, bounded, without a trace when it ends, and never one randomness twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest

from blindtune.client.workers import cores, ordered
from blindtune.errors import EngineError
from blindtune.he import blob
from blindtune.he.secret import SecretKey


@pytest.fixture(autouse=True)
def children() -> Iterator[Callable[[], list[psutil.Process]]]:
    """The children that this test started: others' servers may stand beside them. None stays."""
    before, others = psutil.Process().num_fds(), set(psutil.Process().children())

    def own() -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if child not in others]

    yield own
    assert not own()
    # A key keeps one memory file for what it reads.
    assert psutil.Process().num_fds() <= before + 1


def number(task: int) -> bytes:
    return f"{task} ".encode() * 50_000


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 5, 12])
def test_in_order(workers: int, count: int) -> None:
    with ordered(lambda: range(count), number, workers) as results:
        assert list(results) == [number(n) for n in range(count)]


def test_in_other_processes() -> None:
    with ordered(lambda: range(8), lambda _: str(os.getpid()).encode(), 2) as results:
        found = list(results)
    assert len(set(found)) == 2
    assert found == found[:2] * 4
    assert str(os.getpid()).encode() not in found


def test_no_worker_runs_ahead(children: Callable[[], list[psutil.Process]]) -> None:
    """Results wait in the workers until they are wanted: here they are larger than a pipe."""
    with ordered(lambda: range(100), lambda n: bytes([n]) + bytes(3 << 20), 2) as results:
        started = [next(results)[0] for _ in range(4)]
        time.sleep(0.3)
        sizes = [p.memory_info().rss for p in children()]
        assert started == [0, 1, 2, 3]
        assert max(sizes) < psutil.Process().memory_info().rss + (64 << 20)


def test_closed_early() -> None:
    with ordered(lambda: iter(range(10**9)), number, 2) as results:
        assert next(results) == number(0)


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_come_back(workers: int) -> None:
    def fail(task: int) -> bytes:
        if task == 3:
            raise EngineError("too large", remedy="Scale it.")
        return b"x"

    with (
        pytest.raises(EngineError, match=r"^too large. Scale it.$"),
        ordered(lambda: range(9), fail, workers) as results,
    ):
        list(results)


@pytest.mark.parametrize("end", [lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)])
def test_a_worker_that_dies(end) -> None:
    with (
        pytest.raises(EngineError, match="worker died"),
        ordered(lambda: range(9), lambda n: b"x" if n < 4 else end(), 2) as results,
    ):
        list(results)


def test_unexpected_errors_are_named() -> None:
    with (
        pytest.raises(EngineError, match="ZeroDivisionError in an encryption worker"),
        ordered(lambda: range(9), lambda n: str(1 / (n - 5)).encode(), 2) as results,
    ):
        list(results)


def test_ctrl_c_is_for_the_parent(children: Callable[[], list[psutil.Process]]) -> None:
    """A terminal sends it to all: workers go on as if nothing had happened, until they are ended."""
    with ordered(lambda: range(40), lambda n: (time.sleep(0.01), number(n))[1], 2) as results:
        next(results)
        for child in children():
            child.send_signal(signal.SIGINT)
        assert list(results) == [number(n) for n in range(1, 40)]
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with (
        pytest.raises(KeyboardInterrupt),
        ordered(lambda: range(10**6), lambda _: (time.sleep(0.01), b"x")[1], 2) as results,
    ):
        list(timer.start() or results)
    timer.join()


def test_workers_share_no_randomness(tiny_key: SecretKey) -> None:
    """One plaintext, many workers: every seed and every first polynomial is another one."""
    values = np.ones(512)

    def draw() -> list[bytes]:
        with ordered(lambda: [values] * 40, tiny_key.encrypt, 4) as results:
            return list(results)

    # And a second round forked from the same state of this process.
    found = draw() + draw()
    assert len({data[16:80] for data in found}) == len({data[80:] for data in found}) == 80
    for data in found[::9]:
        np.testing.assert_allclose(tiny_key.decrypt(tiny_key.load(data)), values, atol=2e-6)


def test_keys_share_no_randomness(tiny_key: SecretKey) -> None:
    with ordered(lambda: [3] * 6, tiny_key.galois_key, 3) as results:
        keys = list(results)
    digits = tiny_key.parameters.levels + 1
    seeds = {data[16 + 64 * i : 80 + 64 * i] for data in keys for i in range(digits)}
    assert len(seeds) == 6 * digits
    assert {len(data) for data in keys} == {blob.key_bytes(tiny_key.parameters)}


def test_cores() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
