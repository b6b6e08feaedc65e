"""Kill a server and its workers at random moments while studies are sent and trained, and look what is lost.

    python -m benchmarks.faults [--kills 200]

Two clients send studies of their own encryption, start them, wait and fetch the heads, and go on after every
broken connection as their users would. All the while SIGKILL falls on a worker, on the server, or on all of
its processes at once. What was acknowledged must be there at the end: bundles, jobs, one head each, equal
byte by byte to a training here that nothing disturbed.
"""

from __future__ import annotations

import argparse
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks.commands import ROOT, keep, machine
from blindtune.client.remote import Remote
from blindtune.errors import RemoteError
from blindtune.he.secret import SecretKey
from blindtune.kernels.layout import Layout
from blindtune.kernels.packing import pack_block, pack_lanes
from blindtune.kernels.training import Program
from blindtune.params import INSECURE, ParametersLiteral
from blindtune.server.leases import ATTEMPTS
from blindtune.wire.bundle import PARTS, write_bundle
from blindtune.wire.manifest import Manifest, layout_model, parameters_model, program_model
from blindtune.wire.study import train_here

PAGE = ROOT / "docs" / "benchmarks" / "faults.md"
STEPS = 5
LONGEST = 12.0
"""Seconds between two kills at most; a worker takes some before its first step, many on a busy machine."""

SERVER = """
import sys
from pathlib import Path
from blindtune.server.run import serve
serve(Path(sys.argv[1]), port=int(sys.argv[2]), token=sys.argv[3], workers=2, cores=1, insecure=True)
"""


class Client:
    """A hospital with a key; each of its studies is encrypted anew."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._program = Program(STEPS, 3, (0,) * STEPS, (1.0, *[0.9] * (STEPS - 1)))
        p = ParametersLiteral(1024, self._program.levels, security=INSECURE).checked()
        self._layout, self._parameters = Layout(p.slots, 2, (128,), 1, 1, 1), p
        self.key = SecretKey.generate(p)
        keys = self._layout.keys()
        galois = [self.key.galois_key(e) for e in self.key.galois_elements(keys)]
        self._keys = [("relinearisation", [self.key.relinearisation_key()]), ("galois", galois)]

    def study(self) -> tuple[str, Path, list[Path], bytes]:
        """A study's identifier, its directory, its bundles, and the head of an undisturbed training."""
        study, rng = secrets.token_hex(16), np.random.default_rng()
        directory = self._place / study
        directory.mkdir()
        shape = (self._layout.rows, 2)
        x, targets = rng.normal(size=(shape[0], 11)) / 40, rng.normal(size=shape)
        blocks: dict[int, list[bytes]] = {}
        for (j, _, _), slots in pack_block(x, self._layout):
            blocks.setdefault(j, []).append(self.key.encrypt(slots))
        terms = [targets, np.full(shape, 0.3), np.full(shape, -0.1)]
        residual = [self.key.encrypt(pack_lanes(t, self._layout)) for t in terms]
        parts = [*((f"data-0-{j}", items) for j, items in blocks.items()), ("residual-0-0-0", residual)]
        write_bundle(directory / "keys", self._manifest("keys", study), self._keys)
        write_bundle(directory / "data", self._manifest("data", study), parts)
        train_here(directory / "keys", [directory / "data"], directory / "undisturbed", insecure=True)
        head = (directory / "undisturbed" / PARTS / "weights").read_bytes()
        return study, directory, [directory / "keys", directory / "data"], head

    def _manifest(self, kind: Any, study: str) -> Manifest:
        return Manifest(
            kind=kind,
            study=study,
            members=["north"],
            member="north",
            key=self.key.key_id,
            parameters=parameters_model(self._parameters),
            layout=layout_model(self._layout),
            program=program_model(self._program),
            parts=[],
        )


