"""An invented thorax: what varies from patient to patient and from exposure to exposure, and its density.

Lengths are in half image widths: u runs right over the picture in [-1, 1], v down, 0 at the centre.
The patient faces the viewer, so the heart lies at positive u. No picture of a person was used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from blindtune.imaging.fields import Field, bell, dome, ladder, step, tube


@dataclass(frozen=True)
class Anatomy:
    """What stays the same in all pictures of one patient; lengths in half image widths."""

    body: float
    cage: float
    apex: float
    base: float
    heart: float
    heart_tilt: float
    mediastinum: float
    rib_spacing: float
    rib_slope: float
    rib_contrast: float
    bulk: float
    breast: float
    vessels: int
    gas: float

    @staticmethod
    def draw(rng: np.random.Generator) -> Anatomy:
        """One invented patient."""
        return Anatomy(
            body=rng.uniform(0.95, 1.12),
            cage=rng.uniform(0.68, 0.8),
            apex=rng.uniform(-0.84, -0.72),
            base=rng.uniform(0.46, 0.66),
            heart=rng.uniform(0.24, 0.36),
            heart_tilt=rng.uniform(0.3, 0.75),
            mediastinum=rng.uniform(0.1, 0.15),
            rib_spacing=rng.uniform(0.145, 0.175),
            rib_slope=rng.uniform(0.25, 0.5),
            rib_contrast=rng.uniform(0.09, 0.17),
            bulk=rng.uniform(0.8, 1.25),
            breast=rng.uniform(0.08, 0.2) if rng.random() < 0.45 else 0.0,
            vessels=int(rng.integers(2**31)),
            gas=rng.uniform(0.0, 0.5),
        )


@dataclass(frozen=True)
class Exposure:
    """What changes from picture to picture, whatever the finding."""

    angle: float
    shift: tuple[float, float]
    zoom: float
    breath: float
    gain: float
    gamma: float
    photons: float
    scatter: float
    leads: int
    marker: bool

    @staticmethod
    def draw(rng: np.random.Generator, *, portable: bool) -> Exposure:
        """One invented exposure; bedside (AP) pictures are noisier and less well placed."""
        loose = 1.6 if portable else 1.0
        return Exposure(
            angle=rng.normal(0.0, 0.025) * loose,
            shift=(rng.normal(0.0, 0.03) * loose, rng.normal(0.0, 0.03) * loose),
            zoom=rng.uniform(0.92, 1.08) * (1.05 if portable else 1.0),
            breath=rng.uniform(-0.07, 0.03) * loose,
            gain=rng.uniform(0.88, 1.12),
            gamma=rng.uniform(0.85, 1.2),
            photons=rng.uniform(1200.0, 4000.0) / loose,
            scatter=rng.uniform(0.05, 0.2) * loose,
            leads=int(rng.integers(1, 4)) if portable and rng.random() < 0.6 else 0,
            marker=bool(rng.random() < 0.7),
        )


def coordinates(shape: tuple[int, int], exposure: Exposure) -> tuple[Field, Field]:
    height, width = shape
    x = (np.arange(width, dtype=np.float32)[None, :] - (width - 1) / 2) * (2 / width) - exposure.shift[0]
    y = (np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2) * (2 / width) - exposure.shift[1]
    cos, sin = math.cos(exposure.angle) / exposure.zoom, math.sin(exposure.angle) / exposure.zoom
    return (x * cos + y * sin).astype(np.float32), (y * cos - x * sin).astype(np.float32)


def thorax(
    u: Field, v: Field, anatomy: Anatomy, exposure: Exposure, stomach_tilt: float
) -> tuple[Field, Field]:
    """Thickness of the lungs, and density of all that is drawn point by point."""
    lungs = _lungs(u, v, anatomy, exposure)
    density = _soft_tissue(u, v, anatomy) - np.float32(0.44) * lungs
    density += _heart_and_mediastinum(u, v, anatomy, exposure)
    density += _bones(u, v, anatomy, exposure)
    density += _below_diaphragm(u, v, anatomy, exposure, stomach_tilt)
    return lungs, density


def vessels(shape: tuple[int, int], anatomy: Anatomy, exposure: Exposure) -> Field:
    """Branching vessels from the hila outwards; the tree belongs to the patient."""
    from PIL import Image, ImageDraw, ImageFilter

    rng = np.random.default_rng(anatomy.vessels)
    height, width = shape
    canvas = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(canvas)

    def pixel(point: tuple[float, float]) -> tuple[float, float]:
        cos, sin = math.cos(exposure.angle) * exposure.zoom, math.sin(exposure.angle) * exposure.zoom
        x = point[0] * cos - point[1] * sin + exposure.shift[0]
        y = point[1] * cos + point[0] * sin + exposure.shift[1]
        return float(x * width / 2 + width / 2), float(y * width / 2 + height / 2)

    stack = []
    for side, top in ((-1.0, -0.08), (1.0, -0.13)):
        for direction in np.linspace(-1.25, 1.3, 8):
            angle = direction + rng.normal(0, 0.12)
            stack.append(((side * (anatomy.mediastinum + 0.03), top), angle, side, 0.024, 0))
    while stack:
        start, angle, side, calibre, depth = stack.pop()
        length = rng.uniform(0.08, 0.16)
        end = (start[0] + side * math.cos(angle) * length, start[1] + math.sin(angle) * length)
        shade = int(255 * min(1.0, calibre / 0.024))
        pen.line([pixel(start), pixel(end)], fill=shade, width=max(1, round(calibre * width / 2)))
        if depth < 4:
            stack.append((end, angle + rng.normal(0, 0.2), side, calibre * 0.78, depth + 1))
            if rng.random() < 0.75:
                turn = rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 0.8)
                stack.append((end, angle + turn, side, calibre * 0.62, depth + 1))
    soft = canvas.filter(ImageFilter.GaussianBlur(0.9))
    return np.asarray(soft, dtype=np.float32) * np.float32(0.17 / 255.0)


def _cage_half_width(v: Field, anatomy: Anatomy) -> Field:
    """Outline of the rib cage: narrow at the apex, near its full width from the middle on."""
    t = np.clip((v - anatomy.apex) / (anatomy.base - anatomy.apex + 0.25), 0.0, 1.0)
    return np.asarray(0.12 + (anatomy.cage - 0.12) * np.sqrt(1.0 - (1.0 - t) ** 3), dtype=np.float32)


def diaphragm(u: Field, anatomy: Anatomy, exposure: Exposure) -> Field:
    """Height of the diaphragm: two domes, the right one (negative u) a little higher."""
    base = anatomy.base + exposure.breath
    dome = ((np.abs(u) - 0.33) / 0.42) ** 2
    return (base + 0.3 * dome - np.float32(0.05) * (u < 0)).astype(np.float32)


def _lungs(u: Field, v: Field, anatomy: Anatomy, exposure: Exposure) -> Field:
    """Thickness of air: 0 outside the lungs, near 1 in their middle."""
    outer = _cage_half_width(v, anatomy)
    inner = np.float32(anatomy.mediastinum * 0.8)
    middle, radius = (outer + inner) / 2, np.maximum((outer - inner) / 2, 1e-3)
    across = np.clip(1.0 - ((np.abs(u) - middle) / radius) ** 2, 0.0, None)
    across = np.sqrt(np.sqrt(across))
    down = np.clip((v - anatomy.apex) / 0.35, 0.0, 1.0)
    below = diaphragm(u, anatomy, exposure) - v
    return np.asarray(across * np.sqrt(down) * step(below, 0.012), dtype=np.float32)


def _soft_tissue(u: Field, v: Field, anatomy: Anatomy) -> Field:
    shoulder = step(v - (anatomy.apex - 0.06 + 0.22 * np.clip(np.abs(u) - 0.25, 0, None)), 0.035)
    half = 0.24 + (anatomy.body - 0.24) * shoulder
    thickness = np.sqrt(np.clip(1.0 - (u / half) ** 2, 0.0, None))
    tissue = np.float32(0.62 * anatomy.bulk) * np.sqrt(thickness) * (0.86 + 0.16 * np.clip(v, -1, 1))
    # Upper arms hang beside the chest.
    for side in (-1.0, 1.0):
        tissue += 0.3 * dome(u, v, (side * (anatomy.body + 0.1), 0.25), (0.17, 1.0), -side * 0.1)
    if anatomy.breast:
        for side in (-1.0, 1.0):
            shadow = dome(u, v, (side * 0.42, 0.2), (0.3, 0.33))
            tissue += np.float32(anatomy.breast) * shadow * step(v - 0.02, 0.12)
    return np.asarray(tissue, dtype=np.float32)


def _heart_and_mediastinum(u: Field, v: Field, anatomy: Anatomy, exposure: Exposure) -> Field:
    low = anatomy.base + exposure.breath
    # Great vessels widen the top, the heart the bottom; between them lies a waist.
    waist = anatomy.mediastinum * (0.85 + 0.5 * (v + 0.3) ** 2 + 0.12 * bell((v + 0.55) / 0.15))
    column = step(waist - np.abs(u - 0.02), 0.022) * np.float32(0.27)
    knob = 0.26 * dome(u, v, (anatomy.mediastinum, -0.32), (0.085, 0.11))
    size = anatomy.heart
    at, radii = (0.34 * size + 0.02, low - 0.6 * size), (size * 1.25, size * 0.85)
    heart = 0.38 * np.sqrt(dome(u, v, at, radii, anatomy.heart_tilt))
    right = 0.3 * np.sqrt(dome(u, v, (-0.04, low - 0.7 * size), (0.1 + 0.28 * size, size * 0.85)))
    spine = bell(u / 0.085) * (0.1 + 0.03 * np.cos(v * (2 * np.pi / 0.135)))
    trachea = bell((u + 0.01) / 0.04) * step(-0.22 - v, 0.02) * np.float32(0.17)
    hila = np.zeros_like(u)
    for side, height in ((-1.0, -0.08), (1.0, -0.13)):
        hila += 0.12 * dome(u, v, (side * (anatomy.mediastinum + 0.05), height), (0.1, 0.17)) ** 2
    central = np.maximum(np.maximum(column + knob, heart), right)
    # The abdomen is as dense as the mediastinum, so the column is lost in it.
    fade = 1.0 - 0.75 * step(v - low - 0.02, 0.06)
    return np.asarray((central + spine) * fade - trachea + hila, dtype=np.float32)


def _bones(u: Field, v: Field, anatomy: Anatomy, exposure: Exposure) -> Field:
    out = np.abs(u)
    cage = _cage_half_width(v, anatomy) + 0.035
    within = step(cage - out, 0.012)
    # Ribs turn edge-on at the chest wall, where the beam passes more bone.
    edge_on = 1.0 + 0.7 * bell((cage - out) / 0.06)
    lift = 0.3 * exposure.breath
    top = anatomy.apex + 0.05 + lift
    back = v - top + 0.1 * out - anatomy.rib_slope * out * out + 0.012 * np.sin(3.0 * u + 5.0 * v)
    faint = 1.0 - 0.8 * step(v - diaphragm(u, anatomy, exposure), 0.05)
    bones = ladder(back, anatomy.rib_spacing, 9, 0.036) * step(out - 0.09, 0.02) * edge_on
    front = v - top - 0.16 - 0.75 * np.clip(anatomy.cage - out, 0, None)
    start = step(out - 0.3 - 0.12 * np.clip(v + 0.4, 0, 1), 0.06)
    bones += 0.6 * ladder(front, anatomy.rib_spacing, 6, 0.042) * start
    bones *= within * faint * np.float32(anatomy.rib_contrast)
    clavicle = anatomy.apex + 0.12 - 0.13 * out + 0.05 * np.sin(out * 6.0) + lift
    bones += 0.17 * tube(v - clavicle, 0.034) * step(out - 0.1, 0.02) * step(0.78 - out, 0.03)
    for side in (-1.0, 1.0):
        bones += 0.22 * dome(u, v, (side * 0.99, anatomy.apex + 0.16), (0.13, 0.15))
        blade = dome(u, v, (side * 0.83, anatomy.apex + 0.45), (0.15, 0.4), side * 0.2)
        bones += 0.06 * step(blade - 0.1, 0.05)
    return np.asarray(bones, dtype=np.float32)


def _below_diaphragm(u: Field, v: Field, anatomy: Anatomy, exposure: Exposure, tilt: float) -> Field:
    """Liver and spleen are dense; the stomach may hold a bubble of gas."""
    below = step(v - diaphragm(u, anatomy, exposure), 0.02)
    bubble = dome(u, v, (0.4, anatomy.base + exposure.breath + 0.17), (0.17, 0.09), tilt)
    return np.asarray(below * (0.14 - np.float32(anatomy.gas * 0.6) * np.sqrt(bubble)), dtype=np.float32)
