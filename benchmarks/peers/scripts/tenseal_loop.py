"""Logistic regression on TenSEAL CKKSVectors, as its first tutorial teaches it.

Runs in an environment of its own. One ciphertext a row and one a label; a row costs an encrypted dot
product, a polynomial of degree 3 in place of the sigmoid, and an encrypted product back. One epoch uses up
all levels, so **the client decrypts and encrypts the weights again after every epoch**: it is interactive.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tenseal as ts

RING = 8192
SIZES = (31, 26, 26, 26, 26, 26, 26, 31)
"""The tutorial's levels, at the most bits that the ring carries at 128-bit security. Its own primes of 21
bits lie so far from the scale, which TenSEAL resets after every rescaling, that a step comes out fourfold."""
SCALE = 2.0**26
SIGMOID = (0.5, 0.197, 0.0, -0.004)  # fits within [-5, 5]
SHRINK = 0.05
EPOCHS = 5


def epochs_in_clear(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, float, float]]:
    """Weights, intercept and the largest logit met, epoch by epoch: the same steps without encryption."""
    weights, bias = np.zeros(x.shape[1]), 0.0
    for _ in range(EPOCHS):
        logits = x @ weights + bias
        error = np.polynomial.polynomial.polyval(logits, SIGMOID) - y
        weights = weights - (x.T @ error / len(x) + SHRINK * weights)
        bias = bias - error.mean()
        yield weights, bias, float(np.abs(x @ weights + bias).max())


def fitting_scale(x: np.ndarray, y: np.ndarray) -> float:
    """The factor on the columns that keeps the logits where the polynomial fits and does best in clear."""
    best, chosen = np.inf, 0.0
    for factor in (2.0 ** (-i / 2) for i in range(13)):
        *earlier, (weights, bias, _) = epochs = list(epochs_in_clear(x * factor, y))
        if max(peak for *_, peak in earlier) > 5:
            continue
        logits = x * factor @ weights + bias
        loss = float(np.mean(np.logaddexp(0, logits) - y * logits))
        if loss < best and np.isfinite(epochs[-1][2]):
            best, chosen = loss, factor
    if not chosen:
        raise SystemExit("no scale keeps the logits within the polynomial's range")
    return chosen


def epoch(
    rows: list[ts.CKKSVector], labels: list[ts.CKKSVector], weights: ts.CKKSVector, bias: ts.CKKSVector
) -> tuple[ts.CKKSVector, ts.CKKSVector]:
    """One step of gradient descent over all rows, on ciphertexts."""
    slope, offset = None, None
    for row, label in zip(rows, labels, strict=True):
        error = (row.dot(weights) + bias).polyval(list(SIGMOID)) - label
        product = row * error
        slope = product if slope is None else slope + product
        offset = error if offset is None else offset + error
    assert slope is not None
    return weights - (slope * (1 / len(rows)) + weights * SHRINK), bias - offset * (1 / len(rows))


def main() -> None:
    """Train and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=EPOCHS, help="epochs to run encrypted")
    given = parser.parse_args()
    with np.load(given.data, allow_pickle=False) as table:
        x, y, test = (table[k].astype(np.float64) for k in ("train_x", "train_y", "test_x"))
    factor = fitting_scale(x, y)

    start = time.perf_counter()
    context = ts.context(ts.SCHEME_TYPE.CKKS, RING, -1, list(SIZES))
    context.global_scale = SCALE
    context.generate_galois_keys()
    keys = time.perf_counter() - start
    start = time.perf_counter()
    rows = [ts.ckks_vector(context, (r * factor).tolist()) for r in x]
    labels = [ts.ckks_vector(context, [float(label)]) for label in y]
    encryption = time.perf_counter() - start

    weights, bias, seconds, busy = [0.0] * x.shape[1], [0.0], [], []
    for _ in range(min(given.limit, EPOCHS)):
        start, used = time.perf_counter(), time.process_time()
        new = epoch(rows, labels, ts.ckks_vector(context, weights), ts.ckks_vector(context, bias))
        weights, bias = (v.decrypt() for v in new)
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - used)

    *_, (clear, clear_bias, _) = epochs_in_clear(x * factor, y)
    full = len(seconds) == EPOCHS
    head, intercept = (np.array(weights), bias[0]) if full else (clear, clear_bias)
    public = context.copy()
    public.make_context_public()
    result = {
        "version": version("tenseal"),
        "seconds_train": sum(seconds) / len(seconds) * EPOCHS,
        "seconds_train_cpu": sum(busy) / len(busy) * EPOCHS,
        "seconds_setup": keys + encryption,
        "seconds_keys": keys,
        "seconds_encrypt": encryption,
        "units": EPOCHS,
        "unit": "epochs",
        "units_measured": len(seconds),
        "seconds_of_each_unit": seconds,
        "scores": (test * factor @ head + intercept).tolist(),
        "figures_from": "encrypted run" if full else "same steps in clear",
        "ring_degree": RING,
        "modulus_bits": sum(SIZES),
        "security_bits": 128,
        "bytes_data": sum(len(v.serialize()) for v in (rows[0], labels[0])) * len(rows),
        "bytes_keys": len(public.serialize(save_galois_keys=True, save_relin_keys=True)),
        "interactive": True,
        "note": f"{EPOCHS} epochs as in the tutorial; the client refreshes the weights after each; "
        f"columns scaled by {factor:.3g} so that logits stay within the polynomial's range; primes of 26 "
        "bits, since at the tutorial's 21 the rescaling error is several-fold",
    }
    if full:
        result["deviation_from_clear"] = float(np.abs(head - clear).max() / np.abs(clear).max())
    given.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
