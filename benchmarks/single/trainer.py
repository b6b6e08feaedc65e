"""Who trains on an owner's bundles, with the engine that BLINDTUNE_ACCELERATOR names.

python -m benchmarks.single.trainer DIRECTORY ENGINE TURNS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.memory import peak_bytes
from benchmarks.single.study import timed
from blindtune.he.engines import choose
from blindtune.kernels.layout import Layout
from blindtune.wire.bundle import Bundle
from blindtune.wire.study import check_study, dumped, load_engine, load_trainer, write_head


def main() -> None:
    """Load and train, several times; the quickest counts."""
    place, engine, turns = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    keys, data = Bundle(place / "keys"), Bundle(place / "data")
    manifest = keys.manifest
    layout = check_study(manifest, [data.manifest])
    # Kernels are compiled here, or come from their cache.
    choose(manifest.checked_parameters)
    turned = [turn(keys, data, layout) for _ in range(turns)]
    told, head = [one for one, _ in turned], turned[-1][1]
    write_head(place / f"head-{engine}", manifest, head)
    best = min(told, key=lambda one: float(one["train"]["processor"]))
    best |= {
        "load": min((one["load"] for one in told), key=lambda t: float(t["processor"])),
        "each_turn": [one["train"]["processor"] for one in told],
        "peak_bytes": peak_bytes(),
        "head_bytes": sum(len(item) for block in head for item in block),
    }
    (place / f"{engine}.json").write_text(json.dumps(best))


def turn(keys: Bundle, data: Bundle, layout: Layout) -> tuple[dict[str, Any], list[list[bytes]]]:
    """One training from bundles to serialised weights; nothing of it stays in memory."""
    one: dict[str, Any] = {}
    with timed(one, "load"):
        used = load_engine(keys)
        trainer = load_trainer(used, layout, [data])
    with timed(one, "train"):
        weights = trainer.train(keys.manifest.checked_program)
    ledger = used.ledger
    seconds: dict[str, float] = {}
    for (name, _), spent in ledger.seconds.items():
        seconds[name] = seconds.get(name, 0.0) + spent
    counts = ledger.totals.items()
    one["operations"] = {name: (count, seconds[name]) for name, count in counts if name != "load"}
    return one, dumped(trainer, weights)


if __name__ == "__main__":
    main()
