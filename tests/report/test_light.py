"""The package is light to import, and exports what it says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from blindtune import report


def test_import_loads_no_heavy_library():
    heavy = ("numpy", "sklearn", "matplotlib", "jinja2", "rich")
    code = f"import sys, blindtune.report; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_export_resolves():
    for name in report.__all__:
        assert getattr(report, name).__name__ == name or name == "Kind"
    assert set(report.__all__) <= set(dir(report))
    with pytest.raises(AttributeError):
        report.nothing  # noqa: B018
