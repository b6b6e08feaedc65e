"""Queue and worker processes: one at a time, cancelled, interrupted, restarted, failed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from blindtune.client.remote import Remote
from blindtune.errors import BlindtuneError, InputError, RemoteError
from blindtune.server import queue
from blindtune.server.run import read_token, serve
from blindtune.wire.bundle import Bundle


def place(study, store):
    """Put a study's bundles where uploads would."""
    for path in study.bundles():
        manifest = Bundle(path, insecure=True).manifest
        store.open_bundle(manifest)
        place = store.directory(study.id) / ("keys" if manifest.kind == "keys" else f"data/{path.name}")
        shutil.rmtree(place.with_name(place.name + ".partial"))
        shutil.copytree(path, place)
        store.complete(study.id, manifest.kind, manifest.member)


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return found


def workers(among=None, argument="blindtune.server.worker"):
    found = []
    for process in among or psutil.Process().children(recursive=True):
        try:
            if argument in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def state(store, study):
    return store.states.study(study.id)["state"]


def test_first_come_first_served_and_cancel_stops_the_worker(slow, study, server):
    store = server.store
    place(slow, store)
    place(study, store)
    store.states.queue(slow.id)
    until(lambda: (store.status(slow.id)["progress"] or {}).get("step"))
    store.states.queue(study.id)
    assert state(store, study) == "queued"
    assert workers()
    store.states.cancel(slow.id)
    until(lambda: state(store, study) == "done")
    assert state(store, slow) == "cancelled"
    until(lambda: not workers())
    assert not store.head(slow.id).exists()


def test_a_stopped_server_leaves_the_study_queued_and_the_next_trains_it(slow, start_server):
    with start_server() as first:
        store = first.store
        place(slow, store)
        store.states.queue(slow.id)
        until(lambda: (store.status(slow.id)["progress"] or {}).get("step"))
    assert not workers()
    assert state(store, slow) == "queued"
    # As a crash would leave it, with a part half received and a directory that nobody knows.
    store.states.claim()
    (store.directory(slow.id) / "incoming").mkdir()
    (store.data_dir / "studies" / ("f" * 32)).mkdir()
    with start_server() as second:
        until(lambda: state(second.store, slow) == "running")
        until(workers)
        second.store.states.cancel(slow.id)
    assert not (store.directory(slow.id) / "incoming").exists()
    assert not (store.data_dir / "studies" / ("f" * 32)).exists()


def test_failures_say_why_in_one_line(study, server):
    store = server.store
    place(study, store)
    part = store.directory(study.id) / "data" / "south" / "parts" / "data-0-0"
    data = bytearray(part.read_bytes())
    data[1000] ^= 1
    part.write_bytes(data)
    store.states.queue(study.id)
    with Remote(server.url, server.token) as there, pytest.raises(RemoteError, match="data-0-0 was altered"):
        there.wait(study.id, poll=0.05)
    error = store.states.study(study.id)["error"]
    assert "\n" not in error
    assert str(store.data_dir) not in error


def test_whole_parts_of_nonsense_are_a_failure_in_one_line(study, server):
    study.key.encrypt = lambda values: b"no ciphertext" * 100
    store = server.store
    place(study, store)
    store.states.queue(study.id)
    until(lambda: state(store, study) == "failed")
    assert store.states.study(study.id)["error"] == (
        "part data-0-0: neither a ciphertext nor a key of this format"
    )


def test_a_passing_failure_of_the_machine_leaves_the_queue_going(study, server, monkeypatch):
    monkeypatch.setattr(queue, "SETBACK", 0)
    popen, failures = queue.subprocess.Popen, [OSError(12, "Cannot allocate memory")]

    def start(*given, **named):
        if failures:
            raise failures.pop()
        return popen(*given, **named)

    monkeypatch.setattr(queue.subprocess, "Popen", start)
    place(study, server.store)
    server.store.states.queue(study.id)
    until(lambda: state(server.store, study) == "done")


def test_a_killed_worker_is_a_failure(slow, server):
    store = server.store
    place(slow, store)
    store.states.queue(slow.id)
    until(lambda: (store.status(slow.id)["progress"] or {}).get("step"))
    workers()[0].kill()
    until(lambda: state(store, slow) == "failed")
    assert "was killed" in store.states.study(slow.id)["error"]
    until(lambda: not workers())


SERVE = """
import sys
from pathlib import Path
from blindtune.server import queue
from blindtune.server.run import serve
serve(Path(sys.argv[1]), port=0, cores=1, insecure=True, ready=lambda port: print(port, flush=True))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_worker_outlives_its_server(slow, tmp_path, number, code):
    data_dir = tmp_path / "data"
    environment = {k: v for k, v in os.environ.items() if k != "BLINDTUNE_TOKEN"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        port = int(process.stdout.readline())
        token = read_token(data_dir)
        assert (data_dir / "token").stat().st_mode & 0o777 == 0o600
        assert data_dir.stat().st_mode & 0o777 == 0o700
        with Remote(f"http://127.0.0.1:{port}", token, insecure=True) as there:
            there.submit(slow.bundles())
            there.start(slow.id)
            until(lambda: there.status(slow.id).progress)
        with pytest.raises(InputError, match="another server uses"):
            serve(data_dir, port=0)
        with pytest.raises(RemoteError, match="cannot listen"):
            serve(tmp_path / "other", port=port)
        process.send_signal(number)
        said, complained = process.communicate(timeout=20)
    assert (process.returncode, said, complained) == (code, "", "")
    until(lambda: not workers(psutil.process_iter(), str(data_dir)))


def test_short_tokens_and_unusable_directories(tmp_path):
    with pytest.raises(BlindtuneError, match="fewer than 16"):
        serve(tmp_path / "a", port=0, token="short")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="data directory cannot be used"):
        serve(tmp_path / "file", port=0)
