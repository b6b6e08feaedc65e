"""Keep the warnings of image libraries off the user's terminal, from several threads at once."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0
_filters: warnings.catch_warnings[None] | None = None
_level = logging.NOTSET


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Python warnings and pydicom's log while any thread is inside.

    ``warnings.catch_warnings`` alone would restore the filters in the order in which threads leave,
    which is not that in which they came: only the first in and the last out may touch them.
    """
    global _inside, _filters, _level
    logger = logging.getLogger("pydicom")
    with _lock:
        if _inside == 0:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.simplefilter("ignore")
            _level = logger.level
            logger.setLevel(logging.CRITICAL)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _filters is not None:
                _filters.__exit__(None, None, None)
                logger.setLevel(_level)
