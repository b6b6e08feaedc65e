"""How close rebuilt images come to the true ones, and whether they tell patients apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from blindtune.audit.results import proportion
from blindtune.report.figures import Figure

Floats = NDArray[np.float64]
Images = NDArray[np.floating]

FEATURES = "blindtune_deit_96"
"""The network in whose features FID is measured: it is in the package and knows chest X-rays."""

_PEAK_DB = 60.0
_SIGMA, _STABLE = 1.5, (0.01**2, 0.03**2)


def mse(rebuilt: Images, truth: Images) -> Floats:
    """Mean squared error of each image, shape (n,); pixels in [0, 1]."""
    return np.asarray(((rebuilt.astype(np.float64) - truth) ** 2).mean(axis=(1, 2)))


def psnr(rebuilt: Images, truth: Images) -> Floats:
    """Peak signal to noise of each image in dB, shape (n,); 60 at most, where 8-bit pixels are alike."""
    return np.asarray(-10 * np.log10(np.maximum(mse(rebuilt, truth), 10 ** (-_PEAK_DB / 10))))


def ssim(rebuilt: Images, truth: Images) -> Floats:
    """Structural similarity of each image, shape (n,) (Wang et al. 2004: Gaussian window of 11 pixels)."""
    from scipy.ndimage import gaussian_filter

    def smooth(x: Floats) -> Floats:
        return np.asarray(gaussian_filter(x, sigma=(0, _SIGMA, _SIGMA), truncate=3.5))

    x, y = rebuilt.astype(np.float64), truth.astype(np.float64)
    mx, my = smooth(x), smooth(y)
    vx, vy, vxy = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
    first, second = _STABLE
    values = (2 * mx * my + first) * (2 * vxy + second) / ((mx**2 + my**2 + first) * (vx + vy + second))
    return np.asarray(values.mean(axis=(1, 2)))


def frechet(first: Images, second: Images) -> float:
    """Fréchet distance of two sets of features (Heusel et al. 2017), shapes (n, d) and (m, d).

    The trace of the root of a product of covariances is the nuclear norm of the product of the centred
    features, which needs no root of a matrix and stays exact with fewer images than features.
    """
    a, b = first.astype(np.float64), second.astype(np.float64)
    gap = a.mean(axis=0) - b.mean(axis=0)
    a, b = ((x - x.mean(axis=0)) / np.sqrt(max(1, len(x) - 1)) for x in (a, b))
    root = np.linalg.norm(a @ b.T, "nuc")
    return float(gap @ gap + (a**2).sum() + (b**2).sum() - 2 * root)


def fid(rebuilt: Images, truth: Images) -> Figure:
    """Fréchet distance in features of :data:`FEATURES`.

    It is biased upwards where there are few images: compare sets of the same size only.
    """
    from blindtune.imaging import prepare
    from blindtune.models import load_backbone

    if len(rebuilt) < 2:
        return Figure(None, reason="needs two images or more")
    network = load_backbone(FEATURES)
    features = [
        network.embed(np.stack([prepare(np.clip(i, 0, 1).astype(np.float32), network.size) for i in images]))
        for images in (rebuilt, truth)
    ]
    return Figure(frechet(*features), reason=f"of {len(rebuilt)} images: biased upwards, no interval")


def nearest(queries: Images, gallery: Images) -> NDArray[np.int64]:
    """For each query the most similar of a gallery, by correlation; shapes (n, ...) and (m, ...)."""

    def unit(x: Images) -> Floats:
        flat = x.reshape(len(x), -1).astype(np.float64)
        flat = flat - flat.mean(axis=1, keepdims=True)
        return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12))

    return np.asarray((unit(queries) @ unit(gallery).T).argmax(axis=1))


def mean(values: Sequence[float] | Floats) -> Figure:
    """A mean over images of different patients with its 95 % interval (Student's t)."""
    from scipy.stats import t

    x = np.asarray(values, np.float64)
    if len(x) < 2 or np.ptp(x) == 0:
        return Figure(float(x.mean()), reason="no interval: all images alike" if len(x) > 1 else "one image")
    half = t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return Figure(float(x.mean()), float(x.mean() - half), float(x.mean() + half))


def judged(rebuilt: Images, truth: Images, hits: NDArray[np.bool_]) -> dict[str, Figure]:
    """The figures of rebuilt images.

    Args:
        rebuilt, truth: shape (n, side, side) in [0, 1].
        hits: whether each one's nearest true image is its own patient's.
    """
    return {
        "MSE": mean(mse(rebuilt, truth)),
        "PSNR, dB": mean(psnr(rebuilt, truth)),
        "SSIM": mean(ssim(rebuilt, truth)),
        f"FID ({FEATURES})": fid(rebuilt, truth),
        "patients re-identified": proportion(int(hits.sum()), len(hits)),
    }


def anova(groups: Sequence[Floats]) -> Figure:
    """p of a one-way analysis of variance: that all groups have one mean."""
    from scipy.stats import f_oneway

    if len(groups) < 2 or min(map(len, groups)) < 2:
        return Figure(None, reason="needs two groups of two images or more")
    return Figure(float(f_oneway(*groups).pvalue))


def t_test(first: Floats, second: Floats) -> Figure:
    """p of Welch's t-test: that two groups have one mean."""
    from scipy.stats import ttest_ind

    if min(len(first), len(second)) < 2 or np.ptp(first) + np.ptp(second) == 0:
        return Figure(None, reason="needs two different images or more in each group")
    return Figure(float(ttest_ind(first, second, equal_var=False).pvalue))
