"""The planner: from the size of a study to parameters, packing, keys and predicted cost, or a refusal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from blindtune.errors import ParametersError, PlanError
from blindtune.kernels import cost
from blindtune.kernels.layout import Layout
from blindtune.kernels.machine import Machine, this_machine
from blindtune.kernels.training import Program
from blindtune.models.heads import Head
from blindtune.params import INSECURE, SECURITY_TABLE, Parameters, ParametersLiteral, most_levels

SPECIAL_BITS = 50
"""The key-switching prime stays below 2^50, as fast kernels want it."""

HEADROOM_BITS = 12
"""First prime over the scale: weights stay below 2^11. More would cost precision, for the noise of a key
switch is that of its largest digit over the special prime: at 50 bits against 50 it was 100 times that of
42 against 50."""

SCALES = range(31, 27, -1)
"""Scale bits to try, most precise first. Above 31 residues take eight bytes instead of four, in memory and
bandwidth; below 28 the noise begins to show (design, section 4)."""

SIZES = tuple((scale, scale + HEADROOM_BITS, SPECIAL_BITS) for scale in SCALES)
"""Bits of scale, first and special prime."""

MAX_BABY = 32


@dataclass(frozen=True)
class Plan:
    """How a study is packed, encrypted and trained, and what that will cost.

    Attributes:
        rows: training rows of all members together; private, not on the wire.
        columns: whitened features, bias included.
        outputs: heads trained, those of all settings.
        settings: of a grid that are trained side by side; else one.
    """

    rows: int
    columns: int
    outputs: int
    settings: int
    head: str
    parameters: Parameters
    layout: Layout
    program: Program
    cost: cost.Cost
    machine: Machine

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts that are uploaded: rows, targets and coefficients."""
        return self.layout.data_ciphertexts + cost.residual_ciphertexts(self.layout, self.program)

    @property
    def seconds(self) -> float:
        """Predicted training time on the plan's machine."""
        return self.machine.total(self.cost.operations, self.parameters.ring_degree)

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        p, x = self.parameters, self.layout
        return {
            "rows": self.rows,
            "columns": self.columns,
            "outputs": self.outputs,
            "settings": self.settings,
            "head": self.head,
            "security": p.security_name,
            "ring_degree": p.ring_degree,
            "modulus_bits": round(p.modulus_bits, 2),
            "levels": p.levels,
            "scale_bits": p.scale_bits,
            "steps": self.program.steps,
            "degree": self.program.degree,
            "lanes": x.lanes,
            "rows_per_block": x.rows,
            "row_blocks": x.row_blocks,
            "column_blocks": list(x.widths),
            "weight_blocks": x.weight_blocks,
            "baby_steps": x.baby,
            "ciphertexts": self.ciphertexts,
            "rotation_keys": len(x.keys().rotations),
            "upload_bytes": self.cost.upload_bytes,
            "key_bytes": self.cost.key_bytes,
            "memory_bytes": self.cost.memory_bytes,
            "operations": self.cost.operations.totals,
            "operations_by_level": [
                {"operation": name, "level": level, "count": n}
                for (name, level), n in sorted(self.cost.operations.counts.items())
            ],
            "predicted_seconds": round(self.seconds, 2),
            "machine": self.machine.name,
        }


