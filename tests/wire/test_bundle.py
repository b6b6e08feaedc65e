"""Bundles on disk: whole or absent, and any tampering refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blindtune.errors import BlindtuneError, BundleError
from blindtune.wire.bundle import (
    Bundle,
    file_sha256,
    frame,
    holds_secret_key,
    sync_directory,
    write_bundle,
)
from blindtune.wire.manifest import MAX_MANIFEST_BYTES, Manifest, expected_parts


def check(directory: Path) -> None:
    """Read a bundle as a server would: manifest, sums, and every item."""
    found = Bundle(directory, insecure=True)
    found.verify()
    for part in found.manifest.parts:
        list(found.items(part.name))


def edit(directory: Path, change: Callable[[dict], None]) -> None:
    path = directory / "manifest.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def replace_part(directory: Path, name: str, data: bytes) -> None:
    """Swap a part's bytes and list it with its true size and sum."""
    (directory / "parts" / name).write_bytes(data)

    def change(value: dict) -> None:
        for part in value["parts"]:
            if part["name"] == name:
                part.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())

    edit(directory, change)


def test_round_trip(bundle: Path) -> None:
    found = Bundle(bundle, insecure=True)
    sizes: list[int] = []
    found.verify(sizes.append)
    assert sum(sizes) == found.size == sum(p.stat().st_size for p in (bundle / "parts").iterdir())
    assert list(found.items("data-1-1")) == [f"data-1-1 {i}".encode() * 3 for i in range(4)]
    assert found.open_part("residual-1-0-0").read_bytes()[:4] == b"BTP1"
    assert not list(bundle.parent.glob("*.partial"))


@given(st.lists(st.binary(max_size=50), max_size=6))
def test_a_frame_is_head_sizes_and_items(items: list[bytes]) -> None:
    data = b"".join(frame(items))
    count = len(items)
    assert data[:8] == b"BTP1" + struct.pack("<I", count)
    sizes = struct.unpack(f"<{count}Q", data[8 : 8 + 8 * count])
    assert list(sizes) == [len(i) for i in items]
    assert data[8 + 8 * count :] == b"".join(items)


def test_insecure_parameters_are_refused_by_default(bundle: Path) -> None:
    with pytest.raises(BundleError, match="insecure"):
        Bundle(bundle)


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def subdirectory(directory: Path) -> None:
    (directory / "parts" / "more").mkdir()


def swap_for_directory(directory: Path) -> None:
    (directory / "parts" / "data-0-0").unlink()
    (directory / "parts" / "data-0-0").mkdir()


def swap_for_link(directory: Path) -> None:
    part = directory / "parts" / "data-0-0"
    part.rename(directory.parent / "elsewhere")
    part.symlink_to(directory.parent / "elsewhere")


def swap_for_pipe(directory: Path) -> None:
    (directory / "parts" / "data-0-0").unlink()
    os.mkfifo(directory / "parts" / "data-0-0")


def link_parts(directory: Path) -> None:
    (directory / "parts").rename(directory.parent / "parts")
    (directory / "parts").symlink_to(directory.parent / "parts")


