"""Key files: private, locked, authenticated, never replaced."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindtune.client.keyfile import is_locked, read_key, write_key
from blindtune.errors import BlindtuneError, KeyFileError
from blindtune.he.secret import SecretKey
from blindtune.wire.bundle import holds_secret_key


@pytest.fixture
def plain(tmp_path: Path, tiny_key: SecretKey) -> Path:
    write_key(tmp_path / "key", tiny_key)
    return tmp_path / "key"


@pytest.fixture(scope="module")
def locked_text(tmp_path_factory: pytest.TempPathFactory, tiny_key: SecretKey) -> str:
    path = tmp_path_factory.mktemp("locked") / "key"
    write_key(path, tiny_key, "correct horse")
    return path.read_text()


@pytest.fixture
def locked(tmp_path: Path, locked_text: str) -> Path:
    path = tmp_path / "locked"
    path.touch(0o600)
    path.write_text(locked_text)
    return path


def same(a: SecretKey, b: SecretKey) -> None:
    assert (a.parameters, a.key_id, a.to_bytes()) == (b.parameters, b.key_id, b.to_bytes())


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("umask", [0o022, 0o000, 0o077])
def test_round_trip_for_its_owner_only(tmp_path: Path, tiny_key: SecretKey, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_key(tmp_path / "key", tiny_key)
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    again = read_key(tmp_path / "key")
    same(again, tiny_key)
    x = np.linspace(-1, 1, 512)
    np.testing.assert_allclose(again.decrypt(again.load(tiny_key.encrypt(x))), x, atol=2e-6)


def test_a_passphrase_locks(locked: Path, plain: Path, tiny_key: SecretKey) -> None:
    assert is_locked(locked)
    assert not is_locked(plain)
    same(read_key(locked, "correct horse"), tiny_key)
    with pytest.raises(KeyFileError, match=r"locked.*BLINDTUNE_PASSPHRASE"):
        read_key(locked)
    for wrong in ("", "Correct horse", "correct horse "):
        with pytest.raises(KeyFileError, match="wrong passphrase"):
            read_key(locked, wrong)


def test_a_locked_file_does_not_hold_the_key(locked: Path, plain: Path, tiny_key: SecretKey) -> None:
    secret = tiny_key.to_bytes()
    assert base64.b64decode(json.loads(plain.read_text())["data"]) == secret
    hidden = base64.b64decode(json.loads(locked.read_text())["data"])
    assert len(hidden) == len(secret) + 16
    assert not any(secret[i : i + 16] in hidden for i in range(0, len(secret) - 16, 1000))


def test_files_are_known_as_secret_keys(locked: Path, plain: Path) -> None:
    assert holds_secret_key(locked)
    assert holds_secret_key(plain)


def test_keys_are_never_replaced(plain: Path, tmp_path: Path, tiny_key: SecretKey) -> None:
    before = plain.read_bytes()
    with pytest.raises(KeyFileError, match="never replaced"):
        write_key(plain, tiny_key, "other")
    assert plain.read_bytes() == before
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(KeyFileError, match="never replaced"):
        write_key(tmp_path / "link", tiny_key)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_no_file(
    tmp_path: Path, tiny_key: SecretKey, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(handle: int) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(type(error)):
            write_key(tmp_path / "key", tiny_key)
    assert list(tmp_path.iterdir()) == []
    write_key(tmp_path / "key", tiny_key)
    same(read_key(tmp_path / "key"), tiny_key)


def test_a_failed_write_does_not_touch_an_older_key(
    plain: Path, tiny_key: SecretKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plain.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("nothing may be written"))
    with pytest.raises(KeyFileError, match="never replaced"):
        write_key(plain, tiny_key)
    assert plain.read_bytes() == before


def test_a_key_and_its_name_are_on_the_disk(
    tmp_path: Path, tiny_key: SecretKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[str, int] = {}
    monkeypatch.setattr(
        os, "fsync", lambda h: synced.update({os.readlink(f"/proc/self/fd/{h}"): os.fstat(h).st_size})
    )
    write_key(tmp_path / "key", tiny_key)
    assert list(synced) == [str(tmp_path / "key"), str(tmp_path)]
    assert synced[str(tmp_path / "key")] == (tmp_path / "key").stat().st_size


def test_a_missing_directory_is_said_in_one_line(tmp_path: Path, tiny_key: SecretKey) -> None:
    (tmp_path / "file").write_text("x")
    for parent in ("absent", "file"):
        with pytest.raises(KeyFileError, match=f"{parent}: no directory here") as refused:
            write_key(tmp_path / parent / "key", tiny_key)
        assert "\n" not in str(refused.value)
        assert refused.value.__suppress_context__
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o610])
def test_a_key_that_others_can_read_is_refused(plain: Path, mode: int) -> None:
    plain.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600 key"):
        read_key(plain)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(key="0" * 32),
        lambda v: v["parameters"].update(scale_bits=29),
        lambda v: v["parameters"].update(security=128),
        lambda v: v["kdf"].update(n=2**15),
        lambda v: v["kdf"].update(n=2**30),
        lambda v: v["kdf"].update(n=65535),
        lambda v: v["kdf"].update(n=float("inf")),
        lambda v: v["kdf"].update(n="many"),
        lambda v: v["kdf"].update(r=1),
        lambda v: v["kdf"].update(name="none"),
        lambda v: v["kdf"].update(salt="00" * 16),
        lambda v: v["kdf"].update(salt=7),
        lambda v: v.update(kdf=None),
        lambda v: v.pop("kdf"),
        lambda v: v.update(nonce="00" * 12),
        lambda v: v.update(nonce="00"),
        lambda v: v.update(nonce=None),
        lambda v: v.pop("nonce"),
        lambda v: v.update(extra=1),
        lambda v: v.update(encrypted="yes"),
        lambda v: v.update(version=2),
        lambda v: v.update(data="AAAA"),
        lambda v: v.update(data=""),
        lambda v: v.update(data="not base64!"),
        lambda v: v.update(data=None),
        lambda v: v.update(encrypted=False),
    ],
)
def test_any_change_to_a_locked_file_is_refused(locked: Path, change: Callable[[Any], object]) -> None:
    edit(locked, change)
    with pytest.raises(KeyFileError):
        read_key(locked, "correct horse")


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("key"),
        lambda v: v.pop("data"),
        lambda v: v.pop("encrypted"),
        lambda v: v.update(format="other"),
        lambda v: v.update(encrypted=True),
        lambda v: v.update(parameters=[]),
        lambda v: v.update(parameters={}),
        lambda v: v["parameters"].update(primes=None),
        lambda v: v["parameters"].update(primes=[3, 5, 7]),
        lambda v: v["parameters"].update(primes=["x"]),
        lambda v: v["parameters"].update(ring_degree=2048),
        lambda v: v["parameters"].update(ring_degree=float("inf")),
        lambda v: v["parameters"].update(security=128),
        lambda v: v.update(data=v["data"][:1000]),
    ],
)
def test_damage_to_an_open_file_is_refused(plain: Path, change: Callable[[Any], object]) -> None:
    edit(plain, change)
    with pytest.raises(BlindtuneError):
        read_key(plain, "unneeded")


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 100_000, b"7"])
def test_other_files_are_not_keys(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(content)
    for read in (read_key, is_locked):
        with pytest.raises(KeyFileError, match="not a blindtune key file"):
            read(path)


def test_absent_keys_directories_and_huge_files(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(KeyFileError, match="no secret key here"):
            read_key(path)
    huge = tmp_path / "huge"
    huge.touch(0o600)
    os.truncate(huge, 1 << 40)
    with pytest.raises(KeyFileError, match="not a blindtune key file"):
        read_key(huge)
