"""The client against a real server on a loopback port."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress

import httpx
import numpy as np
import pytest

from blindtune.client import transport, uploading
from blindtune.client.remote import Remote
from blindtune.client.uploading import Uploading
from blindtune.errors import BundleError, RemoteError
from blindtune.wire.bundle import write_bundle

PHASES = ("forward", "residual", "backward", "update")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(transport, "PAUSES", (0.01, 0.01, 0.01))


def client(server, token=None):
    return Remote(server.url, token or server.token, insecure=True)


def test_two_members_train_as_if_pooled_in_clear(study, server, tmp_path):
    seen, sent = [], []
    with client(server) as there:
        for bundle in study.bundles():
            there.submit([bundle], sent.append)
        assert there.status(study.id).state == "ready"
        there.start(study.id)
        there.wait(study.id, seen.append, poll=0.05)
        manifest = there.fetch(study.id, tmp_path / "head", key=study.key.key_id)
        timing = there.timing(study.id)
    assert manifest.kind == "head"
    assert np.abs(study.decrypt(tmp_path / "head") - study.dense()).max() < 1e-3
    assert sum(sent) == sum(
        f.stat().st_size for n in ("keys", "north", "south") for f in (tmp_path / n / "parts").iterdir()
    )
    last = seen[-1].progress
    assert (last.step, last.steps, last.done, last.eta) == (2, 2, last.total, 0)
    assert last.operations["multiply"] > 0
    assert timing["peak_bytes"] > 1 << 20
    spent = [(row["step"], row["phase"]) for row in timing["phases"]]
    assert spent == [(1, "backward"), (1, "update"), *((2, p) for p in PHASES)]
    seconds = sum(row["seconds"] for row in timing["phases"])
    assert 0 < timing["seconds_operations"] <= seconds <= timing["seconds_training"]
    assert timing["seconds_predicted"] > 0
    assert all(0 < row["calls"] <= row["count"] for row in timing["operations"])
    assert {row["name"] for row in timing["operations"]} >= {"rotate", "relinearise", "rescale"}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_server_on_postgresql_with_blobs_elsewhere(study, start_server, database_url, tmp_path):
    with start_server(database=database_url, blobs=(tmp_path / "far").as_uri()) as server:
        with client(server) as there:
            there.submit(study.bundles())
            there.start(study.id)
            there.wait(study.id, poll=0.05)
            there.fetch(study.id, tmp_path / "head", key=study.key.key_id)
            there.delete(study.id)
        # The worker removes its last checkpoint once the head is told.
        until = time.monotonic() + 60
        while [p for p in (tmp_path / "far").rglob("*") if p.is_file()]:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert not (server.service.data_dir / "state.sqlite").exists()
    assert np.abs(study.decrypt(tmp_path / "head") - study.dense()).max() < 1e-3


def test_submitting_again_sends_only_what_is_missing(study, idle_server, monkeypatch):
    bundle, sent = study.data("north"), []
    send = Uploading._send
    monkeypatch.setattr(Uploading, "_send", lambda *given: sent.append(given) or send(*given))
    with client(idle_server) as there:
        there.submit([bundle])
        assert len(sent) == 3
        counted = []
        there.submit([bundle], counted.append)
        assert len(sent) == 3
        assert sum(counted) == sum(p.stat().st_size for p in (bundle / "parts").iterdir())
        there.delete(study.id)


@pytest.fixture
def relay():
    """Starts a relay to a server that breaks its connections off after so many bytes, a few times."""

    class Relay:
        def __init__(self, url, every, times):
            self.to, self.every, self.left, self.sent = url, every, times, 0
            self.socket = socket.create_server(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
            self.thread = threading.Thread(target=self.run, daemon=True)
            self.thread.start()

        def run(self):
            while True:
                try:
                    here, _ = self.socket.accept()
                except OSError:
                    return
                there = socket.create_connection((self.to.host, self.to.port))
                back = threading.Thread(target=self.pass_on, args=(there, here, False))
                back.start()
                self.pass_on(here, there, True)
                back.join()

        def pass_on(self, source, target, counting):
            passed = 0
            with suppress(OSError):
                while piece := source.recv(1 << 16):
                    target.sendall(piece)
                    passed += len(piece)
                    self.sent += len(piece) * counting
                    if counting and self.left and passed >= self.every:
                        self.left -= 1
                        break
            for end in (source, target):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    made = []

    def start(url, every, times):
        made.append(Relay(httpx.URL(url), every, times))
        return made[-1]

    yield start
    for each in made:
        each.socket.close()


def test_an_upload_goes_on_after_every_break(study, idle_server, relay, monkeypatch):
    """A chunk is sent again for each break at most, and what is counted is what is there."""
    chunk = 1 << 13
    monkeypatch.setattr(uploading, "CHUNK", chunk)
    bundle = study.data("north")
    size = sum(p.stat().st_size for p in (bundle / "parts").iterdir())
    through = relay(idle_server.url, size // 6, 4)
    counted = []
    with Remote(through.url, idle_server.token, insecure=True) as there:
        there.submit([bundle], counted.append)
        assert there.status(study.id).uploaded == ["north"]
    assert through.left == 0
    assert sum(counted) == size
    requests = size // chunk + 30
    assert through.sent < size + 4 * chunk + 600 * requests


def test_server_killed_amid_an_upload_then_submit_completes(study, start_server, monkeypatch):
    monkeypatch.setattr(uploading, "CHUNK", 1 << 15)
    bundle = study.data("north")
    with start_server(training=False) as first:
        port, there, left = httpx.URL(first.url).port, client(first), [5]

        def fail_midway(count):
            # Some chunks are through; the next one's connection breaks for good.
            if left[0] == 0:
                raise httpx.WriteError("gone")
            left[0] -= 1

        with pytest.raises(RemoteError, match=r"mid-upload. Run submit again"):
            there.submit([bundle], fail_midway)
    with pytest.raises(RemoteError, match="cannot reach the server"):
        there.submit([bundle])
    with start_server(port=port, training=False):
        counted = []
        there.submit([bundle], counted.append)
        # It goes on within the part that broke off.
        assert counted[1] >= 1 << 15
        assert there.status(study.id).uploaded == ["north"]
    there.close()


def test_wrong_token_is_named(study, idle_server):
    with (
        client(idle_server, "another token entirely") as there,
        pytest.raises(RemoteError, match="does not accept the token") as caught,
    ):
        there.submit([study.data("north")])
    assert idle_server.token not in str(caught.value)
    assert idle_server.service.studies.status(idle_server.tenant, study.id) is None


def test_secret_key_in_a_bundle_never_leaves(study, idle_server):
    bundle = study.data("north")
    (bundle / "parts" / "data-0-0").write_bytes(b"blindtune-secret-key 1\n" + study.key.to_bytes())
    with client(idle_server) as there, pytest.raises(BundleError, match="holds a secret key"):
        there.submit([bundle])
    assert idle_server.service.studies.status(idle_server.tenant, study.id) is None


def test_flipped_byte_is_refused_by_the_server(study, idle_server):
    bundle = study.data("north")
    part = bundle / "parts" / "data-0-1"
    data = bytearray(part.read_bytes())
    data[1000] ^= 1
    part.write_bytes(data)
    with client(idle_server) as there, pytest.raises(RemoteError, match="arrived altered"):
        there.submit([bundle])


def test_data_under_another_key_are_refused(make_study, idle_server):
    one = make_study("one")
    other = make_study("other", id=one.id)
    with client(idle_server) as there:
        there.submit([one.keys()])
        with pytest.raises(RemoteError, match="another key"):
            there.submit([other.data("south")])


def test_unknown_study_and_states_in_words(study, idle_server, tmp_path):
    with client(idle_server) as there:
        with pytest.raises(RemoteError, match="no such thing here"):
            there.status("0" * 32)
        with pytest.raises(RemoteError, match="32 hexadecimal digits"):
            there.status("../secrets")
        there.submit([study.data("north")])
        with pytest.raises(RemoteError, match="not uploaded yet: south, the evaluation keys"):
            there.start(study.id)
        with pytest.raises(RemoteError, match="not trained yet"):
            there.fetch(study.id, tmp_path / "head", key=study.key.key_id)
        with pytest.raises(RemoteError, match="uploading, not in training"):
            there.wait(study.id)
        with pytest.raises(RemoteError, match="nothing to cancel"):
            there.cancel(study.id)
        there.delete(study.id)
        with pytest.raises(RemoteError, match="no such thing here"):
            there.status(study.id)
    assert not [p for p in (idle_server.service.data_dir / "blobs").rglob("*") if p.is_file()]


def test_fetched_head_is_checked(study, idle_server, tmp_path):
    service, tenant = idle_server.service, idle_server.tenant
    with client(idle_server) as there:
        there.submit([study.keys()])
        # A head in its place without training.
        items = [study.key.encrypt(np.zeros(study.parameters.slots))] * 2
        manifest = write_bundle(tmp_path / "made", study.manifest("head", "north"), [("weights", items)])
        service.contents.keep(tenant, tmp_path / "made" / "parts" / "weights")
        with service.database.transaction() as db:
            service.studies.put_head(db, tenant, study.id, manifest)
        with pytest.raises(BundleError, match="something else than this study's head"):
            there.fetch(study.id, tmp_path / "fetched", key="0" * 32)
        there.fetch(study.id, tmp_path / "fetched", key=study.key.key_id)
        with pytest.raises(BundleError, match="exists already"):
            there.fetch(study.id, tmp_path / "fetched", key=study.key.key_id)
        weights = service.contents.path(tenant, manifest.parts[0].sha256)
        data = bytearray(weights.read_bytes())
        data[500] ^= 1
        for damaged in (bytes(data), bytes(data[:-1])):
            weights.write_bytes(damaged)
            with pytest.raises(BundleError, match="altered or truncated"):
                there.fetch(study.id, tmp_path / "again", key=study.key.key_id)
    assert not list(tmp_path.glob("again*"))


@pytest.mark.parametrize(
    "url", ["ftp://localhost", "localhost:8400", "http://", "http://a:b@localhost", "http://[::"]
)
def test_unusable_address(url):
    with pytest.raises(RemoteError, match="not usable"):
        Remote(url, "token")


def test_plain_http_to_another_machine_needs_a_word():
    with pytest.raises(RemoteError, match="plain http"):
        Remote("http://hospital.example", "token")
    Remote("http://hospital.example", "token", allow_plain_http=True).close()
    Remote("http://[::1]:8400", "token").close()


def test_a_strange_server_is_not_echoed():
    def answer(request):
        if request.method == "DELETE":
            return httpx.Response(500, stream=httpx.ByteStream(b"<html>\x1b[31m"))
        if request.url.path.endswith("jobs"):
            body = json.dumps({"detail": "red \x1b[31m", "remedy": ""}).encode()
            return httpx.Response(409, stream=httpx.ByteStream(body))
        return httpx.Response(200, stream=httpx.ByteStream(b'{"state": 1}'))

    with Remote("https://strange.example", "token") as there:
        there._http._http.close()
        there._http._http = httpx.Client(
            transport=httpx.MockTransport(answer), base_url="https://strange.example"
        )
        with pytest.raises(RemoteError, match=r"^strange.example: the server answered 500"):
            there.delete("0" * 32)
        with pytest.raises(RemoteError, match=r"red  \[31m"):
            there.start("0" * 32)
        with pytest.raises(RemoteError, match="not a blindtune server's"):
            there.status("0" * 32)
