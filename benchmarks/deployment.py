"""Seconds and bytes of a federated round between processes: an aggregator and three hospitals over TLS.

    sudo python -m benchmarks.deployment [--delays 0 10 100] [--rounds 6]

Each hospital has a network namespace and a virtual cable of its own; bytes are those of the cables, with
headers, polling and signs of life. Delays come from a relay on the aggregator's side that holds back what
passes in both directions: the kernel's netem is not everywhere. Written to
``benchmarks/results/deployment.json`` and ``docs/benchmarks/deployment.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import ROOT, keep, machine
from benchmarks.page import table
from blindtune.federation.flower import certificates
from blindtune.federation.members import Members, make, write
from blindtune.federation.plans import complete

PAGE = ROOT / "docs" / "benchmarks" / "deployment.md"
NAMES = ("east", "north", "west")
MODELS = {"a head": (192, 3), "a network's size": (16381, 347)}
"""Features and classes: (features + 1) * classes values. Classes without cases have the same weights; rows
that do not fill pieces evenly keep them from being sent once for all."""
PORT, RELAY = 8443, 8444
FIRST = 2
"""Rounds that do not count: hospitals come in, and connections are made."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delays", type=int, nargs="*", default=[0, 10, 100], help="one way, in ms")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--relay", nargs=2, metavar=("HOST", "MS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.relay:
        with suppress(KeyboardInterrupt):
            asyncio.run(relay(given.relay[0], int(given.relay[1]) / 1000))
        return
    rows = []
    with tempfile.TemporaryDirectory() as place, cables():
        for name, (features, classes) in MODELS.items():
            for delay in given.delays:
                study = Path(place) / f"{features}-{delay}"
                rows.append({"model": name, **measured(study, features, classes, delay, given.rounds)})
                print(rows[-1], flush=True)
    found = {"machine": machine(), "flwr": version("flwr"), "rounds": given.rounds - FIRST, "rows": rows}
    keep("deployment", found)
    PAGE.write_text(render(found))
    print(PAGE.read_text())


@contextmanager
def cables() -> Iterator[None]:
    """A namespace for each hospital, with a cable to this one: 10.77.N.1 is here, 10.77.N.2 there."""
    with ExitStack() as stack:
        for i, name in enumerate(NAMES):
            space = f"blindtune-{name}"
            run("ip", "netns", "add", space)
            stack.callback(run, "ip", "netns", "del", space)
            run("ip", "link", "add", f"bt{i}", "type", "veth", "peer", "name", "eth0", "netns", space)
            run("ip", "address", "add", f"10.77.{i}.1/24", "dev", f"bt{i}")
            run("ip", "link", "set", f"bt{i}", "up")
            run("ip", "-n", space, "address", "add", f"10.77.{i}.2/24", "dev", "eth0")
            run("ip", "-n", space, "link", "set", "eth0", "up")
        yield


def run(*command: str) -> None:
    """A command that must work."""
    subprocess.run(command, check=True)


def measured(place: Path, features: int, classes: int, delay: int, rounds: int) -> dict[str, Any]:
    """One study at one delay.

    Args:
        delay: of one way, in ms.
    """
    prepare(place, features, classes, rounds)
    with ExitStack() as stack:

        def start(*command: str, cwd: Path = place, **given: Any) -> subprocess.Popen[str]:
            process = subprocess.Popen([*command], cwd=cwd, text=True, **given)
            stack.callback(end, process)
            return process

        blindtune = (sys.executable, "-m", "blindtune.cli.main", "federate")
        tls = ("--certificate", "server.pem", "--key", "server.key")
        serving = (*blindtune, "serve", "plan.json", "--roster", "roster.json", "--out", "study", *tls)
        aggregator = start(
            *serving, "--host", "0.0.0.0", "--port", str(PORT), "--json", stdout=subprocess.PIPE
        )
        assert aggregator.stdout is not None
        aggregator.stdout.readline()
        for i, name in enumerate(NAMES):
            host, port = f"10.77.{i}.1", PORT
            if delay:
                port = RELAY
                relaying = (sys.executable, "-m", "benchmarks.deployment", "--relay", host, str(delay))
                start(*relaying, cwd=ROOT)
            files = ("--home", name, "--roster", "roster.json", "--ca", "ca.pem", "--data", f"{name}.npz")
            joining = (*blindtune, "join", "plan.json", f"{host}:{port}", *files)
            start("ip", "netns", "exec", f"blindtune-{name}", *joining, stderr=subprocess.DEVNULL)
        done = []
        for line in aggregator.stdout:
            done.append({**json.loads(line), "cables": carried()})
    counted, before = done[FIRST:], done[FIRST - 1 : -1]
    if len(done) != rounds or any(r["attempts"] != 1 or len(r["sites"]) != len(NAMES) for r in counted):
        raise SystemExit(f"rounds that cannot be compared: {counted}")
    wire = [(a["cables"] - b["cables"]) / len(NAMES) for a, b in zip(counted, before, strict=True)]
    return {
        "values": (features + 1) * classes,
        "delay_ms": delay,
        "seconds": statistics.median(r["seconds"] for r in counted),
        "slowest": max(r["seconds"] for r in counted),
        "bytes_of_messages": statistics.median(
            (r["bytes_sent"] + r["bytes_received"]) / len(NAMES) for r in counted
        ),
        "bytes_on_the_cable": statistics.median(wire),
    }


