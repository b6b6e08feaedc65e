"""OpenFHE's contexts for our parameters, and what is said where it cannot be had."""

from __future__ import annotations

import sys

import pytest

from blindtune.errors import EngineError, MissingPackageError
from blindtune.he.openfhe import library
from blindtune.he.openfhe.library import context, least_root, openfhe, special_primes, supports
from blindtune.params import ParametersLiteral


def test_the_key_switching_prime_is_the_largest_of_sixty_bits() -> None:
    p = ParametersLiteral(1024, 3, special_bits=60, security=0).checked()
    assert special_primes(1024) == p.primes[-1:] == (1152921504606830593,)
    assert supports(p) is None


def test_parameters_at_128_bits_count_it() -> None:
    p = ParametersLiteral(16384, 11, 30, 39, 60).checked()
    assert supports(p) is None
    assert 428 < p.modulus_bits <= 430


def test_other_parameters_are_refused() -> None:
    p = ParametersLiteral(1024, 3, security=0).checked()
    with pytest.raises(EngineError, match=r"special_bits = 60.* Plan for the OpenFHE engine"):
        context(p)
    assert supports(ParametersLiteral(1024, 3, 50, 57, 60, security=0).checked()) is not None
    assert supports(ParametersLiteral(1024, 3, 50, 56, 60, security=0).checked()) is None


def test_the_least_root_of_all() -> None:
    q, n = 257, 16
    roots = [r for r in range(q) if pow(r, n, q) == q - 1]
    assert len(roots) == n
    assert least_root(q, n) == min(roots)


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        ((3, 10), "pip install openfhe==1.6.1.0.22.4."),
        ((3, 12), r"pip install openfhe==1.6.1.0.24.4 \(it needs Ubuntu 24.04 or Debian 13\)"),
        ((3, 11), r"an environment of Python 3.10, .* pip install 'blindtune\[openfhe\]' there"),
    ],
)
def test_one_line_says_what_to_install(
    version: tuple[int, int], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openfhe", None)
    monkeypatch.setattr(library.sys, "version_info", (*version, 0))
    with pytest.raises(MissingPackageError, match=remedy) as caught:
        openfhe()
    assert "\n" not in str(caught.value)
