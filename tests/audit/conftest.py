"""Invented patients, drawn once."""

from __future__ import annotations

import pytest

from blindtune.audit.scans import Scans


@pytest.fixture(scope="session")
def chests() -> Scans:
    """Two scans each of 24 invented patients."""
    return Scans.invented(24)
