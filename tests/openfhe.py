"""What tests that need OpenFHE share."""

from __future__ import annotations

import pytest

from blindtune.errors import MissingPackageError
from blindtune.he.openfhe.library import openfhe


def why_not_openfhe() -> str:
    """Why OpenFHE cannot be used here; empty if it can."""
    try:
        openfhe()
    except MissingPackageError as error:
        return str(error)
    return ""


needs_openfhe = pytest.mark.skipif(bool(why_not_openfhe()), reason=why_not_openfhe())
