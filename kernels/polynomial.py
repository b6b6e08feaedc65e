"""Odd polynomials of an encrypted argument with encrypted coefficients.

The coefficients are ciphertexts ``weight_i · c_k``, one value a row and lane: sample weights, class
balance, padding and per-lane learning rates cost no level. Terms are ordered so that each level
relinearises few sums: degree 7 takes six key switches on three levels.
"""

from __future__ import annotations

from collections.abc import Sequence

from blindtune.errors import EngineError
from blindtune.he.engine import Ciphertext, Engine

DEPTH = {1: 1, 3: 2, 5: 3, 7: 3}
"""Levels that a degree costs."""


def odd_polynomial(engine: Engine, u: Ciphertext, coefficients: Sequence[Ciphertext]) -> Ciphertext:
    """``Σ c_k u^k`` over odd k.

    Args:
        u: the argument, at some level ℓ.
        coefficients: ciphertexts of c_1, c_3, … (one to four), at level ℓ or above.

    Returns:
        The value at level ``ℓ - DEPTH[degree]``.

    Raises:
        EngineError: a degree above 7, or no level left.
    """
    degree = 2 * len(coefficients) - 1
    if degree not in DEPTH:
        raise EngineError(f"an odd polynomial of degree {degree}", remedy="Use degree 1, 3, 5 or 7.")
    top = u.level

    def down(c: Ciphertext, levels: int) -> Ciphertext:
        return engine.at_level(c, top - levels)

    def product(levels: int, *pairs: tuple[Ciphertext, Ciphertext]) -> Ciphertext:
        lefts, rights = zip(*((down(a, levels), down(b, levels)) for a, b in pairs), strict=True)
        return engine.rescale(engine.relinearise(engine.multiply_accumulate(lefts, rights)))

    if degree == 1:
        return product(0, (coefficients[0], u))
    u2 = product(0, (u, u))
    if degree == 3:
        c3u = product(0, (coefficients[1], u))
        return product(1, (coefficients[0], u), (c3u, u2))
    u4 = product(1, (u2, u2))
    c3u = product(1, (coefficients[1], u))
    if degree == 5:
        upper = product(1, (coefficients[2], u))
    else:
        c7u = product(0, (coefficients[3], u))
        upper = product(1, (coefficients[2], u), (c7u, u2))
    return product(2, (coefficients[0], u), (c3u, u2), (upper, u4))
