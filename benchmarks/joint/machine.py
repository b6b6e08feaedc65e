"""Where and with what joint keys are measured."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Any

from benchmarks.commands import commit
from blindtune.client.calibrate import processor


def here() -> dict[str, Any]:
    """This machine and environment."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "openfhe": version("openfhe"),
        "commit": commit(),
        "load_at_start": os.getloadavg()[0],
    }
