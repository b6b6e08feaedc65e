"""A whole study whose hospitals and server are processes: who ever holds a share, and who can decrypt."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks.joint.attack import attack, files_with, pieces_of, shares_of
from benchmarks.joint.roles import finish, start_role
from benchmarks.joint.task import lay_out
from blindtune.federation.heads import Cases
from blindtune.federation.threshold.terms import Terms
from tests.federation.threshold.conftest import NAMES, Group
from tests.openfhe import needs_openfhe

# Where nothing is compiled yet, four processes compile at once.
pytestmark = [needs_openfhe, pytest.mark.timeout(900)]
CHUNK = 1 << 24
"""Bytes of memory that are looked at together."""


@dataclass(frozen=True)
class Study:
    """The directories after a study, and whose shares were in whose memory while it ran; None if that could
    not be read."""

    work: Path
    terms: Terms
    holders: dict[str, list[str]] | None


@pytest.fixture(scope="module")
def study(draw_group: Callable[[Path], Group], tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Keys, sums, rows, training and opening, at test parameters."""
    work, rng = tmp_path_factory.mktemp("processes"), np.random.default_rng(0)
    group = draw_group(work)
    shards = {
        name: Cases(rng.normal(size=(rows, 6)).astype(np.float32), rng.integers(0, 3, rows))
        for name, rows in zip(NAMES, (21, 9, 15), strict=True)
    }
    lay_out(work, group.terms, group.identities, shards)
    processes = {name: start_role(work, name, sys.executable, "--insecure") for name in NAMES}
    try:
        # Without a server the hospitals wait, their shares in memory.
        while not all((work / "server" / f"rows-{name}" / "manifest.json").exists() for name in NAMES):
            assert all(process.poll() is None for process in processes.values())
            time.sleep(0.1)
        words = {name: share.residues()[0, 0] for name, share in shares_of(work, group.terms).items()}
        holders = {name: in_memory(process.pid, words) for name, process in processes.items()}
        server = start_role(work, "server", sys.executable, "--insecure")
    except BaseException:
        for process in processes.values():
            process.kill()
            process.wait()
        raise
    finish([*processes.values(), server])
    read = {name: found for name, found in holders.items() if found is not None}
    return Study(work, group.terms, read if len(read) == len(NAMES) else None)


def in_memory(pid: int, words: dict[str, np.uint64]) -> list[str] | None:
    """Whose word a process holds in memory that it can write; None if this system does not show it."""
    found = set()
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for line in maps:
                where, rights, *_ = line.split()
                start, end = (int(x, 16) for x in where.split("-"))
                for at in range(start, end, CHUNK) if rights.startswith("rw") else ():
                    memory.seek(at)
                    try:
                        data = np.frombuffer(memory.read(min(CHUNK, end - at)), np.uint64)
                    except OSError:
                        continue
                    found |= {name for name, word in words.items() if (data == word).any()}
    except OSError:
        return None
    return sorted(found)


def test_all_hospitals_open_one_head(study: Study) -> None:
    heads = [np.load(study.work / name / "head.npz") for name in NAMES]
    for head in heads:
        np.testing.assert_array_equal(head["weights"], heads[0]["weights"])
    assert 0 < np.abs(heads[0]["weights"]).max() < 100
    assert not (study.work / "server" / "head.npz").exists()


def test_every_share_lies_in_its_owners_file_alone(study: Study) -> None:
    pieces = {name: pieces_of(share) for name, share in shares_of(study.work, study.terms).items()}
    assert files_with(study.work, pieces) == {name: [f"{name}/private/secret-share"] for name in NAMES}
    for name in NAMES:
        assert (study.work / name / "private" / "secret-share").stat().st_mode & 0o077 == 0
    said = {path.parent.name.partition("-")[0] for path in (study.work / "server" / "mailbox").rglob("*.*")}
    assert said == {"join", "first", "second", "confirm", "sum", "consent", "share"}


def test_every_share_is_in_its_owners_memory_alone(study: Study) -> None:
    if study.holders is None:
        pytest.skip("this system does not show a child's memory")
    assert study.holders == {name: [name] for name in NAMES}


def test_the_server_with_two_of_three_hospitals_cannot_decrypt(study: Study) -> None:
    found = attack(study.work, study.terms, insecure=True)
    assert found["largest_value_opened_by_all"] < 10
    for name in NAMES:
        assert found["largest_value_without"][name] > 10
        assert abs(found["correlation_without"][name]) < 0.5
