"""The order of slots, against evaluations of a polynomial."""

from __future__ import annotations

import numpy as np

from blindtune.he.openfhe.slots import from_openfhe, to_openfhe

N = 64


def evaluations(polynomial: np.ndarray, generator: int) -> np.ndarray:
    """A real polynomial (N,) at the powers of the 2N-th root that the generator's powers name."""
    exponents = np.array([pow(generator, k, 2 * N) for k in range(N // 2)])
    powers = np.exp(1j * np.pi / N * np.outer(exponents, np.arange(N)))
    return powers @ polynomial


def test_the_same_polynomial_in_either_order() -> None:
    polynomial = np.random.default_rng(0).normal(size=N)
    ours, theirs = evaluations(polynomial, 3), evaluations(polynomial, 5)
    np.testing.assert_allclose(to_openfhe(ours), theirs, atol=1e-12)
    np.testing.assert_allclose(from_openfhe(theirs), ours, atol=1e-12)
