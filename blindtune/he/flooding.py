"""Noise that hides the error of a CKKS decryption, on the coefficients of what was decrypted.

Who knows a ciphertext and the exact polynomial that it decrypts to has the secret key by one division (Li and
Micciancio, ePrint 2020/1533). What may be told is the polynomial under Gaussian noise (Li, Micciancio,
Schultz and Sorrell, ePrint 2022/816).

Derivation. Let ``g`` be the exact result in whole coefficients, a function of the plaintexts alone, and
``g + e`` the decryption; ``e`` is what depends on the key, of Euclidean length ``t`` at most. Told is
``g + e + D`` with ``D`` discrete Gaussian, of standard deviation ``σ`` in every coefficient. Two discrete
Gaussians that lie a whole vector ``e`` apart differ by ``|e|² / 2σ²`` in Kullback-Leibler divergence
(Canonne, Kamath and Steinke 2020, proposition 5), and ``q`` releases by ``q`` times that, however later
ciphertexts depend on earlier releases (2022/816, theorem 3). ``σ = sqrt(12 q) · 2^(s/2) · t`` makes it
``2^-s / 24``: then the scheme keeps its computational security but for ``s`` bits of statistical security
(corollary 2; its further ``sqrt(2 n)`` is not needed where ``t`` bounds coefficients, as OpenFHE's notes on
noise flooding say too). Bits are those of Micciancio and Walter (ePrint 2018/077), who count
``1 / advantage²`` in a game of telling two things apart: by Pinsker's inequality the advantage itself is at
most ``2^-(s/2 + 2.7)``.

Weights repeat in the slots with a period: they live in the subring of polynomials in ``X^(N / 2w)`` for ``w``
slots a period. Only those ``2w`` coefficients are told, so only they need noise.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import EngineError

Slots = NDArray[np.complex128]
Coefficients = NDArray[np.int64]

STATISTICAL_BITS = 40


def deviation(length: float, releases: int, bits: int = STATISTICAL_BITS) -> float:
    """Standard deviation σ of the noise in every coefficient; see the module.

    Args:
        length: bound of the error's Euclidean length over all coefficients of one release.
        releases: q, under one key in all.
        bits: s, of statistical security.
    """
    return math.sqrt(12 * releases) * 2 ** (bits / 2) * length


def coefficients(slots: Slots, scale: float) -> Coefficients:
    """Whole coefficients (2w,) of one period of slots (w,), as encoding gives them.

    Raises:
        EngineError: not a power of two of slots, or values that are not numbers or too large.
    """
    w = len(slots)
    if slots.shape != (w,) or w < 1 or w & (w - 1):
        raise EngineError(f"slots of shape {slots.shape}")
    if not np.isfinite(slots).all() or np.abs(slots).max() * scale >= 2**61:
        raise EngineError("slots that are not numbers, or too large")
    values = np.empty(2 * w, np.complex128)
    powers = _exponents(w)
    values[powers >> 1], values[(4 * w - powers) >> 1] = slots, slots.conj()
    twist = np.exp(-0.5j * np.pi * np.arange(2 * w) / w)
    found: Coefficients = np.rint((np.fft.fft(values) / (2 * w) * twist).real * scale).astype(np.int64)
    return found


def slots(found: Coefficients, scale: float) -> Slots:
    """One period of slots (w,) of coefficients (2w,): what :func:`coefficients` undoes."""
    w = len(found) // 2
    twist = np.exp(0.5j * np.pi * np.arange(2 * w) / w)
    values = np.fft.ifft(found * twist) * (2 * w) / scale
    return np.asarray(values[_exponents(w) >> 1])


def _exponents(w: int) -> NDArray[np.int64]:
    """Powers of three modulo 4w: slot i is the value at the 4w-th root of unity to the power 3^i."""
    powers = np.ones(w, np.int64)
    for i in range(1, w):
        powers[i] = 3 * powers[i - 1] % (4 * w)
    return powers
