"""Logistic regression under CKKS with bootstrapping, on OpenFHE, in an environment of its own.

The circuit that OpenFHE's logistic regression training examples describe, written anew from their README
and its paper (ePrint 2018/662), at their parameters: Nesterov's accelerated gradient over all rows, the
table row-packed in one ciphertext, a Chebyshev sigmoid of degree 59 on [-16, 16], the weights and the
momentum packed together so that one sparse bootstrapping a step refreshes both; ring degree 2¹⁷, 59-bit
primes, uniform ternary keys, 200 steps at rate 0.1 and momentum 0.1. A few steps are run and the rest is
extrapolated; the figures are then those of the same steps in clear.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openfhe as fhe

RING = 1 << 17
FIRST_BITS, BITS = 60, 59
BUDGET = [2, 2]
LEVELS = 15
RANGE, DEGREE = 16.0, 59
STEPS, RATE, MOMENTUM = 200, 0.1, 0.1


def steps_in_clear(x: np.ndarray, y: np.ndarray, steps: int) -> tuple[np.ndarray, float]:
    """The weights after so many steps without encryption, and the largest logit met."""
    sigmoid = np.polynomial.chebyshev.Chebyshev.interpolate(
        lambda t: 1 / (1 + np.exp(-t)), DEGREE, domain=[-RANGE, RANGE]
    )
    theta = momentum = np.zeros(x.shape[1])
    peak = 0.0
    for step in range(steps):
        logits = x @ theta
        peak = max(peak, float(np.abs(logits).max()))
        if peak > RANGE:
            break
        moved = theta + x.T @ (y - sigmoid(logits)) * (RATE / len(x))
        theta = moved + (MOMENTUM * (moved - momentum) if step else 0.0)
        momentum = moved
    return theta, peak


class Circuit:
    """Keys, packing and one step."""

    def __init__(self, rows: int, columns: int) -> None:
        """Parameters and keys for a table of so many rows and columns, an intercept's included."""
        self.height, self.width = (1 << (n - 1).bit_length() for n in (rows, columns))
        self.slots = self.height * self.width
        self.sparse = 2 * self.width
        if self.slots > RING // 2:
            raise SystemExit(f"{rows} × {columns} does not fit in one ciphertext of {RING // 2} slots")
        parameters = fhe.CCParamsCKKSRNS()
        parameters.SetSecretKeyDist(fhe.SecretKeyDist.UNIFORM_TERNARY)
        parameters.SetSecurityLevel(fhe.SecurityLevel.HEStd_128_classic)
        parameters.SetRingDim(RING)
        parameters.SetScalingModSize(BITS)
        parameters.SetFirstModSize(FIRST_BITS)
        parameters.SetScalingTechnique(fhe.ScalingTechnique.FIXEDAUTO)
        parameters.SetKeySwitchTechnique(fhe.KeySwitchTechnique.HYBRID)
        parameters.SetBatchSize(self.slots)
        depth = LEVELS + fhe.CryptoContext.GetBootstrapDepth(BUDGET, fhe.SecretKeyDist.UNIFORM_TERNARY)
        parameters.SetMultiplicativeDepth(depth)
        self.depth = depth
        self.context = context = fhe.GenCryptoContext(parameters)
        for feature in ("PKE", "KEYSWITCH", "LEVELEDSHE", "ADVANCEDSHE", "FHE"):
            context.Enable(getattr(fhe.PKESchemeFeature, feature))
        self.keys = context.KeyGen()
        context.EvalMultKeyGen(self.keys.secretKey)
        context.EvalRotateKeyGen(self.keys.secretKey, self.rotations())
        context.EvalBootstrapSetup(BUDGET, [0, 0], self.sparse)
        context.EvalBootstrapKeyGen(self.keys.secretKey, self.sparse)
        first = np.arange(self.slots) % self.width == 0
        even = np.arange(self.slots) // self.width % 2 == 0
        self.first, self.even, self.odd = (self.plain(mask) for mask in (first, even, ~even))

    def rotations(self) -> list[int]:
        """Every rotation of a step: sums along rows, copies along rows, sums over rows, unpacking."""
        inside = [1 << i for i in range(self.width.bit_length() - 1)]
        across = [self.width << i for i in range(self.height.bit_length() - 1)]
        return [*inside, *(-i for i in inside), *across, -self.width]

    def plain(self, values: np.ndarray) -> Any:
        """Slots encoded."""
        return self.context.MakeCKKSPackedPlaintext(
            np.asarray(values, dtype=np.float64).tolist(), 1, 0, None, self.slots
        )

    def encrypt(self, values: np.ndarray) -> Any:
        """A padded table, row by row, encrypted."""
        table = np.zeros((self.height, self.width))
        table[: values.shape[0], : values.shape[1]] = values
        return self.context.Encrypt(self.keys.publicKey, self.plain(table.ravel()))

    def decrypt(self, vector: Any) -> np.ndarray:
        """The first row."""
        plain = self.context.Decrypt(self.keys.secretKey, vector)
        plain.SetLength(self.width)
        return np.array(plain.GetRealPackedValue())

    def fold(self, vector: Any, shifts: list[int]) -> Any:
        """Add rotations, doubling each time."""
        for shift in shifts:
            vector = self.context.EvalAdd(vector, self.context.EvalRotate(vector, shift))
        return vector

    def gradient(self, x: Any, scaled: Any, labels: Any, theta: Any) -> Any:
        """``scaledᵀ (labels - sigmoid(x theta))``, a copy of it in every row."""
        run = self.context
        inside = [1 << i for i in range(self.width.bit_length() - 1)]
        sums = run.EvalMult(self.fold(run.EvalMult(x, theta), inside), self.first)
        logits = self.fold(sums, [-i for i in inside])
        residual = run.EvalSub(labels, run.EvalLogistic(logits, -RANGE, RANGE, DEGREE))
        across = [self.width << i for i in range(self.height.bit_length() - 1)]
        return self.fold(run.EvalMult(scaled, residual), across)

    def refresh(self, theta: Any, momentum: Any) -> tuple[Any, Any]:
        """Pack both, bootstrap once, unpack."""
        run = self.context
        packed = run.EvalAdd(run.EvalMult(theta, self.even), run.EvalMult(momentum, self.odd))
        packed.SetSlots(self.sparse)
        packed = run.EvalBootstrap(packed)
        packed.SetSlots(self.slots)
        theta = self.fold(run.EvalMult(packed, self.even), [-self.width])
        momentum = self.fold(run.EvalMult(packed, self.odd), [-self.width])
        return theta, momentum


