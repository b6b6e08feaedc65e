"""What importing pulls in: nothing heavy by itself, nothing secret on the server, no TenSEAL to plan."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

import blindtune.server

SERVER = [
    m.name
    for m in pkgutil.walk_packages(blindtune.server.__path__, "blindtune.server.")
    # Alembic runs it, with a context of its own.
    if m.name != "blindtune.server.migrations.env"
]
HEAVY = {
    "torch",
    "tenseal",
    "numpy",
    "timm",
    "sklearn",
    "scipy",
    "matplotlib",
    "pydicom",
    "pydantic",
    "fastapi",
}

BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tenseal":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def modules_after(code: str) -> set[str]:
    return set(json.loads(run(f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))")))


def test_the_package_itself_is_light() -> None:
    loaded = modules_after("import blindtune")
    assert "blindtune" in loaded
    assert not HEAVY & loaded


def test_the_server_reaches_neither_torch_nor_the_secret_key() -> None:
    assert "blindtune.server.api.app" in SERVER
    loaded = modules_after("import " + ", ".join(SERVER))
    assert set(SERVER) <= loaded
    assert not {"torch", "timm", "sklearn", "pydicom", "blindtune.he.secret", "blindtune.client"} & loaded


@pytest.mark.parametrize("module", ["blindtune.plan", "blindtune.kernels.training", "blindtune.wire.study"])
def test_light_modules_do_not_import_torch(module: str) -> None:
    assert not {"torch", "timm", "sklearn", "tenseal"} & modules_after(f"import {module}")


def test_planning_and_rehearsing_work_without_tenseal() -> None:
    assert find_spec("tenseal") is not None
    said = run(
        BLOCK
        + """
import numpy as np
import blindtune.plan, blindtune.kernels.training, blindtune.he.clear, blindtune.he.seal
from blindtune.errors import MissingPackageError
from blindtune.models.heads import logistic
print(blindtune.plan.plan(100, 9, 1, logistic()).parameters.ring_degree)
try:
    blindtune.he.seal.sealapi()
except MissingPackageError as error:
    print(error)
"""
    )
    assert said.splitlines() == [
        "16384",
        "TenSEAL is not installed. pip install tenseal (Python 3.11 or newer).",
    ]