def end(process: subprocess.Popen[str]) -> None:
    """Stop a process as Ctrl-C does, and at last by force."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def prepare(place: Path, features: int, classes: int, rounds: int) -> None:
    """Keys, certificates, plan and random embeddings."""
    place.mkdir()
    certificates.make(place, [f"10.77.{i}.1" for i in range(len(NAMES))])
    cards, names = [], [f"class-{i:03d}" for i in range(classes)]
    rng = np.random.default_rng(0)
    for name in NAMES:
        (place / name).mkdir()
        cards.append(make(place / name, name))
        np.savez(
            place / f"{name}.npz",
            embeddings=rng.normal(size=(60, features)).astype(np.float32),
            labels=np.arange(60) % 3,
            classes=np.array(names[:3]),
            patients=np.arange(60).astype(str),
        )
    write(place / "roster.json", Members(members=cards))
    draft = {
        "study": "deployment",
        "classes": names,
        "model": {"kind": "head", "features": features},
        "rounds": rounds,
        "local": {"every": 1, "unit": "batches", "batch": 1000, "rate": 0.01},
    }
    (place / "draft.json").write_text(json.dumps(draft))
    complete(place / "draft.json", place)


def carried() -> int:
    """Bytes that all cables have carried so far, both ways."""
    folders = [Path(f"/sys/class/net/bt{i}/statistics") for i in range(len(NAMES))]
    return sum(int((f / f"{way}_bytes").read_text()) for f in folders for way in ("rx", "tx"))


async def relay(host: str, seconds: float) -> None:
    """Pass connections on to the aggregator, and what goes over them so much later."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def send() -> None:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not data:
                    break
                writer.write(data)
                await writer.drain()

        sending = asyncio.create_task(send())
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                waiting.put_nowait((loop.time() + seconds, data))
        waiting.put_nowait((loop.time() + seconds, b""))
        with suppress(ConnectionError):
            await sending
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection("127.0.0.1", PORT)
        await asyncio.gather(pump(reader, onward[1]), pump(onward[0], writer))

    async with await asyncio.start_server(accept, host, RELAY) as server:
        await server.serve_forever()


def render(found: dict[str, Any]) -> str:
    """The page."""
    m = found["machine"]
    heads = [
        "model",
        "values",
        "one-way delay",
        "seconds a round",
        "slowest",
        "MB of messages",
        "MB on the cable",
    ]
    rows = [
        [
            r["model"],
            f"{r['values']:,}",
            f"{r['delay_ms']} ms",
            f"{r['seconds']:.2f}",
            f"{r['slowest']:.2f}",
            f"{r['bytes_of_messages'] / 1e6:.3f}",
            f"{r['bytes_on_the_cable'] / 1e6:.3f}",
        ]
        for r in found["rows"]
    ]
    return f"""# Rounds over a network

Written by `python -m benchmarks.deployment`. One aggregator and {len(NAMES)} hospitals, each a process, over
TLS 1.3; each hospital in a network namespace of its own. All on {m["cores"]} cores of {m["cpu"]}, with a load
of {m["load_at_start"]:.1f} at the start, Python {m["python"]}, flwr {found["flwr"]}, commit {m["commit"]}.
Secure sums; one step on 60 rows a round: what is measured is the transport and the aggregation. Medians
of {found["rounds"]} rounds, bytes of one hospital both ways; `on the cable` with headers, polls and signs of
life. Delays are made by a relay that holds back both directions (this kernel has no netem): TCP itself sees
none, so that slow starts of real lines are not in it.

{table(heads, rows)}

A round is seven questions to every hospital: who is there, the round's model, and the five messages of the
secure sum. A hospital looks for its next question every tenth of a second.
"""


if __name__ == "__main__":
    main()
