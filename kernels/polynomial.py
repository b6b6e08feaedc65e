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

SWITCHES = {1: 1, 3: 3, 5: 5, 7: 6}
"""Key switches that a degree costs an argument."""

Batch = Sequence[Ciphertext]


def odd_polynomial(engine: Engine, u: Batch, coefficients: Sequence[Batch]) -> list[Ciphertext]:
    """``Σ c_k u^k`` over odd k, for a batch of arguments.

    Args:
        u: the arguments, at some level ℓ.
        coefficients: for each argument the ciphertexts of c_1, c_3, … (one to four), at level ℓ or above.

    Returns:
        The values at level ``ℓ - DEPTH[degree]``.

    Raises:
        EngineError: a degree above 7, or no level left.
    """
    degree = 2 * len(coefficients[0]) - 1
    if degree not in DEPTH:
        raise EngineError(f"an odd polynomial of degree {degree}", remedy="Use degree 1, 3, 5 or 7.")
    top = u[0].level
    c = list(zip(*coefficients, strict=True))

    def product(levels: int, *pairs: tuple[Batch, Batch]) -> list[Ciphertext]:
        sums = []
        for n in range(len(u)):
            lefts = [engine.at_level(a[n], top - levels) for a, _ in pairs]
            rights = [engine.at_level(b[n], top - levels) for _, b in pairs]
            sums += engine.multiply_accumulate([lefts], [rights])
        return engine.rescale(engine.relinearise(sums))

    if degree == 1:
        return product(0, (c[0], u))
    u2 = product(0, (u, u))
    if degree == 3:
        c3u = product(0, (c[1], u))
        return product(1, (c[0], u), (c3u, u2))
    u4 = product(1, (u2, u2))
    c3u = product(1, (c[1], u))
    if degree == 5:
        upper = product(1, (c[2], u))
    else:
        c7u = product(0, (c[3], u))
        upper = product(1, (c[2], u), (c7u, u2))
    return product(2, (c[0], u), (c3u, u2), (upper, u4))
