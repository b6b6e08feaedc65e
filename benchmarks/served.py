"""One owner's study of many steps as a service: the hospital's commands, and a server that bootstraps."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import blindtune, serving, timing
from blindtune.client.decrypt import finish
from blindtune.client.study import StudyDirectory
from blindtune.federation.heads import Cases
from blindtune.models.linear import LinearHead
from blindtune.server.memory import predicted_bytes
from blindtune.wire.bundle import Bundle

TRAINED = {"directions": 63, "epsilon": 0.05, "degree": 7, "rate": 2}
ROWS, HELD = 2560, 512
"""Rows, and those of them that the head is calibrated on."""


def run(train: Cases, test: Cases, work: Path, steps: int) -> dict[str, Any]:
    """Encrypt, submit, train, fetch and decrypt; what was sent, what it took and what came of it."""
    work.mkdir(parents=True)
    rows, cloud, study = work / "rows.npz", work / "cloud", StudyDirectory(work / "study")
    held = np.linspace(0, len(train.labels) - 1, HELD).astype(int)
    kept = np.setdiff1d(np.arange(len(train.labels)), held)
    splits = {
        "train": Cases(train.features[kept], train.labels[kept]),
        "val": Cases(train.features[held], train.labels[held]),
        "test": test,
    }
    columns = {
        f"{name}_{c}": a for name, s in splits.items() for c, a in (("x", s.features), ("y", s.labels))
    }
    np.savez(rows, **columns)
    options = [part for name, value in TRAINED.items() for part in (f"--{name}", str(value))]
    head = ["--head", "one-vs-rest", "--steps", str(steps), "--bootstrap"]
    encrypted = blindtune("encrypt", str(rows), "--out", str(study.root), *head, *options)
    # Of all commands so far, the one that encrypted held the most.
    hospital = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    print("encrypted", encrypted["seconds"], flush=True)
    with serving(cloud, "--cores", "1") as (url, token, _):
        sent = blindtune("submit", str(study.root), "--server", url, token=token)
        print("submitted", sent["wall_seconds"], flush=True)
        fetched = blindtune("fetch", str(study.root), token=token)
        told = timing(study.root, url, token)
    opened = blindtune("decrypt", str(study.root))
    return {
        **_sizes(study),
        **_accuracy(study, test),
        "steps": steps,
        "train": len(kept),
        "test": len(test.labels),
        "trained": TRAINED,
        "deviation": opened["deviation"],
        "seconds": {
            **encrypted["seconds"],
            "submit": sent["wall_seconds"],
            "fetch": fetched["wall_seconds"],
            "loading": told["seconds_loading"],
            "training": told["seconds_training"],
            "bootstrapping": sum(x["seconds"] for x in told["operations"] if x["name"] == "refresh"),
        },
        "bootstraps": sum(x["count"] for x in told["operations"] if x["name"] == "refresh"),
        "hospital_bytes": hospital,
        "peak_bytes": told["peak_bytes"],
    }


def _sizes(study: StudyDirectory) -> dict[str, Any]:
    keys, data = Bundle(study.keys_bundle), Bundle(study.data_bundle)
    m = keys.manifest
    literal = m.checked_bootstrapping
    assert literal is not None
    return {
        "ring_degree": literal.ring_degree,
        "modulus_bits": m.key_parameters.modulus_bits,
        "levels": literal.levels,
        "depth": literal.depth,
        "digits": literal.digits,
        "period": literal.period,
        "keys": len(keys.manifest.parts),
        "key_bytes": keys.size,
        "row_bytes": data.size,
        "key_memory": literal.key_bytes,
        "predicted_bytes": predicted_bytes(m, [data.manifest]),
    }


def _accuracy(study: StudyDirectory, test: Cases) -> dict[str, float]:
    """On the test rows: of the head that came back, and of the same steps in clear, both uncalibrated."""
    settings = study.settings()
    _, clear = finish(study, settings, study.whitening()[1], "in clear")
    heads = {"encrypted": LinearHead.load(study.head / "uncalibrated"), "clear": clear}
    return {
        name: float((head.logits(test.features).argmax(axis=1) == test.labels).mean())
        for name, head in heads.items()
    }
