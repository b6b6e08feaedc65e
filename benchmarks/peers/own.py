"""blindtune on the same table, through its command line: encrypt, serve, submit, fetch, decrypt, evaluate."""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.commands import blindtune, server, timing

SMALL = 63
"""Up to so many columns, all directions are asked for: the default tries block sizes only, 15 of 30."""


def run(data: Path, features: int, work: Path, cores: int) -> dict[str, Any]:
    """A row of results on a table; the validation rows are drawn from the training rows."""
    study, cloud = work / f"{data.stem}-study", work / f"{data.stem}-cloud"
    for old in (study, cloud):
        shutil.rmtree(old, ignore_errors=True)
    load = os.getloadavg()[0]
    options = ["--directions", str(features)] if features <= SMALL else []
    encrypted = blindtune("encrypt", str(data), "--out", str(study), *options)
    with server(cloud, cores) as (url, token):
        blindtune("submit", str(study), "--server", url, token=token)
        blindtune("fetch", str(study), token=token)
        took = timing(study, url, token)
    blindtune("decrypt", str(study))
    figures = blindtune("evaluate", str(study))["heads"]["encrypted"]["figures"]
    manifest = json.loads((study / "outbox" / "data" / "manifest.json").read_text())
    steps, primes = manifest["program"]["steps"], manifest["parameters"]["primes"]
    sizes = {
        kind: sum(p.stat().st_size for p in (study / "outbox" / kind).rglob("*") if p.is_file())
        for kind in ("data", "keys")
    }
    return {
        "version": version("blindtune"),
        "seconds_train": took["seconds_training"],
        "seconds_setup": encrypted["wall_seconds"],
        "units": steps,
        "unit": "steps",
        "units_measured": steps,
        "accuracy": figures["accuracy"]["value"],
        "auc": figures["roc_auc"]["value"],
        "figures_from": "encrypted run",
        "ring_degree": manifest["parameters"]["ring_degree"],
        "modulus_bits": sum(p.bit_length() for p in primes),
        "security_bits": manifest["parameters"]["security"],
        "bytes_data": sizes["data"],
        "bytes_keys": sizes["keys"],
        "peak_bytes": took["peak_bytes"],
        "interactive": False,
        "load_at_start": load,
        "note": f"{encrypted['training_rows']} of the rows train, the rest of them calibrate; "
        f"{encrypted['directions']} directions; setup is rehearsal, keys and encryption",
        "command": f"blindtune encrypt {' '.join([data.name, *options])} --out STUDY; serve; submit; fetch; "
        "decrypt; evaluate",
    }
