"""Compiled kernels on disk, so that nobody waits for the compiler twice.

They lie under ``$BLINDTUNE_CACHE_DIR``, or the user's cache folder, in a folder named for these sources and
the compilers' versions; numba itself tells processors and variants apart. Loading a compiled kernel
executes it, so a folder that others can write to is not used.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import numba


def cache_folder() -> Path:
    """Where this user's caches lie."""
    named = os.environ.get("BLINDTUNE_CACHE_DIR")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "blindtune"


@lru_cache(maxsize=1)
def kernel_folder() -> Path | None:
    """The folder of these sources' kernels, made if need be; None if none can be trusted."""
    digest = hashlib.sha256(repr((sys.version, numba.__version__, llvmlite.__version__)).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    folder = cache_folder() / "kernels" / digest.hexdigest()[:16]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return None
    trusted = status.st_uid == os.geteuid() and not status.st_mode & 0o022
    return folder if trusted and os.access(folder, os.W_OK) else None


def cached(compiler: Callable[..., Any], function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """``compiler(*args, **options)(function)`` with numba's cache in the kernels' folder, if there is one."""
    folder = kernel_folder()
    if folder is None:
        return compiler(*args, **options)(function)
    # numba reads this setting when a function is declared, and other libraries' functions have their own.
    config: Any = numba.config
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        return compiler(*args, cache=True, **options)(function)
    finally:
        config.CACHE_DIR = before
