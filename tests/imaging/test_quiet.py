"""Warnings stay silent inside, whichever thread leaves first, and are as before afterwards."""

from __future__ import annotations

import threading
import warnings

import pytest

from blindtune.imaging.quiet import quiet


def test_filters_come_back_when_threads_leave_out_of_order():
    before = list(warnings.filters)
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with quiet():
            entered.set()
            leave.wait(5)
            warnings.warn("still silent", stacklevel=1)

    with quiet():
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(5)
    leave.set()
    thread.join()
    assert warnings.filters == before


def test_filters_come_back_after_an_error():
    before = list(warnings.filters)
    with pytest.raises(KeyError), quiet():
        raise KeyError
    assert warnings.filters == before
