"""What could not be run here, as its authors published it."""

from __future__ import annotations

from typing import Any

QUOTED: tuple[dict[str, Any], ...] = (
    {
        "peer": "openfhe-example",
        "title": "OpenFHE's logistic regression example, interactive",
        "version": "of 2023",
        "data": "infant-mortality",
        "rows": 1024,
        "features": 10,
        "seconds_train": 1409.6,
        "seconds_setup": None,
        "units": 100,
        "unit": "steps",
        "units_measured": 0,
        "measured_share": 0.0,
        "extrapolated": False,
        "quoted": True,
        "accuracy": None,
        "auc": None,
        "plaintext_accuracy": None,
        "plaintext_auc": None,
        "figures_from": "encrypted run",
        "security_bits": None,
        "ring_degree": None,
        "bytes_data": None,
        "bytes_keys": None,
        "interactive": True,
        "note": "100 steps of 14.1 s on average, machine and ring not stated, weights encrypted anew by the "
        "client after each step; openfhe-logreg-training-examples, sigmoidApproxResults/raw_data/"
        "nag_128_loss.csv (its column says seconds, the program that writes it counts milliseconds). The "
        "program with bootstrapping, built from source, asked for more than 19 GiB at its defaults on the "
        "breast cancer table and was not run to its end; our circuit on OpenFHE, above, follows it in 15 GiB",
        "command": "",
    },
)
