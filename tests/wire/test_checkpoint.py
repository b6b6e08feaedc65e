"""Checkpoints: written, read, and refused when they are of something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blindtune.errors import BundleError
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program, State
from blindtune.wire.checkpoint import checkpoint, read_checkpoint

LAYOUT = Layout(512, 2, (8, 4), 2, 1, 2)
PROGRAM = Program(3, 1, (0, 0, 0), (1.0,) * 3)
INPUTS = b"i" * 32


@pytest.fixture(scope="module")
def engine(tiny_key: Any) -> Any:
    return tiny_key.engine(LAYOUT.keys())


@pytest.fixture(scope="module")
def states(engine: Any, tiny_key: Any, draw_study: Any) -> list[State]:
    study, found = draw_study(LAYOUT, PROGRAM, (200, 20, 3), 2), []
    study.trainer(engine, lambda v: engine.load(tiny_key.encrypt(v))).train(PROGRAM, on_step=found.append)
    return found


def write(path: Path, engine: Any, state: State) -> Path:
    path.write_bytes(b"".join(checkpoint(engine, INPUTS, state)))
    return path


def read(path: Path, engine: Any, step: int, inputs: bytes = INPUTS) -> State:
    return read_checkpoint(path, engine, LAYOUT, PROGRAM, inputs, step)


def dumps(engine: Any, state: State) -> list[list[list[bytes]]]:
    return [[[engine.dump(c) for c in row] for row in grid] for grid in (state.weights, state.before)]


def test_what_was_written_is_read(engine: Any, states: list[State], tmp_path: Path) -> None:
    for state in states:
        found = read(write(tmp_path / "c", engine, state), engine, state.step)
        assert found.step == state.step
        assert dumps(engine, found) == dumps(engine, state)


def test_of_another_step_or_of_other_inputs(engine: Any, states: list[State], tmp_path: Path) -> None:
    path = write(tmp_path / "c", engine, states[1])
    with pytest.raises(BundleError, match="of other inputs"):
        read(path, engine, 2, b"j" * 32)
    with pytest.raises(BundleError, match="of another step"):
        read(path, engine, 3)
    with pytest.raises(BundleError, match="not a frame"):
        read(path, engine, 1)
    # A head that says another step than its ciphertexts have.
    lying = write(tmp_path / "d", engine, State(3, states[1].weights, states[1].before))
    with pytest.raises(BundleError, match="another shape or level"):
        read(lying, engine, 3)


def test_damage_anywhere_is_refused(engine: Any, states: list[State], tmp_path: Path) -> None:
    path = write(tmp_path / "c", engine, states[1])
    whole = path.read_bytes()
    for damaged in (b"", whole[:6], whole[:40], whole[:-1], whole + b"x", b"BTP2" + whole[4:]):
        path.write_bytes(damaged)
        with pytest.raises(BundleError):
            read(path, engine, 2)
    # A residue that is not below its prime.
    path.write_bytes(whole[:-64] + b"\xff" * 64)
    with pytest.raises(BundleError, match="does not load"):
        read(path, engine, 2)