def plan(
    rows: int,
    columns: int,
    outputs: int,
    head: Head,
    *,
    member_rows: tuple[int, ...] | None = None,
    security: int = 128,
    lanes: int | None = None,
    parameters: Parameters | None = None,
    refreshes: tuple[int, ...] = (),
    memory_limit: int = 16 << 30,
    upload_limit: int = 64 << 30,
    machine: Machine | None = None,
) -> Plan:
    """Choose the smallest ring that holds the levels, and the cheapest packing in it.

    Args:
        rows: training rows of all members.
        columns: whitened features, bias included.
        outputs: heads to train: classes or labels.
        head: its program gives steps and degree; a grid's settings are trained side by side.
        member_rows: rows of each member; each starts its own row block.
        security: 128, 192 or 256 bits.
        lanes: fix the lanes (a power of two) instead of choosing them.
        parameters: use these, for instance an existing key's, instead of choosing.
        refreshes: after how many steps the weights are made fresh; see :mod:`blindtune.depth`.
        memory_limit: bytes that the server may use.
        upload_limit: bytes that may be uploaded.
        machine: the server's prices; without it, those kept on this machine.

    Raises:
        PlanError: nothing fits; says what would.
        ParametersError: a security level that the table lacks.
    """
    if min(rows, columns - 1, outputs) < 1:
        raise PlanError(f"{rows} rows, {columns - 1} features and {outputs} outputs are not a study")
    members = member_rows or (rows,)
    if sum(members) != rows or min(members) < 1:
        raise PlanError("the members' rows do not add up to the study's")
    program, settings = replace(head.program, refreshes=refreshes), len(head.settings)
    outputs *= settings
    chosen = parameters or smallest_parameters(program.levels, security)
    if chosen.levels < program.levels:
        raise PlanError(
            f"{program.steps} steps of degree {program.degree} need {program.levels} levels, "
            f"the key has {chosen.levels}",
            remedy="Make a key for this study, or use fewer steps or a lower degree.",
        )
    layouts = list(_layouts(chosen, members, columns, outputs, lanes))
    if not layouts:
        raise PlanError(
            f"{columns} columns do not fit {chosen.slots} slots" + (f" with {lanes} lanes" if lanes else ""),
            remedy="Use fewer directions or fewer lanes.",
        )
    machine = machine or this_machine()
    fitting = [x for x in layouts if cost.memory_bytes(x, program, chosen) <= memory_limit]
    if not fitting:
        least = min(cost.memory_bytes(x, program, chosen) for x in layouts)
        raise PlanError(
            f"{rows} rows need at least {least / 2**30:.1f} GiB on the server, the limit is "
            f"{memory_limit / 2**30:.1f} GiB",
            remedy="Use fewer rows or directions, or a server with more memory (--memory).",
        )
    best = min(fitting, key=lambda x: _price(x, program, chosen, machine))
    predicted = cost.predict(best, program, chosen)
    if predicted.upload_bytes > upload_limit:
        raise PlanError(
            f"{predicted.upload_bytes / 2**30:.1f} GiB to upload, the limit is {upload_limit / 2**30:.1f}",
            remedy="Use fewer rows or directions.",
        )
    return Plan(rows, columns, outputs, settings, head.name, chosen, best, program, predicted, machine)


def check_level(security: int) -> None:
    """Refuse what is no security level of the table's.

    Raises:
        ParametersError: it is none.
    """
    if security == INSECURE or security not in SECURITY_TABLE:
        raise ParametersError(f"no security level {security}", remedy="Choose 128, 192 or 256.")


def smallest_parameters(
    levels: int, security: int, sizes: Sequence[tuple[int, int, int]] = SIZES
) -> Parameters:
    """The smallest ring whose table entry holds the levels, with the largest scale that fits.

    Args:
        sizes: bits of scale, first and special prime to try, the most precise first.

    Raises:
        PlanError: no ring holds so many levels.
        ParametersError: no such security level.
    """
    check_level(security)
    for ring_degree in sorted(SECURITY_TABLE[security]):
        for scale, first, special in sizes:
            if most_levels(ring_degree, scale, first + special, security) >= levels:
                return ParametersLiteral(ring_degree, levels, scale, first, special, security).checked()
    raise PlanError(
        f"no ring holds {levels} levels at {security}-bit security",
        remedy="Use fewer steps or a lower degree; blindtune ways shows what more steps cost.",
    )


def insecure_test_parameters(levels: int, ring_degree: int = 2048) -> Parameters:
    """Tiny parameters without any security, for tests; servers refuse them unless told otherwise."""
    return ParametersLiteral(ring_degree, levels, security=INSECURE).checked()


def _price(layout: Layout, program: Program, p: Parameters, machine: Machine) -> float:
    """Server seconds, with uploads weighed in at 50 MB/s: a slower link dominates everything else."""
    return cost.estimate(layout, program, p, machine) + cost.upload_bytes(layout, program, p) / 50e6


def _layouts(
    p: Parameters, members: tuple[int, ...], columns: int, outputs: int, lanes: int | None
) -> Iterator[Layout]:
    features = math.ceil(columns / 2)
    counts = [lanes] if lanes else [2**i for i in range(math.ceil(math.log2(outputs)) + 1)]
    for c in counts:
        rows = p.slots // c
        if rows < 1:
            continue
        blocks = sum(math.ceil(n / rows) for n in members)
        for widths in _widths(features, rows):
            baby = 1
            while baby <= min(*widths, MAX_BABY):
                yield Layout(p.slots, c, widths, baby, blocks, math.ceil(outputs / c))
                baby *= 2


def _widths(features: int, rows: int) -> list[tuple[int, ...]]:
    """Column blocks for so many complex features: one padded block, or a few powers of two."""
    found: set[tuple[int, ...]] = set()
    top = 1 << max(0, (features - 1).bit_length())
    if top <= rows:
        found.add((top,))
    for smallest in (4, 8, 16, 32, 64):
        padded = math.ceil(features / smallest) * smallest
        widths: list[int] = []
        left = padded
        while left:
            width = min(1 << (left.bit_length() - 1), rows)
            if width < 1 or len(widths) > 16:
                break
            widths.append(width)
            left -= width
        if not left:
            found.add(tuple(widths))
    return sorted(found)