def swap_two(directory: Path) -> None:
    a, b = directory / "parts" / "data-0-0", directory / "parts" / "data-1-0"
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda d: (d / "manifest.json").unlink(), "no manifest"),
        (lambda d: (d / "manifest.json").write_bytes(b""), "not valid"),
        (lambda d: (d / "manifest.json").write_bytes(b" " * (MAX_MANIFEST_BYTES + 1)), "too large"),
        (lambda d: (d / "notes.txt").write_text("x"), "nothing else"),
        (lambda d: (d / ".hidden").write_text("x"), "nothing else"),
        (lambda d: (d / "parts" / "extra").write_text("x"), "does not list"),
        (subdirectory, "does not list"),
        (swap_for_directory, "missing"),
        (swap_for_link, "a link"),
        (swap_for_pipe, "missing"),
        (link_parts, "a link"),
        (lambda d: (d / "parts" / "data-0-0").unlink(), "missing"),
        (lambda d: (d / "parts" / "data-0-0").write_bytes(b""), "0 bytes instead of"),
        (lambda d: os.truncate(d / "parts" / "data-0-0", 100), "100 bytes instead of"),
        (lambda d: flip(d / "parts" / "data-0-0"), "data-0-0 was altered"),
        (lambda d: flip(d / "parts" / "residual-1-0-1", 9), "altered"),
        (swap_two, "altered"),
        (lambda d: (d / "key").write_text('{"format": "blindtune-secret-key"}'), "holds a secret key"),
        (lambda d: (d / "parts" / "data-0-0").write_bytes(b"blindtune-secret-key"), "holds a secret key"),
        (lambda d: edit(d, lambda m: m["parts"].pop()), "not the ones"),
        (lambda d: edit(d, lambda m: m.update(extra=1)), "not valid"),
        (lambda d: edit(d, lambda m: m["parts"][0].update(sha256="0" * 64)), "altered"),
        (lambda d: edit(d, lambda m: m["parts"][0].update(name="../manifest.json")), "not valid"),
        (lambda d: replace_part(d, "data-0-0", b"BTP1" + struct.pack("<I", 7) + b"\0" * 56), "frame of 8"),
        (lambda d: replace_part(d, "data-0-0", b"BTP2" + struct.pack("<I", 8) + b"\0" * 64), "frame of 8"),
        (lambda d: replace_part(d, "data-0-0", b"BTP1" + struct.pack("<I", 8)), "truncated"),
        (lambda d: replace_part(d, "data-0-0", b"".join(frame([b"x"] * 8)) + b"y"), "do not add up"),
        (lambda d: replace_part(d, "data-0-0", b"".join(frame([b"x"] * 8))[:-1]), "do not add up"),
        (
            lambda d: replace_part(d, "data-0-0", b"BTP1" + struct.pack("<I8Q", 8, *[2**63] * 8)),
            "do not add up",
        ),
        (
            lambda d: replace_part(d, "data-0-0", b"".join(frame([b"x" * 100_000, *[b""] * 7]))),
            "do not add up",
        ),
    ],
)
def test_tampering_is_refused(bundle: Path, tamper: Callable[[Path], object], message: str) -> None:
    check(bundle)
    tamper(bundle)
    with pytest.raises(BundleError, match=message):
        check(bundle)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_is_noticed(bundle: Path, data: st.DataObject) -> None:
    names = sorted(p.name for p in (bundle / "parts").iterdir())
    path = bundle / "parts" / data.draw(st.sampled_from(names))
    before = path.read_bytes()
    flip(path, data.draw(st.integers(0, len(before) - 1)))
    try:
        with pytest.raises(BlindtuneError):
            check(bundle)
    finally:
        path.write_bytes(before)
    check(bundle)


def test_only_listed_parts_open(bundle: Path) -> None:
    found = Bundle(bundle, insecure=True)
    for name in ("../manifest.json", "weights", "", "data-9-9", "/etc/passwd"):
        with pytest.raises(BundleError, match="no part"):
            found.open_part(name)


def test_an_existing_directory_is_never_replaced(
    bundle: Path, make_manifest: Callable[..., Manifest]
) -> None:
    before = file_sha256(bundle / "manifest.json")
    with pytest.raises(BundleError, match="exists already"):
        write_bundle(bundle, make_manifest(), [])
    assert file_sha256(bundle / "manifest.json") == before


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> None:
    def parts() -> Iterator[tuple[str, list[bytes]]]:
        yield "data-0-0", [b"x"] * 8
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "data", make_manifest(), parts())
    assert list(tmp_path.iterdir()) == []


