"""Requests under load while studies train: how long health takes to answer, and what it costs the training.

    python -m benchmarks.load --work /tmp/load [--requests 10000] [--rate 50] [--rows 50000] [--classes 40]

Two studies train at a time, by turns alone and while a second process asks, until enough was asked: half of
its requests are for health, half for studies, jobs and who one is. Studies are uploaded before; requests end
with the first of the two trainings. The slowdown is that of the medians within this one run. Written to
``docs/benchmarks/load.md`` and ``benchmarks/results/load.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from benchmarks.commands import ROOT, blindtune, keep, machine, serving
from benchmarks.datasets import synthetic
from benchmarks.memory import peak_bytes

PAGE = ROOT / "docs" / "benchmarks" / "load.md"
CONNECTIONS = 16
Answer = tuple[str, int, float]
"""Path, status and seconds of a request."""

OTHERS = ("/v1/studies", "/v1/jobs", "/v1/self", "/v1/studies?limit=1")


async def ask(port: int, token: str, rate: float, asking: Callable[[], bool]) -> list[Answer]:
    """Ask at a rate, however long answers take, as long as it is said."""
    found: list[Answer] = []
    began = time.perf_counter()

    async def connection(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in itertools.count(first, CONNECTIONS):
            await asyncio.sleep(max(0.0, number / rate - (time.perf_counter() - began)))
            if not asking():
                break
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


def submit(url: str, token: str, studies: list[Path]) -> list[str]:
    """Submit all studies, without starting them; their identifiers."""
    found = []
    with httpx.Client(base_url=f"{url}/v1", headers=_headers(token), timeout=60) as http:
        for study in studies:
            name = json.loads((study / "outbox" / "data" / "manifest.json").read_text())["study"]
            # A trained study is trained once: each training is of a study of its own.
            http.delete(f"/studies/{name}")
            blindtune("submit", str(study), "--server", url, "--no-start", token=token)
            found.append(name)
    return found


def train(url: str, token: str, names: list[str], ending: Callable[[], object] = lambda: None) -> list[float]:
    """Train studies that were submitted, at a time; the seconds of each training.

    Args:
        ending: called when the first of them ends.
    """
    with httpx.Client(base_url=f"{url}/v1", headers=_headers(token), timeout=60) as http:
        started = [http.post(f"/studies/{name}/jobs").json()["id"] for name in names]
        told = False
        while going := sum(http.get(f"/jobs/{j}").json()["state"] in ("queued", "running") for j in started):
            if going < len(started) and not told:
                ending()
                told = True
            time.sleep(0.5)
        return [http.get(f"/jobs/{j}/timing").json()["seconds_training"] for j in started]


def asked(
    url: str, token: str, names: list[str], rate: float, file: Path
) -> tuple[list[float], list[Answer]]:
    """Train while a second process asks; seconds of the trainings, and what was answered while all ran."""
    command = [sys.executable, "-m", "benchmarks.load", "--ask", url, "--token", token, "--rate", str(rate)]
    # Answers into a file: nobody reads a pipe while studies train, and answers are more than it holds. In a
    # session of its own: it stands for other machines, and shares nothing with the clients here.
    with (
        file.open("w") as answers,
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=answers, start_new_session=True
        ) as asking,
    ):
        assert asking.stdin is not None
        # It imports before they start, asks from the first line on and until its input ends.
        asking.stdin.write(b"\n")
        asking.stdin.flush()
        seconds = train(url, token, names, asking.stdin.close)
        asking.stdin.close()
    return seconds, [tuple(x) for x in json.loads(file.read_text())]


def measure(work: Path, requests: int, rate: float, rows: int, classes: int) -> dict[str, Any]:
    """Train alone and under load by turns, until enough was asked."""
    studies = [work / f"study-{n}" for n in range(2)]
    data = synthetic(work, rows, 192, classes)
    for study in studies:
        blindtune("encrypt", *data, "--out", str(study))
    alone: list[float] = []
    loaded: list[float] = []
    answers: list[Answer] = []
    cores = str(max(1, (os.cpu_count() or 1) // 2))
    options = ("--workers", "2", "--cores", cores, "--log-level", "error")
    with serving(work / "server", *options) as (url, token, process):
        while len(answers) < requests:
            alone += train(url, token, submit(url, token, studies))
            names = submit(url, token, studies)
            seconds, found = asked(url, token, names, rate, work / "answers.json")
            loaded += seconds
            answers += found
        peak = peak_bytes(process.pid)
    health = sorted(s for path, _, s in answers if path == "/v1/health")
    others = sorted(s for path, _, s in answers if path != "/v1/health")
    return {
        "requests": len(answers),
        "failed": sum(status != 200 for _, status, _ in answers),
        "rate": rate,
        "rows": rows,
        "classes": classes,
        "health_p50": statistics.median(health),
        "health_p99": health[int(0.99 * len(health))],
        "health_most": health[-1],
        "others_p99": others[int(0.99 * len(others))],
        "seconds_alone": alone,
        "seconds_loaded": loaded,
        "slowdown": statistics.median(loaded) / statistics.median(alone) - 1,
        "server_peak": peak,
    }


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


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
commit {m["commit"]}, load {m["load_at_start"]:.1f} at the start. Two studies of {found["rows"]:,} rows and
{found["classes"]} classes trained at a time, by turns alone and while a second process asked over loopback.
Seconds count from when a request was due.

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
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    parser.add_argument("--token", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        sys.stdin.readline()
        ended = threading.Thread(target=sys.stdin.read, daemon=True)
        ended.start()
        port = httpx.URL(given.ask).port or 80
        print(json.dumps(asyncio.run(ask(port, given.token, given.rate, ended.is_alive))))
        return
    if given.work is None:
        parser.error("--work is needed")
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    told = machine()
    found = measure(given.work, given.requests, given.rate, given.rows, given.classes)
    keep("load", found | {"machine": told})
    PAGE.write_text(page(found | {"machine": told}))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
