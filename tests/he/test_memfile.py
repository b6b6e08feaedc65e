"""Bytes by path, without a disk and without leaks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blindtune.he import memfile


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(1 << 20)])
def test_round_trip(data: bytes) -> None:
    assert memfile.to_bytes(lambda path: Path(path).write_bytes(data)) == data
    read: list[bytes] = []
    memfile.from_bytes(lambda path: read.append(Path(path).read_bytes()), data)
    assert read == [data]


def test_nothing_stays_open_even_after_errors() -> None:
    def fail(path: str) -> None:
        raise ValueError(path)

    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(ValueError, match="/proc/self/fd/"):
            memfile.to_bytes(fail)
        with pytest.raises(ValueError, match="/proc/self/fd/"):
            memfile.from_bytes(fail, b"data")
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_nothing_reaches_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    memfile.to_bytes(lambda path: Path(path).write_bytes(b"secret"))
    assert list(tmp_path.iterdir()) == []
