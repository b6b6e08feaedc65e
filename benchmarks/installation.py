"""Install ``blindtune[federated]`` into a fresh environment, and look whether all of it fits together.

    python -m benchmarks.installation

Flower holds typer, rich, FastAPI and others below some versions: our own ranges must stay wide enough to live
beside it. Takes some minutes and 6 GB, most of it PyTorch.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from importlib.metadata import Distribution, distributions
from pathlib import Path

import tomllib
from packaging.requirements import Requirement

from benchmarks.commands import ROOT

SHARED = ("cryptography", "fastapi", "httpx", "numpy", "rich", "typer", "uvicorn")
"""Packages that Flower pins and that we depend on."""


def main() -> None:
    """Install, check and print."""
    with tempfile.TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        python = Path(place) / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", "--no-compile", f"{ROOT}[federated]")
        print(run(python, "-m", "pip", "check").strip())
        for command in ((), ("federate", "--help"), ("federate", "join", "--help")):
            run(python, "-m", "blindtune.cli.main", *(command or ("--help",)))
        # Imports all of Flower that is used.
        run(python, "-c", "import blindtune.federation.flower.aggregator")
        (library,) = Path(place).glob("lib/python3.*/site-packages")
        wrong = outside(list(distributions(path=[str(library)])))
    if wrong:
        sys.exit("\n".join(wrong))


def outside(found: list[Distribution]) -> list[str]:
    """What is installed outside of our own ranges; prints all shared packages."""
    versions = {d.metadata["Name"].lower(): d.version for d in found}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    print(f"flwr {versions['flwr']}")
    for name in SHARED:
        print(f"{name} {versions[name]}, ours {ranges[name]}")
    return [f"{n} {versions[n]} is not in {ranges[n]}" for n in SHARED if versions[n] not in ranges[n]]


def run(*command: str | Path) -> str:
    """A command that must work; its output."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