class Trial:
    """A server under fire, and what came of the studies that were sent to it."""

    def __init__(self, place: Path, kills: int) -> None:
        self._place, self._left = place, kills
        self._token = secrets.token_urlsafe(32)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._lock = threading.Lock()
        self.found = dict.fromkeys(
            (
                "killed_worker",
                "killed_server",
                "killed_all",
                "studies",
                "jobs",
                "broken_connections",
                "given_up_and_tried_again",
                "uploads_lost",
                "jobs_lost",
                "heads_that_differ",
                "jobs_done_more_than_once",
            ),
            0,
        )
        self._server = self._start()

    def run(self) -> dict[str, int]:
        """Until so many kills have fallen and all studies are done."""
        clients = [threading.Thread(target=self._client, args=(n,), daemon=True) for n in range(2)]
        for client in clients:
            client.start()
        while self._left > 0:
            time.sleep(random.uniform(0, LONGEST))
            self._kill()
            if not all(client.is_alive() for client in clients):
                raise SystemExit("a client gave up: what it said stands above")
        for client in clients:
            client.join()
        self._server.terminate()
        self._server.wait(60)
        return self.found

    def _kill(self) -> None:
        workers = psutil.Process(self._server.pid).children(recursive=True)
        workers = [w for w in workers if "blindtune.server.process" in _arguments(w)]
        kind = random.choice(("worker", "worker", "worker", "server", "all"))
        # Kills of what is not up yet would only look like more.
        if not self._answers() or (kind != "server" and not workers):
            return
        if kind != "worker":
            self._server.kill()
        for worker in workers if kind == "all" else [random.choice(workers)] if kind == "worker" else []:
            with suppress(psutil.Error):
                worker.kill()
        if kind != "worker":
            self._server.wait()
            self._server = self._start()
        self._count(f"killed_{kind}")
        self._left -= 1
        print(f"{self._left} kills left, {self.found}", flush=True)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self._port}/v1/ready", timeout=2).is_success
        except httpx.HTTPError:
            return False

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SERVER, str(self._place / "server"), str(self._port), self._token]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def _client(self, number: int) -> None:
        place = self._place / f"client-{number}"
        place.mkdir()
        client = Client(place)
        while self._left > 0:
            self._one(client)

    def _one(self, client: Client) -> None:
        study, directory, bundles, head = client.study()
        with Remote(f"http://127.0.0.1:{self._port}", self._token, insecure=True) as there:
            self._insist(there.submit, bundles)
            status = self._insist(there.status, study)
            self._count("uploads_lost", not status.keys or status.uploaded != ["north"])
            self._insist(there.start, study)
            self._count("jobs")
            while (state := self._insist(there.status, study).state) in ("queued", "running", "failed"):
                if state == "failed":
                    self._count("given_up_and_tried_again")
                    self._insist(there.start, study)
                time.sleep(0.2)
            self._count("jobs_lost", state != "done")
            self._insist(there.fetch, study, directory / "head", key=client.key.key_id)
            same = (directory / "head" / PARTS / "weights").read_bytes() == head
            self._count("heads_that_differ", not same)
            jobs = self._insist(there._http.json, "GET", f"/jobs?study={study}")["items"]
            self._count("jobs_done_more_than_once", sum(job["state"] == "done" for job in jobs) != 1)
        self._count("studies")

    def _insist(self, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """As a user does it: again, until the server is back."""
        while True:
            try:
                return call(*given, **named)
            except RemoteError as error:
                if not any(said in str(error) for said in ("cannot reach", "broke off", "mid-", "503")):
                    raise
                self._count("broken_connections")
                time.sleep(0.5)

    def _count(self, name: str, more: int = 1) -> None:
        with self._lock:
            self.found[name] += more


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def main() -> None:
    """Kill, count, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = Trial(Path(place), given.kills).run()
    result = {"machine": machine(), "steps": STEPS, **found}
    keep("faults", result)
    PAGE.write_text(page(result))


def page(r: dict[str, Any]) -> str:
    """The page of a result."""
    kills = r["killed_worker"] + r["killed_server"] + r["killed_all"]
    rows = [
        ("acknowledged bundles that were lost", "studies", "uploads_lost"),
        ("acknowledged jobs that were lost", "jobs", "jobs_lost"),
        ("jobs done more than once", "jobs", "jobs_done_more_than_once"),
        ("heads that differ from an undisturbed training's in any byte", "studies", "heads_that_differ"),
        (f"jobs given up after {ATTEMPTS} kills without a step", "jobs", "given_up_and_tried_again"),
    ]
    table = "\n".join(f"| {said} | {r[of]} {of} | {r[count]} |" for said, of, count in rows)
    return f"""# Faults: kills of a server and its workers

Written by `python -m benchmarks.faults` on {r["machine"]["cpu"]}, blindtune {r["machine"]["commit"]}.

Two clients sent {r["studies"]} studies of {r["steps"]} steps, one after the other, each encrypted anew, to a
server with two workers, while SIGKILL fell {kills} times at random moments: {r["killed_worker"]} times on a
worker, {r["killed_server"]} times on the server, {r["killed_all"]} times on the server and all its workers at
once. A killed server was started again on the same directory. The clients met {r["broken_connections"]}
broken connections and went on by calling again what had failed.

| at the end | of | count |
|---|---|---|
{table}

A job that was given up says why, and goes on from its last step when it is started again.
"""


if __name__ == "__main__":
    main()
