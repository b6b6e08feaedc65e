"""The owner: makes a key, encrypts, lets others train, and opens what they bring.

python -m benchmarks.single.owner DIRECTORY seal|openfhe TURNS ENGINE=PYTHON...
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import peak_bytes
from benchmarks.single.study import HEAD, Given, timed
from blindtune.client.encoding import decode
from blindtune.client.encrypt import base_manifest, write_data, write_keys
from blindtune.client.flood import expected
from blindtune.he.openfhe.secret import OpenFheSecretKey
from blindtune.he.secret import SecretKey
from blindtune.kernels.layout import Layout
from blindtune.wire.bundle import Bundle

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Play the owner."""
    place, library, turns = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    trainers = dict(argument.split("=", 1) for argument in sys.argv[4:])
    package = {"seal": "tenseal", "openfhe": "openfhe"}[library]
    told: dict[str, Any] = {
        "library": f"{package} {version(package)}",
        "python": sys.version.split()[0],
        "trained": {},
    }
    given = Given.read(place)
    p, m = given.parameters.checked(), given.layout
    layout = Layout(p.slots, m.lanes, tuple(m.widths), m.baby, m.row_blocks, m.weight_blocks)
    made: Any = SecretKey if library == "seal" else OpenFheSecretKey
    # What a library does once for these parameters is not the key's.
    made.generate(p).encrypt(np.zeros(p.slots))
    identity = (secrets.token_hex(16), ("owner",), "owner")
    with timed(told, "keys"):
        key = made.generate(p)
        keys = base_manifest("keys", identity, key, layout, HEAD.program)
        write_keys(place / "keys", key, keys, workers=1)
    told["keys_bytes"] = Bundle(place / "keys").size
    with timed(told, "rows"):
        data = base_manifest("data", identity, key, layout, HEAD.program)
        rows = (given.features, given.encoded)
        write_data(place / "data", key, data, rows, HEAD, given.scaling, workers=1)
    told["rows_bytes"], told["peak_bytes"] = Bundle(place / "data").size, peak_bytes()
    exact = expected(given.features, given.encoded, HEAD, layout, given.scaling, p)
    for engine, python in trainers.items():
        subprocess.run(
            [python, "-m", "benchmarks.single.trainer", str(place), engine, turns],
            cwd=ROOT,
            env={**os.environ, "BLINDTUNE_ACCELERATOR": engine},
            check=True,
        )
        found = json.loads((place / f"{engine}.json").read_text())
        with timed(found, "open"):
            items = Bundle(place / f"head-{engine}").items("weights")
            opened = [key.decrypt(key.load(item)) for item in items]
        weights = decode(opened, layout, given.scaling, *exact.shape)
        apart = np.abs(weights - exact) / np.abs(exact).max()
        found |= {"largest_error": float(apart.max()), "error": float(apart.mean())}
        told["trained"][engine] = found
    (place / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
