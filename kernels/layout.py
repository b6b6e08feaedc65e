"""How rows, features and lanes lie in slots: complex diagonals, column blocks and lanes.

``C`` lanes (a power of two), ``R = slots / C`` rows a block. Slot ``s = i·C + c`` holds row ``i``, lane
``c``: lane minor, so that every rotation is a global cyclic one and nothing leaks between lanes.
Columns are real features, bias included. A column block of width ``m`` (a power of two) holds
``2m`` columns as ``m`` complex features: ``X_c[i, j] = X[i, j] + i·X[i, j + m]``. Several column blocks
of different widths avoid padding 192 columns to 256: 96 complex features are widths (64, 32).
"""

from __future__ import annotations

from dataclasses import dataclass

from blindtune.errors import PlanError
from blindtune.he.engine import KeySet


@dataclass(frozen=True)
class Layout:
    """Packing of a study's matrix; public.

    Attributes:
        slots: slots in a ciphertext.
        lanes: C, heads trained side by side in one ciphertext; a power of two.
        widths: complex features of each column block; powers of two, multiples of ``baby``.
        baby: B, the baby steps; a power of two. A block of width m has ``m / B`` giant steps.
        row_blocks: ciphertext blocks of ``slots / lanes`` rows.
        weight_blocks: ciphertexts of ``lanes`` heads each.
    """

    slots: int
    lanes: int
    widths: tuple[int, ...]
    baby: int
    row_blocks: int
    weight_blocks: int

    def __post_init__(self) -> None:
        powers = (self.slots, self.lanes, self.baby, *self.widths)
        if any(n < 1 or n & (n - 1) for n in powers) or not self.widths:
            raise PlanError("slots, lanes, baby steps and widths must be powers of two")
        if min(self.row_blocks, self.weight_blocks) < 1:
            raise PlanError("a layout without rows or without heads")
        if self.lanes > self.slots or max(self.widths) > self.rows or min(self.widths) < self.baby:
            raise PlanError(
                f"widths {self.widths} with {self.baby} baby steps do not fit {self.rows} rows a block",
                remedy="Use fewer lanes or a larger ring.",
            )

    @property
    def rows(self) -> int:
        """R, rows in a block."""
        return self.slots // self.lanes

    @property
    def columns(self) -> int:
        """Real columns, padding and bias included."""
        return 2 * sum(self.widths)

    @property
    def giants(self) -> tuple[int, ...]:
        """Giant steps of each column block."""
        return tuple(m // self.baby for m in self.widths)

    @property
    def data_ciphertexts(self) -> int:
        """Ciphertexts that hold the dataset."""
        return self.row_blocks * sum(self.widths)

    def doublings(self, width: int) -> list[int]:
        """Rotations that add up the periods of a column block: ``m·C·2^t`` below ``slots``."""
        steps, n = [], width * self.lanes
        while n < self.slots:
            steps.append(n)
            n *= 2
        return steps

    def keys(self) -> KeySet:
        """The minimal key set: ±C, ±B·C and the doublings (Horner chains need no others)."""
        c, bc = self.lanes, self.baby * self.lanes
        steps = set(self.doublings(min(self.widths)))
        if self.baby > 1:
            steps |= {c, self.slots - c}
        if max(self.giants) > 1:
            steps |= {bc, self.slots - bc}
        return KeySet(tuple(sorted(s % self.slots for s in steps if s % self.slots)))
