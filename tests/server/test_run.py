"""The server as a process: who is let in, who may use the directory, what is left when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from blindtune.client.remote import Remote
from blindtune.errors import BlindtuneError, InputError, RemoteError
from blindtune.server.run import let_in, serve
from blindtune.server.service import Service

SERVE = """
import sys
from pathlib import Path
from blindtune.server.run import serve
serve(Path(sys.argv[1]), port=0, cores=1, insecure=True, ready=lambda port: print(port, flush=True))
"""


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return found


def descendants(process):
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_process_outlives_its_server_and_the_next_goes_on(slow, tmp_path, number, code):
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
        token = (data_dir / "token").read_text().strip()
        assert (data_dir / "token").stat().st_mode & 0o777 == 0o600
        assert data_dir.stat().st_mode & 0o777 == 0o700
        with Remote(f"http://127.0.0.1:{port}", token, insecure=True) as there:
            there.submit(slow.bundles())
            there.start(slow.id)
            until(lambda: (found := there.status(slow.id).progress) and found.step)
        with pytest.raises(InputError, match="another server uses"):
            serve(data_dir, port=0)
        with pytest.raises(RemoteError, match="cannot listen"):
            serve(tmp_path / "other", port=port)
        workers = descendants(process)
        assert workers
        process.send_signal(number)
        said, complained = process.communicate(timeout=240)
    assert (process.returncode, said, complained) == (code, "", "")
    until(lambda: not any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers))
    service = Service.open(data_dir, insecure=True)
    tenant = service.tenants.find("default")
    # After kill -9 the next server finds it running, and gives it back.
    assert service.studies.status(tenant, slow.id)["state"] == ("queued" if code == 0 else "running")
    assert service.tenants.caller(token).tenant == tenant
    service.close()


@pytest.fixture
def service(tmp_path):
    opened = Service.open(tmp_path / "data")
    yield opened
    opened.close()


def test_the_first_start_makes_a_token_and_no_other_does(service):
    let_in(service, None)
    text = (service.data_dir / "token").read_text().strip()
    caller = service.tenants.caller(text)
    assert (caller.tenant, caller.scopes) == (service.tenants.find("default"), {"read", "submit"})
    let_in(service, None)
    assert (service.data_dir / "token").read_text().strip() == text
    assert len(service.tenants.tokens()) == 1
    # When the last one is revoked, nobody else could get in.
    service.tenants.revoke(caller.token)
    let_in(service, None)
    assert service.tenants.caller((service.data_dir / "token").read_text().strip())


def test_tokens_made_before_the_first_start_are_enough(service):
    service.tenants.issue(service.tenants.make("clinic"), ["read", "submit"])
    let_in(service, None)
    assert not (service.data_dir / "token").exists()
    assert service.tenants.find("default") is None


def test_a_given_token_holds_as_long_as_it_is_given(service):
    let_in(service, "sixteen letters!")
    assert service.tenants.caller("sixteen letters!")
    assert not (service.data_dir / "token").exists()
    let_in(service, None)
    assert service.tenants.caller("sixteen letters!") is None
    assert service.tenants.caller((service.data_dir / "token").read_text().strip())


def test_short_tokens_and_unusable_directories(tmp_path):
    with pytest.raises(BlindtuneError, match="fewer than 16"):
        serve(tmp_path / "a", port=0, token="short")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="data directory cannot be used"):
        serve(tmp_path / "file", port=0)
