"""What a user installs: one top-level package with everything it needs, built from what git holds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
LARGEST_WHEEL = 8_000_000

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist and the wheel that is built from it, without a network."""
    place = tmp_path_factory.mktemp("packaging")
    source = place / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if not name or not (path.is_file() or path.is_symlink()):
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, source / name, follow_symlinks=False)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place / "dist"), str(source)],
        env={**os.environ, "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return place / "dist"


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    """The wheel."""
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def names(wheel: Path) -> list[str]:
    """The files in the wheel."""
    with ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_has_one_top_level_package(wheel: Path, names: list[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    (information,) = (top for top in tops if top.endswith(".dist-info"))
    assert tops == {"blindtune", information}
    assert wheel.name.endswith("-py3-none-any.whl")
    assert wheel.stat().st_size < LARGEST_WHEEL


def test_the_wheel_holds_every_module_of_the_repository(names: list[str]) -> None:
    folders = {"blindtune": "blindtune", **{top: f"blindtune/{top}" for top in ("kernels", "models", "cli")}}
    wanted = set()
    for folder, inside in folders.items():
        listed = subprocess.run(
            ["git", "ls-files", "-z", f"{folder}/*.py"], cwd=ROOT, capture_output=True, check=True, text=True
        )
        found = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
        wanted |= {inside + name.removeprefix(folder) for name in found}
    assert len(wanted) > 50
    assert {name for name in names if name.endswith(".py")} == wanted


def test_the_wheel_holds_data_and_no_tests(names: list[str]) -> None:
    assert {
        "blindtune/py.typed",
        "blindtune/models/weights/blindtune_deit_96.safetensors",
        "blindtune/models/weights/README.md",
        *(f"blindtune/report/report_{name}.html" for name in ("base", "parts", "privacy", "run", "study")),
    } <= set(names)
    words = ("test", "conftest")
    assert not [name for name in names if any(w.startswith(words) for w in name.lower().split("/"))]
    assert not [name for name in names if name.endswith((".pyc", ".key", ".npz", ".dcm"))]


def test_the_weights_are_weights_and_not_a_link(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        data = archive.read("blindtune/models/weights/blindtune_deit_96.safetensors")
    assert data == (ROOT / "models/weights/blindtune_deit_96.safetensors").read_bytes()
    assert len(data) > 1_000_000


def test_entry_point_licence_and_metadata(wheel: Path, names: list[str]) -> None:
    with ZipFile(wheel) as archive:
        read = {
            name.rpartition("/")[2]: archive.read(name).decode() for name in names if ".dist-info/" in name
        }
    assert "blindtune = blindtune.cli.main:run" in read["entry_points.txt"]
    assert "Apache License" in read["LICENSE"]
    assert read["NOTICE"].strip()
    data = Parser().parsestr(read["METADATA"])
    assert (data["Name"], data["License-Expression"], data["Requires-Python"]) == (
        "blindtune",
        "Apache-2.0",
        ">=3.10",
    )
    required = data.get_all("Requires-Dist")
    (tenseal,) = (line for line in required if line.startswith("tenseal"))
    assert 'python_version >= "3.11"' in tenseal
    # GPL: never in the base install.
    (libjpeg,) = (line for line in required if line.startswith("pylibjpeg-libjpeg"))
    assert 'extra == "jpeg"' in libjpeg


def test_the_wheel_runs_by_itself(wheel: Path, tmp_path: Path) -> None:
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    # Isolated mode ignores PYTHONPATH and the working directory, so the path is set by hand; and it comes
    # first, before the editable install of this repository.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import blindtune.cli.main as m; "
        "from blindtune.models.registry import EMBEDDED; "
        "assert m.__file__.startswith(sys.argv[1]), m.__file__; assert EMBEDDED; "
        "sys.argv = ['blindtune', '--help']; m.run()"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "site")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "encrypt" in done.stdout


def test_the_sdist_holds_what_the_wheel_needs(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    assert all(member.isfile() or member.isdir() for member in members)
    inside = {member.name.partition("/")[2] for member in members}
    assert {"pyproject.toml", "LICENSE", "NOTICE", "README.md", "blindtune/kernels/training.py"} <= inside
    assert not [name for name in inside if name.startswith(("tests/", "benchmarks/", "demo/"))]


def test_the_servers_lock_holds_the_same_versions_and_no_torch() -> None:
    locked = {
        name: {
            line.split(" ;")[0]
            for line in (ROOT / "requirements" / f"{name}.lock").read_text().splitlines()
            if not line.startswith("#")
        }
        for name in ("server", "dev")
    }
    assert locked["server"] <= locked["dev"]
    assert not {"torch", "timm", "scikit-learn", "pydicom"} & {x.split("==")[0] for x in locked["server"]}


def test_a_server_imports_only_what_its_lock_holds() -> None:
    lines = (ROOT / "requirements" / "server.lock").read_text().splitlines()
    allowed = {re.sub("[-_.]+", "-", x.split("==")[0]).lower() for x in lines if not x.startswith("#")}
    code = (
        "import sys, blindtune.cli.commands, blindtune.server.run, blindtune.server.process, "
        "blindtune.server.warm, blindtune.he.engines; print(*{m.split('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    owners = packages_distributions()
    found = {re.sub("[-_.]+", "-", d).lower() for m in done.stdout.split() for d in owners.get(m, [])}
    # Optional ones that happen to be installed here, and what pip brings.
    assert found - allowed <= {"blindtune", "setuptools", "watchfiles", "uvloop", "httptools", "websockets"}
