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

    Evaluation keys and fresh ciphertexts are loaded once and shared. Workers copy the dataset to every
    lower level, and SEAL's pool reuses memory within a level only; in a phase one worker copies a given
    ciphertext, or one for each weight block. Measured at ring 2^14, 11 levels and 96 ciphertexts: 2.20 GB
    of 2.33 predicted with one worker, 2.32 of 2.63 with two. A tenth is added for what is not counted.
    """
    p, layout, program = keys.checked_parameters, keys.checked_layout, keys.checked_program
    limb = 2 * p.ring_degree * 8
    # A quarter more than the keys themselves stays in SEAL's pool from loading them.
    key_switching = 1.25 * (len(layout.keys().rotations) + 2) * (len(p.primes) - 1) * len(p.primes) * limb
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
    # Rotated weights, their sums and one rotated residual a row block, with three polynomials each.
    working = 1.5 * top * (layout.baby * len(layout.widths) + max(layout.giants) + rows)
    shared = key_switching + (dataset + residuals) * top * limb + PROCESS
    copies = dataset * copied * min(workers, layout.weight_blocks) * limb
    return int(1.1 * (shared + copies + workers * (working * limb + PROCESS)))


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
