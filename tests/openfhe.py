"""What tests that need OpenFHE share."""

from __future__ import annotations

import pytest

from blindtune.errors import MissingPackageError
from blindtune.he.openfhe.bootstrapping import SPECIAL_BITS, Bootstrapping
from blindtune.he.openfhe.library import openfhe, special_primes
from blindtune.params import Parameters, ParametersLiteral


def why_not_openfhe() -> str:
    """Why OpenFHE cannot be used here; empty if it can."""
    try:
        openfhe()
    except MissingPackageError as error:
        return str(error)
    return ""


def keys_of(literal: Bootstrapping) -> Parameters:
    """The parameters of a bootstrap's keys over primes of ours, where no OpenFHE chooses them."""
    ring, bits = literal.ring_degree, (literal.scale_bits, literal.first_bits, SPECIAL_BITS)
    chosen = ParametersLiteral(ring, literal.depth, *bits, security=literal.security).checked()
    return literal.key_parameters((*chosen.primes[:-1], *special_primes(ring, literal.special_primes)))


needs_openfhe = pytest.mark.skipif(bool(why_not_openfhe()), reason=why_not_openfhe())