def test_the_wrong_parts_leave_nothing(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> None:
    with pytest.raises(BundleError, match="not the ones"):
        write_bundle(tmp_path / "data", make_manifest(), [("data-0-0", [b"x"] * 8)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("data-0-0", 7, "data-0-0 has 7 items instead of 8"),
        ("data-0-0", 9, "data-0-0 has 9 items instead of 8"),
        ("data-0-0", 0, "data-0-0 has 0 items instead of 8"),
        ("data-7-7", 8, "data-7-7 is not one of the parts"),
        ("../../elsewhere", 8, "is not one of the parts"),
        ("weights", 2, "is not one of the parts"),
    ],
)
def test_a_part_that_cannot_be_read_back_is_not_written(
    tmp_path: Path, make_manifest: Callable[..., Manifest], name: str, count: int, message: str
) -> None:
    def parts() -> Iterator[tuple[str, list[bytes]]]:
        yield name, [b"x"] * count
        raise AssertionError("the first part should have been refused")

    (tmp_path / "in").mkdir()
    with pytest.raises(BundleError, match=message):
        write_bundle(tmp_path / "in" / "data", make_manifest(), parts())
    assert list(tmp_path.rglob("*")) == [tmp_path / "in"]


def test_parts_in_another_order_are_refused(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> None:
    manifest = make_manifest()
    parts = [(n, [b"x"] * c) for n, (c, _) in expected_parts(manifest).items()]
    for wrong in (parts[::-1], [*parts, parts[0]]):
        with pytest.raises(BundleError, match="not the ones"):
            write_bundle(tmp_path / "data", manifest, wrong)
        assert list(tmp_path.iterdir()) == []


def test_all_is_on_the_disk_before_the_bundle_has_its_name(
    tmp_path: Path, make_manifest: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file and directory is synced at its full size, then renamed, then the rename is synced."""
    events: list[tuple[str, str, int]] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(handle: int) -> None:
        events.append(("sync", os.readlink(f"/proc/self/fd/{handle}"), os.fstat(handle).st_size))
        fsync(handle)

    def watched_replace(source: Path, target: Path) -> None:
        events.append(("rename", str(target), 0))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    manifest = make_manifest()
    parts = [(n, [b"x"] * c) for n, (c, _) in expected_parts(manifest).items()]
    write_bundle(tmp_path / "data", manifest, parts)
    (renamed,) = [i for i, event in enumerate(events) if event[0] == "rename"]
    before = {Path(path): size for _, path, size in events[:renamed]}
    partial = tmp_path / "data.partial"
    files = [p for p in (tmp_path / "data").rglob("*") if p.is_file()]
    for path in files:
        assert before[partial / path.relative_to(tmp_path / "data")] == path.stat().st_size
    assert set(before) == {partial / p.relative_to(tmp_path / "data") for p in files} | {
        partial,
        partial / "parts",
    }
    assert [Path(path) for _, path, _ in events[renamed + 1 :]] == [tmp_path]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_system_that_cannot_sync_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    if code == errno.EIO:
        with pytest.raises(OSError, match=os.strerror(code)):
            sync_directory(tmp_path)
    else:
        sync_directory(tmp_path)


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, make_manifest: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(tmp_path / "data", make_manifest(), [("data-0-0", [b"x"] * 8)])
    assert list(tmp_path.iterdir()) == []


def test_remains_of_a_killed_write_do_not_matter(
    tmp_path: Path, make_manifest: Callable[..., Manifest]
) -> None:
    (tmp_path / "data.partial" / "parts").mkdir(parents=True)
    (tmp_path / "data.partial" / "parts" / "stale").write_text("x")
    manifest = make_manifest()
    seen: list[int] = []
    parts = [(n, [b"x"] * c) for n, (c, _) in expected_parts(manifest).items()]
    written = write_bundle(tmp_path / "data", manifest, parts, seen.append)
    check(tmp_path / "data")
    assert seen == [p.size for p in written.parts]
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_secret_keys_are_known_by_their_mark(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b'{"format": "blindtune-secret-key", "version": 1}')
    (tmp_path / "b").write_bytes(b"nothing of the kind")
    assert holds_secret_key(tmp_path / "a")
    assert not holds_secret_key(tmp_path / "b")
