"""The OpenFHE binding and its crypto contexts, made for our primes instead of its own choice.

With the same primes, the same (least) primitive roots and the same order of residues, OpenFHE's objects hold
what SEAL's hold: :mod:`blindtune.he.blob` serves both. One prime is not ours to choose: OpenFHE's hybrid key
switching always takes the largest 60-bit prime that serves the ring, so parameters have to have that one.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import lru_cache
from typing import Any

from blindtune.errors import EngineError, MissingPackageError
from blindtune.params import MAX_PRIME_BITS, Parameters, is_prime

RELEASES = {(3, 10): "openfhe==1.6.1.0.22.4", (3, 12): "openfhe==1.6.1.0.24.4"}
"""The releases that this package works with, by the only CPython that their library loads in."""

MAX_DATA_BITS = 56
"""From 57 bits on OpenFHE takes a second key-switching prime."""


def openfhe() -> Any:
    """The binding, imported when first used.

    Raises:
        MissingPackageError: not installed, or for another Python; says what to install.
    """
    try:
        import openfhe as binding

        return binding.openfhe
    except (ImportError, AttributeError) as error:
        release = RELEASES.get(sys.version_info[:2])
        new = " (it needs Ubuntu 24.04 or Debian 13)" if sys.version_info[:2] == (3, 12) else ""
        remedy = (
            f"Run pip install {release}{new}."
            if release
            else "Make an environment of Python 3.10, or of 3.12 on Ubuntu 24.04 or Debian 13, and "
            "run pip install 'blindtune[openfhe]' there."
        )
        raise MissingPackageError("OpenFHE cannot be loaded", remedy=remedy) from error


def special_primes(ring_degree: int, count: int = 1) -> tuple[int, ...]:
    """The key-switching primes that OpenFHE uses: the largest of 60 bits that serve the ring."""
    found: list[int] = []
    q = (1 << MAX_PRIME_BITS) + 1
    while len(found) < count:
        q -= 2 * ring_degree
        if is_prime(q):
            found.append(q)
    return tuple(found)


def supports(parameters: Parameters) -> str | None:
    """Why OpenFHE cannot serve the parameters; None if it can."""
    if max(parameters.primes[:-1]) >> MAX_DATA_BITS:
        return f"a data prime of more than {MAX_DATA_BITS} bits"
    if parameters.primes[-1:] != special_primes(parameters.ring_degree):
        return "the key-switching prime is not OpenFHE's (special_bits = 60)"
    return None


def context(parameters: Parameters) -> Any:
    """The crypto context of checked parameters; one a process.

    Security is the 2024 table's, which the parameters were checked against: OpenFHE's own, looser one is
    switched off. No key goes into its static maps.

    Raises:
        MissingPackageError: OpenFHE cannot be loaded.
        EngineError: another key-switching prime than OpenFHE's.
    """
    reason = supports(parameters)
    if reason is not None:
        raise EngineError(
            f"OpenFHE cannot serve these parameters: {reason}", remedy="Plan for the OpenFHE engine."
        )
    # The security level says nothing about the arithmetic: equal primes share a context.
    return _context(replace(parameters, security=0))


@lru_cache(maxsize=8)
def _context(parameters: Parameters) -> Any:
    o, p = openfhe(), parameters
    literal = o.CCParamsCKKSRNS()
    literal.SetRingDim(p.ring_degree)
    literal.SetMultiplicativeDepth(p.levels)
    literal.SetScalingModSize(p.scale_bits)
    literal.SetFirstModSize(p.primes[0].bit_length())
    literal.SetBatchSize(p.slots)
    literal.SetScalingTechnique(o.FIXEDMANUAL)
    literal.SetSecurityLevel(o.HEStd_NotSet)
    literal.SetSecretKeyDist(o.UNIFORM_TERNARY)
    literal.SetKeySwitchTechnique(o.HYBRID)
    literal.SetNumLargeDigits(p.levels + 1)
    literal.SetCKKSDataType(o.COMPLEX)
    draft = o.GenCryptoContext(literal)
    for feature in (o.PKE, o.KEYSWITCH, o.LEVELEDSHE, o.MULTIPARTY):
        draft.Enable(feature)
    text = json.loads(o.Serialize(draft, o.JSON))
    _put_primes(text, p)
    o.EnablePrecomputeCRTTablesAfterDeserializaton()
    made = o.DeserializeCryptoContextString(json.dumps(text), o.JSON)
    # Every ciphertext that is read carries its context: the tables are there already.
    o.DisablePrecomputeCRTTablesAfterDeserializaton()
    return made


def _put_primes(text: dict[str, Any], parameters: Parameters) -> None:
    """Replace the primes that OpenFHE chose, and their roots, in a context's JSON."""
    crypto = text["value0"]["ptr_wrapper"]["data"]["cc"]["ptr_wrapper"]["data"]
    ring = crypto["value0"]["value0"]["value0"]["elp"]["ptr_wrapper"]["data"]
    primes = parameters.primes[:-1]
    if len(ring["p"]) != len(primes):
        raise EngineError(f"OpenFHE made {len(ring['p'])} primes instead of {len(primes)}")
    product = 1
    for place, q in zip(ring["p"], primes, strict=True):
        value = place["ptr_wrapper"]["data"]["value0"]
        value["cm"]["v"], value["ru"]["v"] = q, least_root(q, parameters.ring_degree)
        product *= q
    whole = ring["value0"]["cm"]
    whole["v"] = [product >> i & (1 << 64) - 1 for i in range(0, product.bit_length(), 64)]
    whole["m"] = product.bit_length()


@lru_cache(maxsize=256)
def least_root(q: int, ring_degree: int) -> int:
    """The least primitive 2N-th root of unity modulo q: SEAL and OpenFHE both transform with it."""
    base = 2
    while pow(root := pow(base, (q - 1) // (2 * ring_degree), q), ring_degree, q) != q - 1:
        base += 1
    least, step = root, root * root % q
    for _ in range(ring_degree - 1):
        root = root * step % q
        least = min(least, root)
    return least
