"""Draw one synthetic chest radiograph: an invented thorax, a finding, and the exposure of both."""

from __future__ import annotations

from typing import Literal

import numpy as np

from blindtune.imaging.anatomy import Anatomy, Exposure, coordinates, thorax, vessels
from blindtune.imaging.fields import Field, Floats, blur, noise, step

Finding = Literal["clear", "focal-opacity", "diffuse-pattern"]
_BAND = 32  # rows at a time: temporaries that stay in the cache, not fresh pages from the system


def render(
    shape: tuple[int, int],
    anatomy: Anatomy,
    exposure: Exposure,
    finding: Finding,
    severity: float,
    rng: np.random.Generator,
) -> Field:
    """Draw one picture.

    Args:
        shape: (height, width) in pixels.
        anatomy: of the patient.
        exposure: of this picture.
        finding: what to draw into the lungs.
        severity: strength of the finding; 0 none, 1 plain to see.
        rng: place and texture of the finding, noise.

    Returns:
        float32 (height, width) in [0, 1], 1 where attenuation is highest (bone bright).
    """
    u, v = coordinates(shape, exposure)
    lungs, density = np.empty_like(u), np.empty_like(u)
    tilt = rng.normal(0.0, 0.2)
    for top in range(0, shape[0], _BAND):
        rows = slice(top, top + _BAND)
        lungs[rows], density[rows] = thorax(u[rows], v[rows], anatomy, exposure, tilt)
    density += lungs * vessels(shape, anatomy, exposure)
    density += lungs * np.float32(0.025) * noise(shape, rng, scale=3.0, octave=8.0)
    density += np.float32(0.018) * noise(shape, rng, scale=30.0, octave=90.0)
    density += _finding(u, v, lungs, anatomy, finding, severity, rng)
    density += _extras(shape, exposure, rng)
    return _expose(density, exposure, rng)


def _finding(
    u: Field,
    v: Field,
    lungs: Field,
    anatomy: Anatomy,
    finding: Finding,
    severity: float,
    rng: np.random.Generator,
) -> Field:
    """What the classes differ in, and nothing else: density added inside the lungs."""
    if finding == "clear":
        return np.zeros_like(u)
    shape = (u.shape[0], u.shape[1])
    ragged = noise(shape, rng, scale=22.0, octave=70.0)
    fine = noise(shape, rng, scale=5.0, octave=14.0)
    side = rng.choice([-1.0, 1.0])
    at = (side * rng.uniform(0.25, 0.58), rng.uniform(-0.45, anatomy.base - 0.1))
    radius = rng.uniform(0.22, 0.36)
    stretch = rng.uniform(0.8, 1.3)
    if finding == "focal-opacity":
        distance = np.sqrt(((u - at[0]) / stretch) ** 2 + ((v - at[1]) * stretch) ** 2) / radius
        patch = step(1.0 - distance + 0.25 * ragged, 0.16) * (1.0 + 0.06 * fine)
        return np.asarray(np.float32(0.5 * severity) * patch * lungs, dtype=np.float32)
    # Thickened septa make a net; ridges of band-passed noise look like one.
    net = 1.0 - np.minimum(np.abs(1.3 * fine), 1.2)
    lower = 0.55 + 0.45 * step(v - 0.05 + 0.15 * ragged, 0.18)
    return np.asarray(np.float32(0.3 * severity) * (net + 0.3) * lower * lungs, dtype=np.float32)


def _extras(shape: tuple[int, int], exposure: Exposure, rng: np.random.Generator) -> Field:
    """Monitor leads and the side marker, on some pictures of every class."""
    from PIL import Image, ImageDraw, ImageFilter

    height, width = shape
    canvas = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(canvas)
    for _ in range(exposure.leads):
        x, y = rng.uniform(0.15, 0.85) * width, rng.uniform(0.3, 0.7) * height
        points = [(x, y)]
        for _ in range(6):
            points.append((points[-1][0] + rng.normal(0, 0.05) * width, points[-1][1] + 0.1 * height))
        pen.line(points, fill=90, width=1, joint="curve")
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), outline=120)
    if exposure.marker:
        pen.text((0.9 * width, 0.06 * height), "L", fill=230)
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.5)), dtype=np.float32) / np.float32(255.0)


def _expose(density: Floats, exposure: Exposure, rng: np.random.Generator) -> Field:
    """Scatter, quantum noise and the detector's tone curve."""
    density = density.clip(0.0, None)
    veiled = (1.0 - exposure.scatter) * density + exposure.scatter * blur(density, 14.0)
    light = np.exp(-2.4 * veiled)
    light += np.sqrt(light / exposure.photons) * blur(rng.standard_normal(light.shape, dtype=np.float32), 0.5)
    tone = -np.log(np.clip(light, 1e-3, None)) / 2.4
    bright = np.clip(exposure.gain * tone / 1.25, 0.0, 1.0) ** exposure.gamma
    return np.asarray(bright, dtype=np.float32)
