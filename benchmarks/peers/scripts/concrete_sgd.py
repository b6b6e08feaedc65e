"""Concrete ML's SGDClassifier trained under TFHE. Runs in an environment of its own.

The class draws batches of 8 rows at random. A full run here is one epoch: as many batches as cover the
training rows once. Each batch takes the same circuit, so a few are run and the rest is extrapolated; the
figures are then those of the library's own quantised steps in clear.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from concrete.ml.sklearn import SGDClassifier
from sklearn.preprocessing import MinMaxScaler

BATCH = 8


def classifier(batches: int) -> SGDClassifier:
    """As in the library's documentation: log loss, parameters within [-1, 1]."""
    model = SGDClassifier(
        random_state=42, max_iter=batches, fit_encrypted=True, parameters_range=(-1.0, 1.0), verbose=1
    )
    assert model.batch_size == BATCH
    return model


def fit(model: SGDClassifier, x: np.ndarray, y: np.ndarray, mode: str) -> tuple[float, str]:
    """Seconds of the whole call, and what it printed of its parts."""
    said = io.StringIO()
    start = time.perf_counter()
    with contextlib.redirect_stdout(said):
        model.fit(x, y, fhe=mode)
    return time.perf_counter() - start, said.getvalue()


def scores(model: SGDClassifier, x: np.ndarray) -> list[float]:
    """Scores of rows by the trained weights, in clear."""
    inner = model.sklearn_model
    return (x @ inner.coef_.ravel() + float(np.ravel(inner.intercept_)[0])).tolist()


def main() -> None:
    """Train and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=2, help="batches to run encrypted")
    given = parser.parse_args()
    with np.load(given.data, allow_pickle=False) as table:
        x, y, test = (table[k] for k in ("train_x", "train_y", "test_x"))
    scaler = MinMaxScaler((-1, 1)).fit(x)
    x, test, y = scaler.transform(x), scaler.transform(test), y.astype(np.int64)
    units = -(-len(x) // BATCH)
    measured = min(given.limit, units)

    clear = classifier(units)
    fit(clear, x, y, "disable")
    model = classifier(measured)
    total, said = fit(model, x, y, "execute")
    seconds = [float(s) for s in re.findall(r"Iteration \d+ took ([\d.]+) seconds", said)]
    assert len(seconds) == measured, said
    keys = sum(float(s) for s in re.findall(r"Key generation took ([\d.]+) seconds", said))
    circuit = model.training_quantized_module.fhe_circuit
    full = measured == units
    result = {
        "version": version("concrete-ml"),
        "seconds_train": sum(seconds) / measured * units,
        "seconds_setup": total - sum(seconds),
        "seconds_keys": keys,
        "units": units,
        "unit": f"batches of {BATCH}",
        "units_measured": measured,
        "seconds_of_each_unit": seconds,
        "scores": scores(model if full else clear, test),
        "figures_from": "encrypted run" if full else "same steps in clear",
        "ring_degree": None,
        "security_bits": 128,
        "bytes_data": None,
        "bytes_keys": circuit.size_of_bootstrap_keys + circuit.size_of_keyswitch_keys,
        "interactive": False,
        "note": f"one epoch of batches of {BATCH}; TFHE, error probability {model.training_p_error} an "
        "operation by the library's default; setup is compilation, keys and encryption",
    }
    given.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
