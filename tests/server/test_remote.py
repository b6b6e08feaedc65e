"""The client against a real server on a loopback port."""

from __future__ import annotations

import json
import shutil

import httpx
import numpy as np
import pytest

from blindtune.client import remote, transport
from blindtune.client.remote import Remote
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


def test_submitting_again_sends_only_what_is_missing(study, idle_server):
    bundle = study.data("north")
    with client(idle_server) as there:
        opened = there._http.json(
            "POST", f"/studies/{study.id}/bundles", (bundle / "manifest.json").read_bytes()
        )
        assert len(opened["missing"]) == 3
        there.submit([bundle])
        parts = idle_server.store.directory(study.id) / "data" / "north" / "parts"
        before = {p.name: p.stat().st_ino for p in parts.iterdir()}
        there.submit([bundle])
        assert before == {p.name: p.stat().st_ino for p in parts.iterdir()}


def test_server_killed_amid_an_upload_then_submit_completes(study, start_server):
    bundle = study.data("north")
    sizes = [p.stat().st_size for p in (bundle / "parts").iterdir()]
    with start_server(training=False) as first:
        port, there, left = httpx.URL(first.url).port, client(first), [1]

        def fail_midway(count):
            # The first part is through; the second one's connection breaks for good.
            if left[0] == 0:
                raise httpx.WriteError("gone")
            left[0] -= count >= min(sizes)

        with pytest.raises(RemoteError, match=r"mid-upload. Run submit again"):
            there.submit([bundle], fail_midway)
    with pytest.raises(RemoteError, match="cannot reach the server"):
        there.submit([bundle])
    with start_server(port=port, training=False):
        there.submit([bundle])
        assert there.status(study.id).uploaded == ["north"]
    there.close()


def test_wrong_token_is_named(study, idle_server):
    with (
        client(idle_server, "another token entirely") as there,
        pytest.raises(RemoteError, match="does not accept the token") as caught,
    ):
        there.submit([study.data("north")])
    assert idle_server.token not in str(caught.value)
    assert idle_server.store.states.study(study.id) is None


def test_secret_key_in_a_bundle_never_leaves(study, idle_server):
    bundle = study.data("north")
    (bundle / "parts" / "data-0-0").write_bytes(b"blindtune-secret-key 1\n" + study.key.to_bytes())
    with client(idle_server) as there, pytest.raises(BundleError, match="holds a secret key"):
        there.submit([bundle])
    assert idle_server.store.states.study(study.id) is None


def test_flipped_byte_is_refused_by_the_server(study, idle_server):
    bundle = study.data("north")
    part = bundle / "parts" / "data-0-1"
    data = bytearray(part.read_bytes())
    data[1000] ^= 1
    part.write_bytes(data)
    with client(idle_server) as there, pytest.raises(RemoteError, match="data-0-1 arrived altered"):
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
        with pytest.raises(RemoteError, match="no such study"):
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
        with pytest.raises(RemoteError, match="no such study"):
            there.status(study.id)
    assert not idle_server.store.directory(study.id).exists()


def head_of(study, store):
    """A head in its place without training."""
    keys = study.keys()
    for kind, member, path in (("keys", "", keys), *(("data", m, study.data(m)) for m in study.members)):
        place = store._place(study.id, kind, member)
        manifest = remote.Bundle(path, insecure=True).manifest
        store.open_bundle(manifest)
        shutil.rmtree(place.with_name(place.name + ".partial"))
        shutil.copytree(path, place)
        store.complete(study.id, kind, member)
    store.states.queue(study.id)
    store.states.claim()
    weights = [study.key.encrypt(np.zeros(study.parameters.slots))] * 2
    write_bundle(store.head(study.id), study.manifest("head", study.members[0]), [("weights", weights)])
    store.states.finish(study.id)


def test_fetched_head_is_checked(study, idle_server, tmp_path):
    head_of(study, idle_server.store)
    weights = idle_server.store.head(study.id) / "parts" / "weights"
    with client(idle_server) as there:
        with pytest.raises(BundleError, match="something else than this study's head"):
            there.fetch(study.id, tmp_path / "fetched", key="0" * 32)
        there.fetch(study.id, tmp_path / "fetched", key=study.key.key_id)
        with pytest.raises(BundleError, match="exists already"):
            there.fetch(study.id, tmp_path / "fetched", key=study.key.key_id)
        data = bytearray(weights.read_bytes())
        data[500] ^= 1
        weights.write_bytes(data)
        with pytest.raises(BundleError, match="altered or truncated"):
            there.fetch(study.id, tmp_path / "again", key=study.key.key_id)
        weights.write_bytes(bytes(data[:-1]))
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
        if request.url.path.endswith("cancel"):
            return httpx.Response(500, stream=httpx.ByteStream(b"<html>\x1b[31m"))
        if request.url.path.endswith("start"):
            body = json.dumps({"error": "red \x1b[31m", "remedy": ""}).encode()
            return httpx.Response(409, stream=httpx.ByteStream(body))
        return httpx.Response(200, stream=httpx.ByteStream(b'{"state": 1}'))

    with Remote("https://strange.example", "token") as there:
        there._http._http.close()
        there._http._http = httpx.Client(
            transport=httpx.MockTransport(answer), base_url="https://strange.example"
        )
        with pytest.raises(RemoteError, match=r"^strange.example: the server answered 500"):
            there.cancel("0" * 32)
        with pytest.raises(RemoteError, match=r"red  \[31m"):
            there.start("0" * 32)
        with pytest.raises(RemoteError, match="not a blindtune server's"):
            there.status("0" * 32)