def main() -> None:
    """Train and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=3, help="steps to run encrypted")
    given = parser.parse_args()
    with np.load(given.data, allow_pickle=False) as table:
        x, y, test = (table[k].astype(np.float64) for k in ("train_x", "train_y", "test_x"))
    factor = next(f for f in (2.0 ** (-i / 2) for i in range(20)) if fits(x * f, y))
    x, test = (np.column_stack([t * factor, np.ones(len(t))]) for t in (x, test))

    start = time.perf_counter()
    circuit = Circuit(*x.shape)
    keys = time.perf_counter() - start
    start = time.perf_counter()
    ones = np.ones((len(x), circuit.width))
    columns, scaled, labels = (circuit.encrypt(v) for v in (x, x * (RATE / len(x)), y[:, None] * ones))
    theta = momentum = circuit.encrypt(np.zeros((1, 1)))
    encryption = time.perf_counter() - start

    measured, seconds, busy = min(given.limit, STEPS), [], []
    run = circuit.context
    for step in range(measured):
        start, used = time.perf_counter(), time.process_time()
        if step:
            theta, momentum = circuit.refresh(theta, momentum)
        moved = run.EvalAdd(theta, circuit.gradient(columns, scaled, labels, theta))
        theta = run.EvalAdd(moved, run.EvalMult(run.EvalSub(moved, momentum), MOMENTUM)) if step else moved
        momentum = moved
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - used)
        print(f"step {step}: {seconds[-1]:.1f} s", flush=True)

    full = measured == STEPS
    head, reached = circuit.decrypt(theta)[: x.shape[1]], steps_in_clear(x, y, measured)[0]
    clear, peak = steps_in_clear(x, y, STEPS)
    result = {
        "version": version("openfhe"),
        "seconds_train": whole(seconds),
        "seconds_train_cpu": whole(busy),
        "seconds_setup": keys + encryption,
        "seconds_keys": keys,
        "seconds_encrypt": encryption,
        "units": STEPS,
        "unit": "steps",
        "units_measured": measured,
        "seconds_of_each_unit": seconds,
        "scores": (test @ (head if full else clear)).tolist(),
        "figures_from": "encrypted run" if full else "same steps in clear",
        "deviation_from_clear": float(np.abs(head - reached).max() / np.abs(reached).max()),
        "ring_degree": run.GetRingDimension(),
        "security_bits": 128,
        "bytes_data": None,
        "bytes_keys": None,
        "interactive": False,
        "note": f"written by us after OpenFHE's example and its paper; {STEPS} steps, its default; "
        f"{seconds[-1]:.0f} s for the last step measured; multiplicative depth {circuit.depth}; "
        f"columns scaled by {factor:.3g}, largest logit {peak:.1f}",
    }
    given.out.write_text(json.dumps(result))


def whole(seconds: list[float]) -> float:
    """A full run: the first step has nothing to refresh, the others are alike."""
    later = seconds[1:] or seconds
    return seconds[0] + sum(later) / len(later) * (STEPS - 1)


def fits(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether all logits stay within the polynomial's range."""
    return steps_in_clear(np.column_stack([x, np.ones(len(x))]), y, STEPS)[1] <= RANGE


if __name__ == "__main__":
    main()
