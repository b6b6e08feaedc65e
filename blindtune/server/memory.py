"""How much memory training takes, told from manifests alone, so that a study is refused before it starts."""

from __future__ import annotations

from collections.abc import Sequence

import psutil

from blindtune.errors import PlanError
from blindtune.kernels.polynomial import DEPTH
from blindtune.wire.manifest import Manifest

PROCESS = 150 << 20
"""Bytes of the interpreter and its libraries in the training process, and again at most in each worker."""


def predicted_bytes(keys: Manifest, data: Sequence[Manifest], workers: int) -> int:
    """Most bytes that training can take, over the training process and its workers.

    Evaluation keys and fresh ciphertexts are loaded once and shared. Each worker keeps its own copies
    at the lower levels, one after the other: SEAL's pool reuses memory for the same level only.
    """
    p, layout, program = keys.checked_parameters, keys.checked_layout, keys.checked_program
    limb = 2 * p.ring_degree * 8
    key_switching = (len(layout.keys().rotations) + 2) * (len(p.primes) - 1) * len(p.primes) * limb
    rows = sum(m.layout.row_blocks for m in data)
    dataset = rows * sum(layout.widths)
    terms = 1 + (program.degree + 1) // 2
    residuals = (max(program.sets) + 1) * layout.weight_blocks * rows * terms
    top = p.levels + 1
    depth = 2 + DEPTH[program.degree]
    copied = sum(
        (first + 1) + (first - depth + 2)
        for first in (p.levels - 1 - step * depth for step in range(program.steps - 1))
    )
    # Rotated weights, their sums and one rotated residual a row block, at three polynomials each.
    working = 2 * top * (layout.baby * len(layout.widths) + max(layout.giants) + rows)
    shared = key_switching + (dataset + residuals) * top * limb + PROCESS
    return shared + workers * ((dataset * copied + working) * limb + PROCESS)


def available_bytes() -> int:
    """Memory that the machine can give without swapping."""
    return int(psutil.virtual_memory().available)


def check_memory(keys: Manifest, data: Sequence[Manifest], workers: int) -> None:
    """Refuse a study that does not fit.

    Raises:
        PlanError: it may take more than the machine has.
    """
    wanted, there = predicted_bytes(keys, data, workers), available_bytes()
    if wanted > there:
        raise PlanError(
            f"training may take {wanted / 1e9:.1f} GB of memory; this machine has {there / 1e9:.1f} GB left",
            remedy="Plan fewer rows, features or steps, or start it on a larger machine or with fewer cores.",
        )
