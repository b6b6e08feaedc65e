"""The product as its users run it: commands with ``--json``, and a server in a process of its own."""

from __future__ import annotations

import json
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from blindtune.client.calibrate import processor
from blindtune.client.remote import Remote
from blindtune.he.cpu import has_ifma

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("tenseal", "numba", "numpy", "torch", "timm", "scikit-learn")


class Failed(Exception):
    """A command of a case that ended with an error."""


def blindtune(*arguments: str, token: str = "") -> dict[str, Any]:
    """Run a command with ``--json``; its answer, with the seconds that it took."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "blindtune.cli.main", *arguments, "--json"],
        env={**os.environ, "BLINDTUNE_TOKEN": token},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Failed(f"blindtune {arguments[0]}: {done.stderr.strip()}")
    return {**json.loads(done.stdout), "wall_seconds": time.perf_counter() - start}


@contextmanager
def server(directory: Path, cores: int) -> Iterator[tuple[str, str]]:
    """A server in a process of its own: its URL and token."""
    with serving(directory, "--cores", str(cores)) as (url, token, _):
        yield url, token


@contextmanager
def serving(directory: Path, *options: str) -> Iterator[tuple[str, str, psutil.Process]]:
    """A server with options of its own: its URL, token and process."""
    token = secrets.token_urlsafe(32)
    command = [sys.executable, "-m", "blindtune.cli.main", "serve", "--data-dir", str(directory)]
    process = subprocess.Popen(
        [*command, "--port", "0", *options],
        env={**os.environ, "BLINDTUNE_TOKEN": token},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), token, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def timing(study: Path, url: str, token: str) -> dict[str, Any]:
    """What a study's training took, by its server."""
    manifest = json.loads((study / "outbox" / "keys" / "manifest.json").read_text())
    with Remote(url, token) as there:
        return there.timing(manifest["study"])


def machine(packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """Where and with what something was measured; with the versions of these packages."""
    memory = next(x for x in Path("/proc/meminfo").read_text().splitlines() if x.startswith("MemTotal"))
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory.split()[1]) / 2**20, 1),
        "ifma": has_ifma(),
        "python": platform.python_version(),
        "packages": {n: version(n) for n in packages},
        "commit": commit(),
        "load_at_start": os.getloadavg()[0],
    }


def commit() -> str:
    """The commit that is checked out, with a mark if more differs from it than what the suite writes."""
    command = ["git", "-C", str(ROOT)]
    found = subprocess.run([*command, "describe", "--always"], capture_output=True, text=True)
    written = (":!benchmarks/results", ":!docs", ":!README.md")
    changed = subprocess.run([*command, "diff", "--quiet", "HEAD", "--", ".", *written]).returncode
    return found.stdout.strip() + "-dirty" * bool(changed)


def keep(name: str, results: dict[str, Any]) -> None:
    """Write ``benchmarks/results/NAME.json``."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")


def kept(name: str) -> dict[str, Any]:
    """What :func:`keep` wrote, or nothing."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found
