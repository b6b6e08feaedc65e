"""A training's state between two steps, as a file: what another process needs besides the study to go on.

A frame (:mod:`blindtune.wire.bundle`) of one item that says which study and step, then the ciphertexts of
the weights and of the weights before them. Everything is encrypted under the study's key; a file of other
inputs than the study's is not taken.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from blindtune.errors import BundleError, EngineError, PlanError
from blindtune.he.blob import largest_bytes
from blindtune.he.engine import Ciphertext, Engine
from blindtune.kernels.layout import Layout
from blindtune.kernels.products import Grid
from blindtune.kernels.training import Program, State
from blindtune.wire.bundle import Bundle, frame, framed

_HEAD = struct.Struct("<32sI")


def inputs_digest(bundles: Sequence[Bundle]) -> bytes:
    """SHA-256 (32 bytes) over all that a training's result depends on: every bundle's manifest."""
    digest = hashlib.sha256()
    for bundle in bundles:
        digest.update(hashlib.sha256(bundle.manifest.model_dump_json().encode()).digest())
    return digest.digest()


def checkpoint(engine: Engine, inputs: bytes, state: State) -> Iterator[bytes]:
    """The bytes of a checkpoint, in pieces.

    Args:
        inputs: from :func:`inputs_digest`.
    """
    grids = (state.weights, state.before)
    weights = [engine.dump(c) for grid in grids for row in grid for c in row]
    return frame([_HEAD.pack(inputs, state.step), *weights])


def read_checkpoint(
    path: Path, engine: Engine, layout: Layout, program: Program, inputs: bytes, step: int
) -> State:
    """Read a checkpoint.

    Args:
        step: the steps that it must have behind it.

    Raises:
        BundleError: damaged, of other inputs or of another step.
    """
    columns, heads = len(layout.widths), layout.weight_blocks
    count = columns * heads
    before = 0 if step == 1 and not program.started else count
    items = framed(path, "the checkpoint", 1 + count + before, largest_bytes(engine.parameters))
    if next(items) != _HEAD.pack(inputs, step):
        raise BundleError("the checkpoint is of other inputs, or of another step")
    try:
        found = [engine.load(item) for item in items]
        state = State(step, _grid(found[:count], columns), _grid(found[count:], columns))
        state.check(program, layout, engine.parameters.levels)
    except (EngineError, PlanError) as error:
        raise BundleError(f"the checkpoint does not load: {error.what}") from error
    return state


def _grid(flat: Sequence[Ciphertext], columns: int) -> Grid:
    return [list(flat[n : n + columns]) for n in range(0, len(flat), columns)]
