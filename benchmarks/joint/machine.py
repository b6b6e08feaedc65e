"""Where and with what joint keys are measured."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from benchmarks.commands import machine


def here() -> dict[str, Any]:
    """This machine and environment."""
    return {**machine(()), "openfhe": version("openfhe")}
