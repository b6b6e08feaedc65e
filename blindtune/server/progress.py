"""Where a job stands, as its tenant sees it while it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from blindtune.params import Parameters


@dataclass(frozen=True)
class JobProgress:
    """Where a running job stands: ``done`` of ``total`` (bytes in the phases ``verify`` and ``load``).

    Attributes:
        step: that is under way, from 1 on; 0 before the first.
        phase: ``verify``, ``load``, or a phase of a training step.
        level: rescales left in the weights.
        modulus_bits: log2 of the modulus at that level, of ``modulus_bits_whole``.
        seconds: since this phase of the work began; of training, kept steps of earlier workers included.
        eta: seconds left; None while they cannot be told.
        operations: homomorphic operations so far, by name, of those ``planned``.
        memory: bytes that the worker holds now.
    """

    step: int
    steps: int
    phase: str
    level: int
    modulus_bits: float
    modulus_bits_whole: float
    done: int
    total: int
    seconds: float
    eta: float | None
    operations: dict[str, int]
    planned: dict[str, int]
    memory: int


def modulus_bits(parameters: Parameters, level: int) -> float:
    """log2 of a ciphertext's modulus at a level."""
    return round(sum(math.log2(q) for q in parameters.primes[: level + 1]), 1)
