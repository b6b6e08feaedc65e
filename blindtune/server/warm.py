"""Compiles the engine's kernels in a process of its own, so that no study waits for it.

The server starts it once: ``python -m blindtune.server.warm``. Compiled kernels are kept on the disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def warming() -> Iterator[None]:
    """Compile beside what the block does; ended with it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "blindtune.server.warm"], stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    """Compile, or find everything compiled."""
    from blindtune.he.engines import warm

    os.nice(10)
    warm()
    return 0


if __name__ == "__main__":
    sys.exit(main())
