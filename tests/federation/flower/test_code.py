"""An aggregator that has code to hand out: a hospital neither asks for it nor runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from flwr.cli.build import build_fab_from_files
from flwr.supercore.fab import Fab

from blindtune.federation.channel import Request
from blindtune.federation.flower import link as link_module
from blindtune.federation.flower.apps import most_bytes
from blindtune.federation.flower.channel import FlowerChannel
from blindtune.federation.flower.link import Doorkeeper, Tls, link
from blindtune.federation.members import Members, make, write
from blindtune.federation.plans import complete

WATCHED = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"),
    *("pty.spawn", "socket.bind", "socket.connect"),
)
JOIN = f"""
import json, sys
def watch(event, given):
    if event in {WATCHED!r}:
        place = given[1] if event.startswith("socket") else given[0]
        print("AUDIT", json.dumps([event, str(place)]), file=sys.stderr, flush=True)
sys.addaudithook(watch)
import atexit
atexit.register(lambda: print("LOADED", json.dumps(list(sys.modules)), file=sys.stderr))
from blindtune.cli.main import run
run()
"""
CALLS = {
    *("activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "pull-object"),
    *("push-messages", "push-object"),
}


def app_bundle(marker):
    """A Flower app that writes a file when it is imported, as Flower's own tool packs it."""
    code = f"open({str(marker)!r}, 'w').close()\nfrom flwr.clientapp import ClientApp\napp = ClientApp()\n"
    project = """
        [project]
        name = "evil"
        version = "1.0.0"
        license = { file = "LICENSE" }
        dependencies = ["flwr>=1.41.0"]
        [tool.flwr.app]
        publisher = "evil"
        fab-format-version = 1
        flwr-version-target = "1.41.0"
        [tool.flwr.app.components]
        serverapp = "evil:app"
        clientapp = "evil:app"
    """
    files = {"pyproject.toml": textwrap.dedent(project), "evil.py": code, "LICENSE": "Apache-2.0"}
    bundle, _ = build_fab_from_files({name: text.encode() for name, text in files.items()})
    return bundle


@pytest.fixture
def joined(tmp_path, authority, monkeypatch):
    """A hospital in a process of its own, under watch, at an aggregator whose run has code."""
    marker, asked = tmp_path / "ran", []

    class Noting(Doorkeeper):
        async def __call__(self, scope, receive, send):
            if scope["type"] == "http":
                asked.append(scope["path"].rpartition("/")[2])
            await super().__call__(scope, receive, send)

    monkeypatch.setattr(link_module, "Doorkeeper", Noting)
    names, rng = ("north", "south"), np.random.default_rng(0)
    cards = []
    for name in names:
        (tmp_path / name).mkdir()
        cards.append(make(tmp_path / name, name))
    members = Members(members=cards)
    write(tmp_path / "roster.json", members)
    labels = np.arange(40) % 2
    np.savez(
        tmp_path / "data.npz",
        embeddings=rng.normal(size=(40, 5)).astype(np.float32),
        labels=labels,
        classes=np.array(["a", "b"]),
        patients=np.arange(40).astype(str),
    )
    draft = {"study": "s", "classes": ["a", "b"], "model": {"kind": "head", "features": 5}, "rounds": 1}
    (tmp_path / "draft.json").write_text(json.dumps(draft))
    plan = complete(tmp_path / "draft.json", tmp_path)
    limit, tls = most_bytes(plan), Tls(authority / "server.pem", authority / "server.key")
    with link(members.doors, "127.0.0.1", 0, tls, limit) as linked:
        state, bundle = linked.grid.state, app_bundle(marker)
        served = state.run_ids[linked.grid.run.run_id].run
        served.fab_hash = state.store_fab(Fab("", bundle, {}))
        served.fab_id, served.fab_version = "evil/evil", "1.0.0"
        arguments = ["federate", "join", "plan.json", f"127.0.0.1:{linked.port}", "--home", "north"]
        arguments += ["--roster", "roster.json", "--ca", str(authority / "ca.pem"), "--data", "data.npz"]
        process = subprocess.Popen(
            [sys.executable, "-c", JOIN, *arguments, "--fewest", "2"],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "80"},
        )
        try:
            end = time.monotonic() + 60
            while "north" not in linked.online and time.monotonic() < end and process.poll() is None:
                time.sleep(0.1)
            channel = FlowerChannel(linked.grid, linked.nodes, members.roster, plan.digest, limit, 30.0)
            yield channel, process, asked, marker, linked.port
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()


# Of Flower's tool that packs the app.
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_code_that_an_aggregator_sends_is_not_run(joined):
    channel, process, asked, marker, port = joined
    for kind in ("hello", "statistics", "nonsense"):
        assert list(channel.ask({"north": Request(kind, b"{}")})) == ["north"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert not marker.exists()
    # It talked with the aggregator, and never asked for the run or its app.
    assert {"pull-messages", "pull-object", "push-messages"} <= set(asked) <= CALLS
    watched = [
        json.loads(line.removeprefix("AUDIT ")) for line in err.splitlines() if line.startswith("AUDIT")
    ]
    addresses = {place for event, place in watched if event == "socket.connect"}
    assert addresses == {f"('127.0.0.1', {port})"}
    # No process was started, and no port opened: urllib3 tries whether there is IPv6, and listens to nobody.
    [loaded] = [
        json.loads(line.removeprefix("LOADED")) for line in err.splitlines() if line.startswith("LOADED")
    ]
    starters = ("flwr.supernode.", "flwr.superlink.", "flwr.supercore.superexec.", "flwr.cli.")
    assert not [name for name in loaded if f"{name}.".startswith(starters)]
    others = {(event, place) for event, place in watched if event != "socket.connect"}
    assert others <= {("socket.bind", "('::1', 0)")}
