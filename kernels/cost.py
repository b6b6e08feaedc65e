"""What a layout and a program cost: operations by level, seconds, bytes, memory.

Counts are exact: the program is run on the counting engine. Seconds come from a cost model of SEAL's
operations on one core (``benchmarks/spine.py`` compares it with what was measured); bytes from the
sizes of SEAL's seeded, compressed serialisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blindtune.he.clear import CountingEngine
from blindtune.kernels.layout import Layout
from blindtune.kernels.polynomial import DEPTH
from blindtune.kernels.training import BATCH, Program, Trainer
from blindtune.params import Parameters

COMPRESSED = 1.2
"""Seeded SEAL blobs take this many times the modulus bits: zstd packs 30-bit residues in 64-bit words."""

LOADED = 1.25
"""Loading keys leaves this much of them in the process: SEAL's memory pool keeps what decompression used."""

PROCESS_BYTES = 250 << 20
"""A Python process with SEAL and the accelerator loaded, before any ciphertext."""

# Nanoseconds a coefficient: (a limb, a limb and digit) of each operation, SEAL 4.3 on one core.
_NANOSECONDS = {
    "multiply": (21.0, 0.0),
    "relinearise": (70.0, 12.0),
    "rotate": (65.0, 13.0),
    "rotate_relinearise": (125.0, 25.0),
    "rescale": (30.0, 0.0),
    "multiply_scalar": (40.0, 0.0),
    "add": (6.0, 0.0),
    "switch": (6.0, 0.0),
}


@dataclass(frozen=True)
class Cost:
    """Predicted cost of a study on the server.

    Attributes:
        operations: counts by (operation, level).
        core_seconds: predicted, on one core.
        upload_bytes: data and residual ciphertexts of all members.
        key_bytes: evaluation keys.
        memory_bytes: the server's peak.
    """

    operations: Mapping[tuple[str, int], int]
    core_seconds: float
    upload_bytes: int
    key_bytes: int
    memory_bytes: int

    @property
    def totals(self) -> dict[str, int]:
        """Counts by operation over all levels."""
        out: dict[str, int] = {}
        for (name, _), count in sorted(self.operations.items()):
            out[name] = out.get(name, 0) + count
        return out


def seconds(operation: str, level: int, ring_degree: int) -> float:
    """Predicted seconds of one operation at a level, on one core."""
    limb, digit = _NANOSECONDS[operation]
    limbs = level + 1
    return 1e-9 * ring_degree * limbs * (limb + digit * (limbs + 1))


def core_seconds(operations: Mapping[tuple[str, int], int], ring_degree: int) -> float:
    """Predicted seconds of operations by (operation, level), on one core; transport costs nothing."""
    return sum(
        n * seconds(name, level, ring_degree)
        for (name, level), n in operations.items()
        if name in _NANOSECONDS
    )


def residual_ciphertexts(layout: Layout, program: Program) -> int:
    """Ciphertexts of targets, rotated ones included, and of coefficients."""
    terms = (max(program.sets) + 1) * (1 + (program.degree + 1) // 2) + max(layout.giants)
    return layout.weight_blocks * layout.row_blocks * terms


def residue_bytes(p: Parameters) -> list[int]:
    """Bytes that the accelerated engine keeps a residue of each prime in."""
    return [4 if q < 1 << 32 else 8 for q in p.primes]


def ciphertext_bytes(p: Parameters) -> int:
    """Memory of a fresh ciphertext."""
    return 2 * sum(residue_bytes(p)[:-1]) * p.ring_degree


def key_memory(layout: Layout, p: Parameters) -> int:
    """Memory of the loaded evaluation keys."""
    digits = len(p.primes) - 1
    return (len(layout.keys().rotations) + 2) * digits * 2 * sum(residue_bytes(p)) * p.ring_degree


def memory_bytes(layout: Layout, program: Program, p: Parameters) -> int:
    """Predicted peak of the server's job."""
    fresh = ciphertext_bytes(p)
    heads, columns = layout.weight_blocks, len(layout.widths)
    rows = min(layout.row_blocks, max(1, BATCH // heads))
    working = heads * columns * layout.baby * 2.5
    if program.steps > 1:
        working += rows * heads * (max(layout.giants) + 8)
    study = layout.data_ciphertexts + residual_ciphertexts(layout, program)
    return int((study + working) * fresh + LOADED * key_memory(layout, p) + PROCESS_BYTES)


def count(layout: Layout, program: Program, p: Parameters) -> dict[tuple[str, int], int]:
    """Operations by (operation, level), exactly."""
    engine = CountingEngine(p, layout.keys())
    fresh = engine.encrypt()
    data = {
        (i, j, g, b): fresh
        for i in range(layout.row_blocks)
        for j, giants in enumerate(layout.giants)
        for g in range(giants)
        for b in range(layout.baby)
    }
    terms = [fresh] * (1 + (program.degree + 1) // 2)
    residuals = {
        (s, k, i): terms
        for s in range(max(program.sets) + 1)
        for k in range(layout.weight_blocks)
        for i in range(layout.row_blocks)
    }
    targets = {(k, i): [fresh] * max(layout.giants) for _, k, i in residuals}
    Trainer(engine, layout, data, residuals, targets).train(program)
    return dict(engine.ledger.counts)


def predict(layout: Layout, program: Program, p: Parameters) -> Cost:
    """The cost of a study."""
    operations = count(layout, program, p)
    bits = p.modulus_bits
    digits = len(p.primes) - 1
    seeded = COMPRESSED * p.ring_degree / 8
    data = layout.data_ciphertexts + residual_ciphertexts(layout, program)
    return Cost(
        operations=operations,
        core_seconds=core_seconds(operations, p.ring_degree),
        upload_bytes=int(data * seeded * (bits - _special_bits(p))),
        key_bytes=int((len(layout.keys().rotations) + 2) * digits * seeded * bits),
        memory_bytes=memory_bytes(layout, program, p),
    )


def estimate(layout: Layout, program: Program, p: Parameters) -> float:
    """Core seconds of a layout by formula: quick, for comparing many layouts."""
    heads, blocks, columns = layout.weight_blocks, layout.row_blocks, len(layout.widths)
    depth = DEPTH[program.degree]
    giants = max(layout.giants)
    sums = sum(len(layout.doublings(m)) + 1 for m in layout.widths)
    total = 0.0
    for step in range(program.steps):
        level = p.levels - 1 - (step - 1) * (2 + depth)
        low = p.levels if step == 0 else level - 1 - depth
        switches = {low: columns * (2 * layout.baby - 1), low - 1: sums}
        if step:
            switches[low] += blocks * (giants - 1)
            switches[level] = columns * (layout.baby - 1) + blocks * (2 * giants - 1)
            switches[level - 1] = blocks * 7
        total += heads * sum(n * seconds("rotate", x, p.ring_degree) for x, n in switches.items())
        products = layout.data_ciphertexts * heads
        for x in (low, level) if step else (low,):
            total += products * seconds("multiply", x, p.ring_degree)
            total += layout.data_ciphertexts * seconds("switch", x, p.ring_degree)
    return total


def _special_bits(p: Parameters) -> int:
    return p.primes[-1].bit_length()
