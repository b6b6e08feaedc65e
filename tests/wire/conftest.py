"""Small manifests and bundles, with random bytes where ciphertexts would be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program
from blindtune.params import Parameters
from blindtune.wire.bundle import write_bundle
from blindtune.wire.manifest import (
    Manifest,
    expected_parts,
    layout_model,
    parameters_model,
    program_model,
)

LAYOUT = Layout(512, 2, (8, 4), 4, 2, 1)
PROGRAM = Program(3, 3, (0, 1, 0), (1.0, 0.9, 1.0), (0.0, 0.25, 0.4))


@pytest.fixture(scope="session")
def make_manifest(tiny: Parameters) -> Callable[..., Manifest]:
    """A manifest without parts."""

    def make(**changes: Any) -> Manifest:
        given: dict[str, Any] = {
            "kind": "data",
            "study": "5" * 32,
            "members": ["north", "south"],
            "member": "north",
            "key": "a" * 32,
            "parameters": parameters_model(tiny),
            "layout": layout_model(LAYOUT),
            "program": program_model(PROGRAM),
            "parts": [],
        }
        return Manifest(**{**given, **changes})

    return make


@pytest.fixture
def bundle(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> Path:
    """A bundle of data whose items are short and distinct."""
    manifest = make_manifest()
    parts = [
        (name, [f"{name} {i}".encode() * 3 for i in range(count)])
        for name, (count, _) in expected_parts(manifest).items()
    ]
    write_bundle(tmp_path / "data", manifest, parts)
    return tmp_path / "data"
