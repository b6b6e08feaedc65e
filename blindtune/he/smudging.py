"""Noise that hides a ciphertext's own error when a result is opened.

A CKKS decryption is the message plus the ciphertext's error, and the error betrays the key (Li and
Micciancio, ePrint 2020/1533). Each party therefore adds Gaussian noise to what it answers. The others,
colluding with the server, can take off all parts but one honest party's: that one part alone has to hide
the error.

Let the opened polynomial have ``n`` coefficients with an error of at most ``2^b`` each in root mean square:
its length is ``t = 2^b sqrt(n)``. Noise of ``sigma`` a coefficient moves by at most ``t``, so what is seen
with the error and what is seen without it differ by a Kullback-Leibler divergence of ``t² / (2 sigma²)`` an
opening, and ``k`` openings add up. With

    sigma = sqrt(12 k) · 2^(s/2) · t

the whole study's divergence is ``2^-s / 24``. This is the noise of Li, Micciancio, Schultz and Sorrell
(Crypto 2022, ePrint 2022/816) for s bits of statistical security beside the scheme's computational ones,
where an advantage δ counts as ``log2(1/δ²)`` bits: by Pinsker's inequality δ is at most ``2^(-s/2) / 6.9``.
What ``b`` is depends on the agreed program and its inputs, so it is agreed with them ("application-aware",
Alexandru, Al Badawi, Micciancio and Polyakov, ePrint 2024/203). A ciphertext is opened once: answering it
again with fresh noise would average the noise away.

The precision that this costs: the opened values carry an error of ``sigma sqrt(parties n) / scale``.
"""

from __future__ import annotations

import math
import secrets

import numpy as np
from numpy.typing import NDArray

LEAST_BITS = 40
"""Statistical bits that a study has at the least."""


def deviation(noise_bits: float, coefficients: int, openings: int, statistical_bits: int) -> float:
    """sigma: the standard deviation of one party's noise in a coefficient.

    Args:
        noise_bits: b, log2 of the error's root mean square in a coefficient.
        coefficients: n, of the opened polynomial.
        openings: k, ciphertexts opened in the study's life.
        statistical_bits: s.
    """
    length = 2**noise_bits * math.sqrt(coefficients)
    return math.sqrt(12 * openings) * 2 ** (statistical_bits / 2) * length


def error_of_values(deviation: float, coefficients: int, parties: int, scale: float) -> float:
    """Root mean square of the error that all parties' noise leaves in an opened value."""
    return deviation * math.sqrt(parties * coefficients) / scale


def noise_values(deviation: float, coefficients: int) -> NDArray[np.complex128]:
    """Slot values (coefficients / 2,), unscaled, of a polynomial with Gaussian coefficients.

    The embedding multiplies lengths by ``sqrt(n / 2)`` and keeps Gaussians Gaussian. Box and Muller's method
    on 53 bits from the operating system's generator: its tail ends at 8.5 standard deviations, beyond which
    lies less than 2^-53 of a Gaussian; OpenFHE's encoder rounds coefficients to whole numbers.
    """
    words = np.frombuffer(secrets.token_bytes(8 * coefficients), "<u8") >> np.uint64(11)
    uniform = ((words + np.uint64(1)) * 2.0**-53).reshape(2, -1)
    radius = np.sqrt(-2 * np.log(uniform[0])) * (deviation * math.sqrt(coefficients / 2))
    return np.asarray(radius * np.exp(2j * np.pi * uniform[1]))
