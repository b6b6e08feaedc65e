"""Shapes and textures on a pixel grid: soft edges, ellipsoids, tubes, blur and band-passed noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating[Any]]


def blur(field: Floats, sigma: float) -> Field:
    """Gaussian blur, sigma in pixels; the picture wraps round at its borders."""
    response = np.exp(np.float32(-2.0 * (np.pi * sigma) ** 2) * _squared_frequency(field.shape))
    return np.asarray(np.fft.irfft2(np.fft.rfft2(field) * response, s=field.shape), dtype=np.float32)


def noise(shape: tuple[int, int], rng: np.random.Generator, *, scale: float, octave: float) -> Field:
    """Band-passed noise of standard deviation 1 with structure between ``scale`` and ``octave`` pixels."""
    frequency = _squared_frequency(shape)
    band = np.exp(-frequency * np.float32(scale**2)) - np.exp(-frequency * np.float32(octave**2))
    white = rng.standard_normal(shape, dtype=np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) * band, s=shape)
    return np.asarray(field / (field.std() + 1e-9), dtype=np.float32)


def step(distance: Floats, width: float) -> Field:
    """A soft edge: 0 where ``distance`` is well below zero, 1 well above, ``width`` wide."""
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(-distance / width, -30.0, 30.0))), dtype=np.float32)


def bell(x: Floats) -> Field:
    """exp(-x²), cut before it underflows: arithmetic on denormal numbers is slow."""
    return np.asarray(np.exp(-np.minimum(x * x, 60.0)), dtype=np.float32)


def dome(u: Field, v: Field, at: tuple[float, float], radii: tuple[float, float], tilt: float = 0.0) -> Field:
    """Thickness of an ellipsoid seen from the front: 1 at its centre, 0 from its outline on."""
    dx, dy = u - at[0], v - at[1]
    cos, sin = math.cos(tilt), math.sin(tilt)
    inside = 1.0 - ((dx * cos + dy * sin) / radii[0]) ** 2 - ((dy * cos - dx * sin) / radii[1]) ** 2
    return np.asarray(np.sqrt(np.maximum(inside, 0.0)), dtype=np.float32)


def tube(distance: Floats, half: float) -> Field:
    """Profile of a hollow bone: cortex brighter than marrow."""
    d = np.abs(distance) / half
    return np.asarray(0.55 * step(1.0 - d, 0.12) + 0.5 * bell((d - 0.85) / 0.25), dtype=np.float32)


def ladder(phase: Floats, spacing: float, count: int, half: float) -> Field:
    """``count`` parallel bones, ``spacing`` apart, in one pass: each point sees the nearest."""
    index = np.clip(np.round(phase / spacing), 0, count - 1)
    return tube(phase - index * spacing, half)


def _squared_frequency(shape: tuple[int, ...]) -> Field:
    """Squared frequency in cycles a pixel, on the half plane of ``rfft2``."""
    rows, columns = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    return np.asarray(rows[:, None] ** 2 + columns[None, :] ** 2, dtype=np.float32)
