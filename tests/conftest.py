"""Shared by several test directories: tiny parameters, a key, and studies with their dense answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from blindtune.he.secret import SecretKey
from blindtune.kernels.blocks import Blocks
from blindtune.kernels.layout import Layout
from blindtune.kernels.packing import pack_block, pack_lanes, pack_weights, unpack_weights
from blindtune.kernels.training import Program, Trainer
from blindtune.params import Parameters
from blindtune.plan import insecure_test_parameters

settings.register_profile(
    "blindtune", deadline=None, max_examples=25, derandomize=bool(os.environ.get("CI")), print_blob=True
)
settings.load_profile("blindtune")


def pytest_configure() -> None:
    """Interrupts reach the commands under test, though a job in the background starts with them ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


Floats = NDArray[np.float64]


@pytest.fixture(scope="session")
def tiny() -> Parameters:
    """Insecure test parameters: 512 slots, 11 levels."""
    return insecure_test_parameters(11, ring_degree=1024)


@pytest.fixture(scope="session")
def tiny_key(tiny: Parameters) -> SecretKey:
    """A secret key under the tiny parameters."""
    return SecretKey.generate(tiny)


@dataclass(frozen=True)
class Study:
    """A random study: features X (n, d), targets Y, sample weights S (n, K), coefficients a set, and the
    weights (d, K) that a program starts from if it does not from zero.
    """

    layout: Layout
    program: Program
    x: Floats
    y: Floats
    s: Floats
    sets: tuple[Floats, ...]
    begin: Floats

    @classmethod
    def draw(cls, layout: Layout, program: Program, shape: tuple[int, int, int], seed: int) -> Study:
        """Random values of size about one after a step, so that training neither fades nor diverges."""
        rows, columns, heads = shape
        rng = np.random.default_rng(seed)
        count = max(program.sets) + 1
        return cls(
            layout,
            program,
            rng.normal(size=(rows, columns)) * np.sqrt(1 / (6 * rows)),
            rng.normal(size=(rows, heads)),
            rng.uniform(0.5, 1.5, size=(rows, heads)),
            tuple(rng.normal(size=(program.degree + 1) // 2) * 0.3 for _ in range(count)),
            rng.normal(size=(columns, heads)) * 0.3 * program.started,
        )

    def dense(self) -> Floats:
        """The head (columns, K) that gradient descent with momentum gives, in plain numpy."""
        w = before = self.begin
        for step in range(self.program.steps):
            u = 2 * self.x @ w
            chosen = self.program.sets[step]
            value = sum(c * u ** (2 * k + 1) for k, c in enumerate(self.sets[chosen]))
            # A rate of the set's own: sets stand for steps with other learning rates.
            residual = (1 + 0.1 * chosen) * self.s * (self.y - value)
            momentum = self.program.momentum[step] if self.program.momentum else 0.0
            after = self.program.retain[step] * w + momentum * (w - before) + self.x.T @ residual
            before, w = w, after
        return w

    def encrypted(self, encrypt: Callable[[NDArray[Any]], Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """The ciphertexts that a trainer takes: dataset and residuals."""
        layout, data, residuals = self.layout, {}, {}
        for i in range(layout.row_blocks):
            rows = slice(i * layout.rows, (i + 1) * layout.rows)
            for key, values in pack_block(self.x[rows], layout):
                data[(i, *key)] = encrypt(values)
            for k in range(layout.weight_blocks):
                heads = slice(k * layout.lanes, (k + 1) * layout.lanes)
                for number, coefficients in enumerate(self.sets):
                    weights = (1 + 0.1 * number) * self.s
                    terms = [weights * self.y, *(weights * c for c in coefficients)]
                    used = terms[: self.program.terms]
                    residuals[number, k, i] = [encrypt(pack_lanes(t[rows, heads], layout)) for t in used]
        return data, residuals

    def trainer(self, engine: Any, encrypt: Callable[[NDArray[Any]], Any]) -> Trainer:
        """A trainer over this study's ciphertexts."""
        return Trainer(Blocks(engine, self.layout, *self.encrypted(encrypt)))

    def start(self, encrypt: Callable[[NDArray[Any]], Any]) -> list[list[Any]] | None:
        """The weights to start from, for a program that takes them."""
        lanes = self.layout.lanes
        blocks = [self.begin[:, k * lanes : (k + 1) * lanes] for k in range(self.layout.weight_blocks)]
        found = [[encrypt(v) for v in pack_weights(block, self.layout)] for block in blocks]
        return found if self.program.started else None

    def head(self, weights: Any, decrypt: Callable[[Any], NDArray[Any]]) -> Floats:
        """The trained handles to (columns, K)."""
        blocks = [unpack_weights([decrypt(c) for c in column], self.layout) for column in weights]
        return np.concatenate(blocks, axis=1)[: self.x.shape[1], : self.y.shape[1]]


@pytest.fixture(scope="session")
def draw_study() -> Callable[..., Study]:
    """:meth:`Study.draw`."""
    return Study.draw
