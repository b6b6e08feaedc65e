"""Requests under load while studies train: how long health takes to answer, and what it costs the training.

    python -m benchmarks.load --work /tmp/load [--requests 10000] [--rate 50] [--rows 20000] [--turns 2]

Two studies train at a time, by turns alone and under load from a second process: half of its requests ask
for health, half for studies, jobs and who one is. The slowdown is that of the medians within this one run.
Written to ``docs/benchmarks/load.md`` and ``benchmarks/results/load.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.commands import ROOT, blindtune, keep, machine, serving
from benchmarks.datasets import synthetic
from benchmarks.memory import peak_bytes

PAGE = ROOT / "docs" / "benchmarks" / "load.md"
CONNECTIONS = 16
OTHERS = ("/v1/studies", "/v1/jobs", "/v1/self", "/v1/studies?limit=1")


async def ask(port: int, token: str, count: int, rate: float) -> list[tuple[str, int, float]]:
    """Path, status and seconds of each request; they begin at the rate, however long answers take."""
    found: list[tuple[str, int, float]] = []
    began = time.perf_counter()

    async def connection(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(first, count, CONNECTIONS):
            await asyncio.sleep(max(0.0, number / rate - (time.perf_counter() - began)))
            path = "/v1/health" if number % 2 else OTHERS[number // 2 % len(OTHERS)]
            # From when it was due: a late start is waiting too.
            due = began + number / rate
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            (length,) = [
                int(x.split(b":")[1])
                for x in answer.lower().split(b"\r\n")
                if x.startswith(b"content-length")
            ]
            await reader.readexactly(length)
            found.append((path, int(answer.split()[1]), time.perf_counter() - due))
        writer.close()

    await asyncio.gather(*(connection(n) for n in range(CONNECTIONS)))
    return found


def train(url: str, token: str, studies: list[Path]) -> list[float]:
    """Train all studies at a time; the seconds of each training."""
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=60) as http:
        jobs = []
        for study in studies:
            name = json.loads((study / "outbox" / "data" / "manifest.json").read_text())["study"]
            # A trained study is trained once: each turn is a study of its own.
            http.delete(f"/studies/{name}")
            blindtune("submit", str(study), "--server", url, "--no-start", token=token)
            jobs.append(name)
        started = [http.post(f"/studies/{name}/jobs").json()["id"] for name in jobs]
        while any(http.get(f"/jobs/{j}").json()["state"] in ("queued", "running") for j in started):
            time.sleep(0.5)
        return [http.get(f"/jobs/{j}/timing").json()["seconds_training"] for j in started]


def measure(work: Path, requests: int, rate: float, rows: int, turns: int) -> dict[str, Any]:
    """Train alone and under load, by turns."""
    studies = [work / f"study-{n}" for n in range(2)]
    data = synthetic(work, rows, 192, 10)
    for study in studies:
        blindtune("encrypt", *data, "--out", str(study))
    alone: list[float] = []
    loaded: list[float] = []
    answers: list[tuple[str, int, float]] = []
    cores = str(max(1, (os.cpu_count() or 1) // 2))
    options = ("--workers", "2", "--cores", cores, "--log-level", "error")
    with serving(work / "server", *options) as (url, token, process):
        train(url, token, studies)
        for _ in range(turns):
            alone += train(url, token, studies)
            command = [sys.executable, "-m", "benchmarks.load", "--ask", url, "--token", token]
            command += ["--requests", str(requests // turns), "--rate", str(rate)]
            # Into a file: nobody reads a pipe while studies train, and answers are more than it holds.
            told = work / "answers.json"
            # In a session of its own: it stands for other machines, and shares nothing with the clients here.
            options: dict[str, Any] = {"cwd": ROOT, "start_new_session": True}
            with told.open("w") as file, subprocess.Popen(command, stdout=file, **options) as asking:
                # As long as requests come, trainings follow each other.
                while asking.poll() is None:
                    seconds = train(url, token, studies)
                    if asking.poll() is None or not loaded:
                        loaded += seconds
            answers += [tuple(x) for x in json.loads(told.read_text())]
        peak = peak_bytes(process.pid)
    health = sorted(s for path, _, s in answers if path == "/v1/health")
    others = sorted(s for path, _, s in answers if path != "/v1/health")
    return {
        "requests": len(answers),
        "failed": sum(status != 200 for _, status, _ in answers),
        "rate": rate,
        "rows": rows,
        "health_p50": statistics.median(health),
        "health_p99": health[int(0.99 * len(health))],
        "health_most": health[-1],
        "others_p99": others[int(0.99 * len(others))],
        "seconds_alone": alone,
        "seconds_loaded": loaded,
        "slowdown": statistics.median(loaded) / statistics.median(alone) - 1,
        "server_peak": peak,
    }


def page(found: dict[str, Any]) -> str:
    """The page of the results."""
    m = found["machine"]
    rows = [
        ("requests", f"{found['requests']:,}, {found['rate']:.0f} a second, {found['failed']} failed"),
        ("health, half of them: median", f"{1000 * found['health_p50']:.1f} ms"),
        ("health: 99th percentile", f"{1000 * found['health_p99']:.1f} ms"),
        ("health: slowest", f"{1000 * found['health_most']:.1f} ms"),
        ("studies, jobs, self: 99th percentile", f"{1000 * found['others_p99']:.1f} ms"),
        ("trainings alone, under load", f"{len(found['seconds_alone'])}, {len(found['seconds_loaded'])}"),
        ("training under load, slower by", f"{100 * found['slowdown']:.1f} %"),
        ("server's memory, peak", f"{found['server_peak'] / 1e6:.0f} MB"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""# Requests while studies train

Written by `python -m benchmarks.load` on {m["cpu"]}, {m["cores"]} cores, Python {m["python"]},
commit {m["commit"]}, load {m["load_at_start"]:.1f} at the start. Two studies of {found["rows"]:,} rows
trained at a time, by turns alone and while a second process asked over loopback. Seconds count from when
a request was due.

| | |
|---|---|
{table}
"""


def main() -> None:
    """Measure, and write what was found; with ``--ask`` only ask."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    parser.add_argument("--token", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        port = httpx.URL(given.ask).port or 80
        print(json.dumps(asyncio.run(ask(port, given.token, given.requests, given.rate))))
        return
    if given.work is None:
        parser.error("--work is needed")
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    told = machine()
    found = measure(given.work, given.requests, given.rate, given.rows, given.turns)
    keep("load", found | {"machine": told})
    PAGE.write_text(page(found | {"machine": told}))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
