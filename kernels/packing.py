"""Matrices to slot vectors and back; the hospital packs, the server only sees the result encrypted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import InputError
from blindtune.kernels.layout import Layout

Floats = NDArray[np.float64]
Slots = NDArray[np.complex128]


def pack_block(block: Floats, layout: Layout) -> Iterator[tuple[tuple[int, int, int], Slots]]:
    """Complex diagonals of one row block.

    Args:
        block: (rows ≤ R, columns ≤ layout.columns); missing rows and columns count as zero.

    Yields:
        ``((j, g, b), slots)``: column block, giant step, baby step, and the diagonal ``k = g·B + b``
        rolled by ``g·B·C`` towards higher slots.
    """
    if block.shape[0] > layout.rows or block.shape[1] > layout.columns:
        raise InputError(f"a block of shape {block.shape} does not fit the layout")
    padded = np.zeros((layout.rows, layout.columns))
    padded[: block.shape[0], : block.shape[1]] = block
    row = np.arange(layout.rows)
    start = 0
    for j, width in enumerate(layout.widths):
        real, imaginary = padded[:, start : start + width], padded[:, start + width : start + 2 * width]
        features = real + 1j * imaginary
        start += 2 * width
        for g in range(layout.giants[j]):
            for b in range(layout.baby):
                k = g * layout.baby + b
                diagonal = np.repeat(features[row, (row + k) % width], layout.lanes)
                yield (j, g, b), np.roll(diagonal, g * layout.baby * layout.lanes)


def pack_lanes(values: Floats, layout: Layout) -> Slots:
    """A value for each row and lane, (rows ≤ R, lanes ≤ C), to slots; the rest is zero."""
    padded = np.zeros((layout.rows, layout.lanes))
    padded[: values.shape[0], : values.shape[1]] = values
    return padded.ravel().astype(np.complex128)


def pack_weights(weights: Floats, layout: Layout) -> list[Slots]:
    """Weights of one weight block to slot vectors, one a column block: what :func:`unpack_weights` undoes.

    Args:
        weights: (columns ≤ layout.columns, lanes ≤ C); the rest is zero.
    """
    padded = np.zeros((layout.columns, layout.lanes))
    padded[: weights.shape[0], : weights.shape[1]] = weights
    found, at = [], 0
    for width in layout.widths:
        values = padded[at : at + width] - 1j * padded[at + width : at + 2 * width]
        found.append(np.tile(values.ravel(), layout.slots // (width * layout.lanes)))
        at += 2 * width
    return found


def unpack_weights(slots: list[Slots], layout: Layout) -> Floats:
    """Decrypted weights of one weight block, one slot vector a column block, to (columns, C).

    Every slot vector repeats with period ``m·C``: the mean over its periods lowers the noise.
    """
    columns = []
    for width, values in zip(layout.widths, slots, strict=True):
        mean = values.reshape(-1, width, layout.lanes).mean(axis=0)
        columns += [mean.real, -mean.imag]
    return np.concatenate(columns)
