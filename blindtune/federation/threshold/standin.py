"""Rows that stand in for the hospitals' while a study is rehearsed: random, of the agreed shape.

The error of a result hardly depends on the rows, but it does on how many ciphertexts are summed: every
hospital has row blocks of its own here too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from blindtune.client.encoding import encode
from blindtune.federation.threshold.rehearsal import Encrypt, Train
from blindtune.federation.threshold.rows import scaling_of
from blindtune.federation.threshold.terms import Task
from blindtune.he.engine import Engine
from blindtune.kernels.blocks import Blocks, DataPart, Part, ResidualPart
from blindtune.kernels.layout import Layout
from blindtune.kernels.products import Grid
from blindtune.kernels.training import Program, Progress, Trainer
from blindtune.models.heads import Encoded

SHIFT = 1.5
"""Weight of a row, as balanced classes have it."""


def stand_in(
    task: Task,
    layout: Layout,
    members: int,
    rows: int,
    on_progress: Callable[[Progress], None] = lambda _: None,
    program: Program | None = None,
) -> Train:
    """Trains the task on random rows.

    Args:
        rows: of each member.
        on_progress: called while it trains.
        program: the task's own, with refreshes; without any, if left out.
    """
    own = replace(layout, row_blocks=-(-rows // layout.rows))
    whole = replace(layout, row_blocks=members * own.row_blocks)
    scaling = scaling_of(task, members * rows)

    def train(engine: Engine, encrypt: Encrypt) -> Grid:
        # Clear and encrypted, the same rows.
        rng = np.random.default_rng(1)
        blocks = Blocks(engine, whole, {}, {})
        for first in range(0, whole.row_blocks, own.row_blocks):
            x, encoded = _drawn(rng, task, rows)
            for name, vectors in encode(x, encoded, task.head, own, scaling):
                kind, *numbers = name.split("-")
                if kind == "data":
                    row, column = map(int, numbers)
                    part: Part = DataPart(first + row, column)
                else:
                    s, head, row = map(int, numbers)
                    part = ResidualPart(s, head, first + row)
                blocks.put(part, [encrypt(v) for v in vectors])
        return Trainer(blocks).train(program or task.head.program, on_progress)

    return train


def _drawn(rng: np.random.Generator, task: Task, rows: int) -> tuple[Any, Encoded]:
    """Whitened rows with their bias, and what is encrypted of their labels."""
    x = np.hstack([rng.normal(size=(rows, task.model.directions)), np.ones((rows, 1))])
    labels = np.eye(len(task.classes))[rng.integers(0, len(task.classes), rows)]
    weights = SHIFT * np.ones_like(labels)
    return x, Encoded(weights * (labels - 0.5), weights * task.head.coefficients[:, None, None])
