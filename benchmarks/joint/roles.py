"""The roles of a study with a joint key, each in its own directory: hospitals, and the server between them.

python -m benchmarks.joint.roles DIRECTORY ROLE [--insecure]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import peak_bytes
from blindtune.federation.heads import Cases
from blindtune.federation.identity import Identity
from blindtune.federation.threshold.decryption import Opening
from blindtune.federation.threshold.mailbox import DirectoryMailbox, Mailbox
from blindtune.federation.threshold.party import Party
from blindtune.federation.threshold.rows import JointRows, write_keys
from blindtune.federation.threshold.terms import Terms
from blindtune.federation.threshold.transcript import STAGES, Transcript
from blindtune.he.engines import choose
from blindtune.wire.bundle import Bundle
from blindtune.wire.study import train_here

ROOT = Path(__file__).resolve().parents[2]
PAUSE = 0.2


class Told:
    """What a role spent: seconds by phase, on the clock and on the processor."""

    def __init__(self) -> None:
        self.phases: defaultdict[str, dict[str, float]] = defaultdict(lambda: {"wall": 0.0, "processor": 0.0})

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase, or more of it."""
        wall, busy = time.perf_counter(), time.process_time()
        yield
        self.phases[name]["wall"] += time.perf_counter() - wall
        self.phases[name]["processor"] += time.process_time() - busy

    def write(self, place: Path, **more: Any) -> None:
        """Keep it in a directory."""
        memory = peak_bytes() / 2**30
        (place / "told.json").write_text(json.dumps({"phases": self.phases, "memory_gib": memory, **more}))


class HospitalRole:
    """One hospital, from its own directory and the server's; phases that wait say whether they are through.

    Attributes:
        told: what was spent so far.
        uploaded: bytes of its encrypted rows.
    """

    def __init__(
        self, work: Path, name: str, mailbox: Mailbox | None = None, *, insecure: bool = False
    ) -> None:
        self._place, self._server, self.told = work / name, work / "server", Told()
        self._insecure = insecure
        self.uploaded = 0
        self.party = Party(
            Terms.parse((self._server / "terms.json").read_bytes()),
            Terms.parse((self._place / "terms.json").read_bytes()),
            name,
            Identity.read(self._place / "identity.pem"),
            mailbox or DirectoryMailbox(self._server / "mailbox"),
            self._place / "private",
            insecure=insecure,
        )

    def keys(self) -> bool:
        """Make the joint keys."""
        with self.told.phase("keys"):
            return not self.party.advance().absent

    def moments(self) -> bool:
        """Add to the sum that rows are whitened by."""
        with self.told.phase("moments"):
            return not self._rows.sum.advance().absent

    def encrypt(self) -> None:
        """Leave encrypted rows at the server."""
        with self.told.phase("encrypt"):
            manifest = self._rows.write(self._server / f"rows-{self.party.name}")
        self.uploaded = sum(part.size for part in manifest.parts)

    def trained(self) -> bool:
        """Whether the server has trained."""
        return (self._server / "head" / "manifest.json").exists()

    def open(self) -> bool:
        """Consent, answer, and keep the head on raw features."""
        with self.told.phase("open"):
            if self._opening.advance().absent:
                return False
            weights, biases = self._rows.raw(self._opening.head())
        np.savez(self._place / "head.npz", weights=weights, biases=biases)
        return True

    def write(self) -> None:
        """Keep what was spent in the hospital's directory."""
        self.told.write(self._place, upload=self.uploaded, fingerprint=self.party.transcript.fingerprint)

    @cached_property
    def _rows(self) -> JointRows:
        rows = np.load(self._place / "rows.npz")
        found = JointRows(self.party, Cases(rows["features"], rows["labels"]))
        found.contribute()
        return found

    @cached_property
    def _opening(self) -> Opening:
        found = Opening(
            self.party, list(Bundle(self._server / "head", insecure=self._insecure).items("weights"))
        )
        found.consent()
        return found


def main() -> None:
    """Play one role."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("role", help="server, or a hospital's name")
    parser.add_argument("--insecure", action="store_true", help="accept test parameters")
    given = parser.parse_args()
    (serve if given.role == "server" else hospital)(given.work, given.role, insecure=given.insecure)


def hospital(work: Path, name: str, *, insecure: bool = False) -> None:
    """A hospital's process."""
    role = HospitalRole(work, name, insecure=insecure)
    until(role.keys)
    until(role.moments)
    role.encrypt()
    until(role.trained)
    until(role.open)
    role.write()


def serve(work: Path, name: str, *, insecure: bool = False) -> None:
    """The server's process: reads the mailbox, trains on what hospitals left."""
    place, spent = work / name, Told()
    terms = Terms.parse((place / "terms.json").read_bytes())
    transcript = Transcript(terms, DirectoryMailbox(place / "mailbox"))
    until(lambda: not any(transcript.absent(stage) for stage in STAGES))
    with spent.phase("keys"):
        write_keys(transcript, place / "keys")
    bundles = [place / f"rows-{name}" for name in terms.roster.names]
    until(lambda: all((bundle / "manifest.json").exists() for bundle in bundles))
    with spent.phase("train"):
        train_here(place / "keys", bundles, place / "head", insecure=insecure)
    engine = choose(terms.checked_parameters)
    package = "openfhe" if engine == "openfhe" else "tenseal"
    spent.write(place, engine=f"{package} {version(package)}", python=sys.version.split()[0])


def start_role(work: Path, name: str, python: str, *options: str) -> subprocess.Popen[bytes]:
    """A role in a process of its own, whose temporary files lie in its directory too."""
    place = work.resolve() / name
    command = [python, "-m", "benchmarks.joint.roles", str(place.parent), name, *options]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(place)})


def finish(processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait for all; if one fails, the others wait for it no longer.

    Raises:
        RuntimeError: one failed.
    """
    try:
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes):
                raise RuntimeError("a role's process failed")
            time.sleep(PAUSE)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def until(done: Callable[[], bool]) -> None:
    """Wait for something."""
    while not done():
        time.sleep(PAUSE)


def told(place: Path) -> dict[str, Any]:
    """What a role told of itself."""
    found: dict[str, Any] = json.loads((place / "told.json").read_text())
    return found


if __name__ == "__main__":
    main()
