"""Throw-away environments: a peer is installed from the registry into a folder of the work directory."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "scripts"


class Unavailable(Exception):
    """A peer that cannot be installed or run here, and why."""


@dataclass(frozen=True)
class Peer:
    """A peer that runs as a script in an environment of its own.

    Attributes:
        name: on the command line.
        title: in the table.
        script: file in ``scripts``; it takes --data, --out and --limit.
        python: version of CPython that has wheels of everything.
        requirements: what pip installs.
        limit: encrypted units (epochs, batches, iterations) run unless told otherwise.
        columns: most columns it is given.
        memory: GiB that it takes.
        licence: of the peer.
    """

    name: str
    title: str
    script: str
    python: str
    requirements: tuple[str, ...]
    limit: int
    columns: int
    memory: int
    licence: str


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "concrete",
            "Concrete ML SGDClassifier",
            "concrete_sgd.py",
            "3.10",
            ("concrete-ml==1.9.0",),
            limit=1,
            columns=30,
            memory=6,
            licence="BSD-3-Clause-Clear; no patent licence, commercial use needs one",
        ),
        Peer(
            "openfhe",
            "our circuit on OpenFHE (Nesterov, bootstrapping)",
            "openfhe_nag.py",
            "3.10",
            ("openfhe==1.6.1.0.22.4", "numpy==2.2.6"),
            limit=1,
            columns=30,
            memory=16,
            licence="BSD-2-Clause",
        ),
        Peer(
            "tenseal",
            "TenSEAL CKKSVector loop",
            "tenseal_loop.py",
            "3.11",
            ("tenseal==0.3.18", "numpy==2.2.6"),
            limit=1,
            columns=192,
            memory=2,
            licence="Apache-2.0",
        ),
    )
}


def interpreter(version: str) -> str:
    """A CPython of this version: the running one, one on the path, or one of pyenv's."""
    if sys.version.startswith(version + "."):
        return sys.executable
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{version}"), *sorted(map(str, root.glob(f"{version}.*/bin/python")))]
    for python in filter(None, found):
        # pyenv's shims are on the path for versions that are not switched on, and fail when run.
        if subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            return python
    raise Unavailable(f"no CPython {version} on this machine")


def environment(peer: Peer, work: Path) -> Path:
    """The peer's interpreter, installed when it is missing."""
    folder = work / "environments" / peer.name
    python = folder / "bin" / "python"
    done = folder / "installed.txt"
    wanted = "\n".join(peer.requirements)
    if done.is_file() and done.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [interpreter(peer.python), "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", *peer.requirements],
    ):
        outcome = subprocess.run(command, capture_output=True, text=True)
        if outcome.returncode:
            raise Unavailable(f"{' '.join(command[1:4])}: {outcome.stderr.strip()[-400:]}")
    done.write_text(wanted)
    return python


def run(peer: Peer, data: Path, work: Path, limit: int, cores: int, timeout: float) -> dict[str, Any]:
    """A peer's answer on a table, with the processor seconds and memory of its process."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable")) / 2**20
    if free < peer.memory:
        raise Unavailable(f"takes {peer.memory} GiB of memory, {free:.0f} are free")
    python = environment(peer, work)
    out = work / f"{peer.name}-{data.stem}.json"
    out.unlink(missing_ok=True)
    command = [str(python), str(SCRIPTS / peer.script), "--data", str(data), "--out", str(out)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    load = os.getloadavg()[0]
    try:
        outcome = subprocess.run(
            [*command, "--limit", str(limit)],
            env={**os.environ, "OMP_NUM_THREADS": str(cores)},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"not done after {timeout:.0f} s") from error
    if outcome.returncode:
        raise Unavailable(f"exit status {outcome.returncode}: {outcome.stderr.strip()[-400:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        **json.loads(out.read_text()),
        "seconds_wall": time.perf_counter() - start,
        "seconds_cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "load_at_start": load,
        "command": f"python {peer.script} --data {data.name} --limit {limit}",
    }
