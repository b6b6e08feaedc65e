"""The suite's cases: what is trained, and how one is measured from end to end through the commands."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import datasets
from benchmarks.commands import blindtune, server, timing

ENCRYPTED, CLEAR, CONVERGED = "encrypted", "same steps in clear", "converged plaintext"
UNCALIBRATED, BALANCED = "encrypted, uncalibrated", "converged plaintext, balanced"
START = "start in clear, nothing encrypted"
HEADS = (START, ENCRYPTED, UNCALIBRATED, CLEAR, CONVERGED, BALANCED)

HETAL = {"mnist": 3442, "cifar10": 3114, "dermamnist": 1137, "snips": 1264, "facemask": 567}
"""Seconds of encrypted training that HETAL published (ICML 2023, one GPU, 768 features, N = 2^16)."""

SIZES = {
    "mnist": (52500, 10),
    "cifar10": (43750, 10),
    "dermamnist": (7007, 7),
    "snips": (13084, 7),
    "facemask": (2849, 3),
}
"""Training rows and classes of HETAL's problems."""


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        real: data of ``../shared`` (a function of :mod:`benchmarks.datasets`), or None for synthetic.
        rows, features, classes: of synthetic data; columns are the features, with the bias for one.
        cores: threads of the server.
        repeats: trainings, of which the quickest is told.
    """

    real: str | None = None
    rows: int = 0
    features: int = 0
    classes: int = 0
    cores: int = os.cpu_count() or 1
    repeats: int = 3

    def arguments(self, shared: Path, work: Path) -> list[str]:
        """Arguments of ``encrypt``."""
        if self.real:
            found: list[str] = getattr(datasets, self.real)(shared, work)
            return found
        # One configuration: what is measured does not depend on which is chosen.
        chosen = ["--directions", str(self.features - 1), "--epsilon", "0.1", "--rate", "4"]
        return [*datasets.synthetic(work, self.rows, self.features, self.classes), *chosen]


def hetal() -> dict[str, Case]:
    """HETAL's problem sizes."""
    found = {"mnist-192-real": Case("mnist", repeats=2)}
    for name, (rows, classes) in SIZES.items():
        for features in (192, 256, 768):
            if (name, features) != ("mnist", 192):
                # Many rows take minutes to encrypt and to compare, and vary less.
                repeats = 1 if rows > 20000 else 3
                found[f"{name}-{features}"] = Case(None, rows, features, classes, repeats=repeats)
    return found


def scaling() -> dict[str, Case]:
    """Curves in rows, features, classes and cores around one study."""
    found = {f"rows-{n}": Case(None, n, 192, 2, repeats=1) for n in (5000, 20000, 50000, 100000, 200000)}
    found |= {f"features-{d}": Case(None, 8000, d, 2, repeats=1) for d in (64, 128, 256, 512, 768)}
    found |= {f"classes-{k}": Case(None, 8000, 128, k, repeats=1) for k in (2, 4, 8, 16, 32)}
    count = os.cpu_count() or 1
    found |= {f"cores-{c}": Case("pneumoniamnist", cores=c) for c in (1, 2, 4, 8, 16) if c <= count}
    # With several heads a key serves a batch, and two threads share less of the memory's bandwidth.
    return found | {f"seven-heads-on-{c}": Case(None, 7007, 256, 7, cores=c) for c in (1, count)}


def real() -> dict[str, Case]:
    """Real chest X-rays, from two sources."""
    return {"pneumoniamnist": Case("pneumoniamnist"), "xrays": Case("xrays")}


GROUPS = {"real": real, "hetal": hetal, "scaling": scaling}


def measure(name: str, case: Case, shared: Path, work: Path) -> dict[str, Any]:
    """One case from end to end; its study and the server's directory are removed afterwards."""
    study, cloud = work / f"{name}-study", work / f"{name}-cloud"
    for old in (study, cloud):
        shutil.rmtree(old, ignore_errors=True)
    try:
        encrypted = blindtune("encrypt", *case.arguments(shared, work), "--out", str(study))
        timings = []
        for _ in range(case.repeats):
            shutil.rmtree(cloud, ignore_errors=True)
            shutil.rmtree(study / "inbox", ignore_errors=True)
            with server(cloud, case.cores) as (url, token):
                submitted = blindtune("submit", str(study), "--server", url, token=token)
                blindtune("fetch", str(study), token=token)
                timings.append(timing(study, url, token))
        decrypted = blindtune("decrypt", str(study))
        report = blindtune("evaluate", str(study))
        manifest = json.loads((study / "outbox" / "keys" / "manifest.json").read_text())
        sizes = {
            kind: sum(p.stat().st_size for p in (study / "outbox" / kind / "parts").iterdir())
            for kind in ("keys", "data")
        }
    finally:
        for old in (study, cloud):
            shutil.rmtree(old, ignore_errors=True)
    figures = {
        head: {
            k: report["heads"][head]["figures"].get(k, {}).get("value")
            for k in ("accuracy", "roc_auc", "mcc")
        }
        for head in HEADS
        if head in report["heads"]
    }
    return {
        "synthetic": case.real is None,
        "rows": encrypted["training_rows"],
        "columns": encrypted["directions"] + 1,
        "classes": len(encrypted["classes"].split(", ")),
        "cores": case.cores,
        "encrypt": {k: v for k, v in encrypted.items() if k not in ("study", "next")},
        "parameters": manifest["parameters"],
        "layout": manifest["layout"],
        "program": manifest["program"],
        "seconds_submit": submitted["wall_seconds"],
        "timing": min(timings, key=lambda t: t["seconds_training"]),
        "seconds_training_of_each_run": [t["seconds_training"] for t in timings],
        "bytes": sizes,
        "deviation": decrypted["deviation"],
        "heads": figures,
    }
