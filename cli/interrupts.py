"""Ctrl-C, remembered: libraries turn it into errors of their own, or swallow it while they are imported."""

from __future__ import annotations

pressed = False


def check() -> None:
    """Stop here if an interrupt came that went no further.

    Raises:
        KeyboardInterrupt: one came.
    """
    if pressed:
        raise KeyboardInterrupt
