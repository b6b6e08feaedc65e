"""Blobs in a directory and through fsspec, by one contract; addresses that cannot be used."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from blindtune.errors import InputError, MissingPackageError
from blindtune.server.blobs import DirectoryBlobs, RemoteBlobs, link, open_blobs

ONE, TWO = "a" * 64, "b" * 64


@pytest.fixture(params=["directory", "fsspec"])
def kept(request, tmp_path):
    if request.param == "directory":
        return DirectoryBlobs(tmp_path / "blobs")
    return RemoteBlobs((tmp_path / "far").as_uri(), tmp_path / "cache")


def put(kept, tmp_path, tenant, sha256, content):
    file = tmp_path / "file"
    file.write_bytes(content)
    kept.put(tenant, sha256, file)
    assert not file.exists()


def test_put_read_listed_deleted(kept, tmp_path):
    assert list(kept.names()) == []
    put(kept, tmp_path, "north", ONE, b"one")
    put(kept, tmp_path, "north", TWO, b"two")
    put(kept, tmp_path, "south", ONE, b"another")
    for _ in range(2):
        assert kept.path("north", ONE).read_bytes() == b"one"
    assert kept.path("south", ONE).read_bytes() == b"another"
    assert sorted(kept.names()) == [("north", ONE), ("north", TWO), ("south", ONE)]
    for _ in range(2):
        kept.delete("north", ONE)
    with pytest.raises(FileNotFoundError):
        kept.path("north", ONE)
    assert sorted(kept.names()) == [("north", TWO), ("south", ONE)]


def test_a_deletion_beside_it_takes_no_directory_away_from_a_put(kept, tmp_path):
    def often(name):
        for n in range(100):
            file = tmp_path / f"{name[-1]}-{n}"
            file.write_bytes(b"content")
            kept.put("north", name, file)
            kept.delete("north", name)

    with ThreadPoolExecutor(2) as pool:
        # Two names in the same directory.
        list(pool.map(often, [ONE, ONE[:2] + TWO[2:]]))
    assert list(kept.names()) == []


def test_only_its_owner_reads_the_directory(tmp_path):
    kept = DirectoryBlobs(tmp_path / "blobs")
    put(kept, tmp_path, "north", ONE, b"one")
    assert (tmp_path / "blobs").stat().st_mode & 0o777 == 0o700


def test_a_name_for_a_blobs_file_shares_its_bytes(tmp_path):
    (tmp_path / "one").write_bytes(b"one")
    link(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two").stat().st_ino == (tmp_path / "one").stat().st_ino


def test_addresses(tmp_path, monkeypatch):
    assert open_blobs(None, tmp_path).local
    assert not open_blobs("memory://here", tmp_path).local
    with pytest.raises(InputError, match="cannot be used"):
        open_blobs("nonsense://here", tmp_path)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingPackageError, match="fsspec"):
        open_blobs("memory://here", tmp_path)
