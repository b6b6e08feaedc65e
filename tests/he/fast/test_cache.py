"""Where compiled kernels lie, and whose folder is trusted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from blindtune.he.fast import cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLINDTUNE_CACHE_DIR", str(tmp_path / "named"))
    return tmp_path / "named"


def found() -> Path | None:
    return cache.kernel_folder.__wrapped__()


def test_the_folder_is_named_for_the_sources(folder: Path) -> None:
    made = found()
    assert made is not None
    assert made.parent == folder / "kernels"
    assert made.stat().st_mode & 0o777 == 0o700
    assert found() == made


def test_the_users_cache_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLINDTUNE_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "blindtune"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache.cache_folder() == Path("/home/somebody/.cache/blindtune")


def test_a_folder_that_others_can_write_to_is_not_used(folder: Path) -> None:
    made = found()
    assert made is not None
    made.chmod(0o777)
    assert found() is None


def test_no_folder_where_none_can_be_made(folder: Path) -> None:
    folder.write_text("a file")
    assert found() is None


def test_numba_keeps_its_own_setting(folder: Path) -> None:
    import numba

    before = numba.config.CACHE_DIR
    f = cache.cached(numba.njit, lambda x: x + 1)
    assert before == numba.config.CACHE_DIR
    assert f.py_func(1) == 2


def test_the_command_line_does_not_import_numba() -> None:
    code = "import sys, blindtune.cli.main, blindtune.he.engines; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
