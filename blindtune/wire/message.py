"""What everybody knows of a message between hospitals, the server included: how it begins and is called."""

from __future__ import annotations

import re

MAGIC = b"BTM1"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
"""Of a message's stage, item and sender."""

STALE, FRESH = ("stale", "server"), ("fresh", "members")
"""Item and sender of a refresh's weights: as a server leaves them, and as the hospitals made them fresh."""


def refresh_stage(number: int) -> str:
    """The stage of a program's refresh, from 0 on."""
    return f"refresh-{number}"
