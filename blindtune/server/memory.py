"""How much memory training takes, told from manifests alone, so that a study is refused before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import psutil

from blindtune.errors import PlanError
from blindtune.kernels.cost import memory_bytes
from blindtune.wire.manifest import Manifest


def predicted_bytes(keys: Manifest, data: Sequence[Manifest]) -> int:
    """Most bytes that training can take."""
    blocks = sum(m.layout.row_blocks for m in data)
    layout = replace(keys.checked_layout, row_blocks=blocks)
    predicted = memory_bytes(layout, keys.checked_program, keys.checked_parameters)
    bootstrapping = keys.checked_bootstrapping
    return predicted + (bootstrapping.memory_bytes(keys.keys) if bootstrapping else 0)


def available_bytes() -> int:
    """Memory that the machine can give without swapping."""
    return int(psutil.virtual_memory().available)


def check_memory(keys: Manifest, data: Sequence[Manifest]) -> None:
    """Refuse a study that does not fit.

    Raises:
        PlanError: it may take more than the machine has.
    """
    wanted, there = predicted_bytes(keys, data), available_bytes()
    if wanted > there:
        raise PlanError(
            f"training may take {wanted / 1e9:.1f} GB of memory; this machine has {there / 1e9:.1f} GB left",
            remedy="Plan fewer rows, features or steps, or start it on a larger machine.",
        )
