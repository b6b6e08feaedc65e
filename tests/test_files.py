"""Files that appear whole or not at all, and transactions that are undone."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from blindtune.errors import InputError
from blindtune.files import transaction, whole_file, write_secret


def test_a_secret_is_for_its_owner_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_secret(path, b"one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_secret(path, b"two")
    assert path.read_bytes() == b"one"


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in ("one", "two"):
        with whole_file(path) as place:
            place.write_text(content)
            assert not path.exists() or path.read_text() == "one"
        assert path.read_text() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def broken() -> None:
        with whole_file(path) as place:
            place.write_text("three")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_transaction_is_undone_and_a_locked_database_is_the_error_given(tmp_path: Path) -> None:
    failure = InputError("locked")
    path = tmp_path / "db"
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as one,
        closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as two,
    ):
        one.execute("CREATE TABLE t (x)")

        def broken() -> None:
            with transaction(one, failure):
                one.execute("INSERT INTO t VALUES (1)")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            broken()
        with transaction(one, failure):
            one.execute("INSERT INTO t VALUES (2)")
            with pytest.raises(InputError, match="locked"), transaction(two, failure):
                pass
        assert one.execute("SELECT x FROM t").fetchall() == [(2,)]
