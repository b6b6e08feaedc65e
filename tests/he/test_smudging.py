"""The noise of an opening: its size, and how values of it are drawn."""

from __future__ import annotations

import math

import numpy as np

from blindtune.he.smudging import deviation, error_of_values, noise_values


def test_the_divergence_is_what_the_derivation_says() -> None:
    for bits, openings, coefficients, noise in ((40, 1, 256, 10.0), (48, 6, 1024, 14.5)):
        sigma = deviation(noise, coefficients, openings, bits)
        length = 2**noise * math.sqrt(coefficients)
        assert math.isclose(openings * length**2 / (2 * sigma**2), 2.0**-bits / 24)


def test_values_are_those_of_independent_gaussian_coefficients() -> None:
    sigma, n = 2.0**42, 4096
    values = noise_values(sigma, n)
    assert values.shape == (n // 2,)
    exponents = np.arange(n)
    # The coefficients, from the embedding's conjugate transpose at the roots that slots stand for.
    roots = np.array([pow(3, i, 2 * n) for i in range(n // 2)])
    angles = np.pi / n * (np.outer(exponents[:64], roots) % (2 * n))
    coefficients = 2 / n * np.real(np.exp(-1j * angles) @ values)
    assert 0.5 < coefficients.std() / sigma < 1.6
    assert abs(np.corrcoef(values.real, values.imag)[0, 1]) < 0.2
    assert not np.array_equal(noise_values(sigma, n), values)


def test_the_predicted_error_is_that_of_the_parties_sum() -> None:
    sigma, n, parties = 2.0**30, 4096, 3
    total = sum(noise_values(sigma, n) for _ in range(parties)) / 2.0**40
    found = np.sqrt((np.abs(total) ** 2).mean())
    assert 0.85 < found / error_of_values(sigma, n, parties, 2.0**40) < 1.15
