"""What a layout and a program cost: operations by level, seconds, bytes, memory.

Counts are exact: the program is run on the counting engine. Seconds follow from a machine's prices
(:mod:`blindtune.kernels.machine`).
"""

from __future__ import annotations

from dataclasses import dataclass

from blindtune.he import blob
from blindtune.he.clear import CountingEngine
from blindtune.he.engine import Ledger
from blindtune.kernels.blocks import BATCH, Blocks
from blindtune.kernels.layout import Layout
from blindtune.kernels.machine import Machine
from blindtune.kernels.polynomial import DEPTH, SWITCHES
from blindtune.kernels.training import Program, Trainer
from blindtune.params import Parameters

REUSED = 1.8
"""Working memory over what is alive at once: buffers of higher levels wait for others of their size."""

PROCESS_BYTES = 250 << 20
"""A Python process with SEAL and the accelerator loaded, before any ciphertext."""


@dataclass(frozen=True)
class Cost:
    """Predicted cost of a study on the server.

    Attributes:
        operations: counts and calls by (operation, level).
        upload_bytes: data and residual ciphertexts of all members.
        key_bytes: evaluation keys.
        memory_bytes: the server's peak.
    """

    operations: Ledger
    upload_bytes: int
    key_bytes: int
    memory_bytes: int


def residual_ciphertexts(layout: Layout, program: Program) -> int:
    """Ciphertexts of targets and coefficients."""
    return layout.weight_blocks * layout.row_blocks * (max(program.sets) + 1) * program.terms


def upload_bytes(layout: Layout, program: Program, p: Parameters) -> int:
    """Bytes of all encrypted data, targets and coefficients."""
    return (layout.data_ciphertexts + residual_ciphertexts(layout, program)) * blob.fresh_bytes(p)


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


def working_bytes(layout: Layout, program: Program, p: Parameters) -> int:
    """Predicted memory of what training makes: rotations, sums, weights."""
    heads, columns = layout.weight_blocks, len(layout.widths)
    rows = min(layout.row_blocks, max(1, BATCH // heads))
    working = heads * columns * layout.baby * 2.5
    if program.terms > 1:
        working += rows * heads * (max(layout.giants) + 8)
    return int(REUSED * working * ciphertext_bytes(p))


def memory_bytes(layout: Layout, program: Program, p: Parameters) -> int:
    """Predicted peak of the server's job."""
    study = layout.data_ciphertexts + residual_ciphertexts(layout, program)
    if program.refreshes:
        # Rows are lowered beside the fresh ones.
        study += layout.data_ciphertexts
    held = study * ciphertext_bytes(p) + key_memory(layout, p)
    return held + working_bytes(layout, program, p) + PROCESS_BYTES


def count(layout: Layout, program: Program, p: Parameters) -> Ledger:
    """Operations, exactly."""
    engine = CountingEngine(p, layout.keys())
    fresh = engine.encrypt()
    data = {
        (i, j, g, b): fresh
        for i in range(layout.row_blocks)
        for j, giants in enumerate(layout.giants)
        for g in range(giants)
        for b in range(layout.baby)
    }
    terms = [fresh] * program.terms
    residuals = {
        (s, k, i): terms
        for s in range(max(program.sets) + 1)
        for k in range(layout.weight_blocks)
        for i in range(layout.row_blocks)
    }
    start = [[fresh] * len(layout.widths)] * layout.weight_blocks if program.started else None
    Trainer(Blocks(engine, layout, data, residuals)).train(program, start=start)
    return engine.ledger


def predict(layout: Layout, program: Program, p: Parameters) -> Cost:
    """The cost of a study."""
    return Cost(
        operations=count(layout, program, p),
        upload_bytes=upload_bytes(layout, program, p),
        key_bytes=(len(layout.keys().rotations) + 2) * blob.key_bytes(p),
        memory_bytes=memory_bytes(layout, program, p),
    )


def estimate(layout: Layout, program: Program, p: Parameters, machine: Machine) -> float:
    """Seconds of a layout by formula: quick, for comparing many layouts."""
    heads, blocks, columns = layout.weight_blocks, layout.row_blocks, len(layout.widths)
    depth = DEPTH[program.degree]
    giants = max(layout.giants)
    batches = -(-blocks // max(1, BATCH // heads))

    def price(name: str, level: int, count: float, calls: float) -> float:
        return machine.seconds(name, level, p.ring_degree, count, calls)

    total = 0.0
    for step in range(program.steps):
        from_zero = step == 0 and not program.started
        level = p.levels - program.levels_entering(step)
        low = p.levels if from_zero else level - 1 - depth
        diagonals = layout.data_ciphertexts * heads
        calls = batches * layout.baby * columns
        total += price("multiply", low, diagonals, calls)
        total += price("rotate_relinearise", low, columns * layout.baby * heads, layout.baby)
        doublings = len(layout.doublings(min(layout.widths)))
        total += price("rotate", low, columns * doublings * heads, doublings)
        total += price("rotate", low - 1, columns * heads, 1)
        total += price("rotate", low, blocks * (giants - 1) * heads, batches * (giants - 1))
        if not from_zero:
            total += price("multiply", level, diagonals, blocks * giants)
            total += price("rotate_relinearise", level, blocks * giants * heads, batches * giants)
            total += price("rotate", level, columns * (layout.baby - 1) * heads, layout.baby - 1)
            switches = SWITCHES[program.degree]
            total += price("relinearise", level - 2, blocks * switches * heads, switches * batches)
            total += price("rotate", level - 1, blocks * heads, batches)
    return total
