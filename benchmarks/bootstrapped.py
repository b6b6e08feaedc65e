"""Many steps under one owner's key: weights bootstrapped on the way, against the same steps in clear."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

from benchmarks.joint.steps import in_clear, task_of
from blindtune.client.encoding import Scaling, decode, encode
from blindtune.federation.heads import Cases
from blindtune.he.openfhe.bootstrapping import SPECIAL_BITS, Bootstrapping
from blindtune.he.openfhe.bootstrapping_owner import BootstrappingKey
from blindtune.kernels.blocks import Blocks, DataPart, ResidualPart
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import State, Trainer

LAYOUT = Layout(32768, 16, (32,), 8, 2, 1)
LITERAL = Bootstrapping(65536, 6, 512)
"""A step of degree 7 takes five levels, and a bootstrap needs one."""


def run(
    train: Cases, steps: int, literal: Bootstrapping = LITERAL, layout: Layout = LAYOUT
) -> dict[str, Any]:
    """The heads on raw features after each step, encrypted and in clear, and what they took."""
    task = task_of(train.features.shape[1], steps)
    head, (whitening, encoded, clear) = task.head, in_clear(train, task)
    x = whitening.apply(train.features)
    scaling = Scaling(task.model.interval, task.rates[0], len(x))
    program = replace(head.program, refreshes=tuple(range(1, steps)))
    seconds: dict[str, float] = {}

    def timed(name: str, made: Any) -> Any:
        start = time.perf_counter()
        found = made()
        seconds[name] = time.perf_counter() - start
        print(f"{name}: {seconds[name]:.1f} s", flush=True)
        return found

    key = timed("context", lambda: BootstrappingKey.generate(literal))
    engine = timed("keys", lambda: key.engine(layout.keys()))
    blocks = Blocks(engine, layout, {}, {})
    sizes: list[int] = []

    def encrypted() -> None:
        for name, vectors in encode(x, encoded, head, layout, scaling):
            kind, *numbers = name.split("-")
            blobs = [key.encrypt(v) for v in vectors]
            sizes.extend(map(len, blobs))
            place = DataPart if kind == "data" else ResidualPart
            blocks.put(place(*map(int, numbers)), [engine.load(blob) for blob in blobs])

    timed("rows", encrypted)
    heads = []

    def keep(state: State) -> None:
        slots = [key.decrypt(c) for row in state.weights for c in row]
        weights = decode(slots, layout, scaling, whitening.columns, len(task.classes))
        heads.append(whitening.fold(weights))
        print(f"step {state.step}", flush=True)

    timed("training", lambda: Trainer(blocks).train(program, on_step=keep))
    spent: defaultdict[str, float] = defaultdict(float)
    for (name, _), took in engine.ledger.seconds.items():
        spent[name] += took
    return {
        "heads": heads,
        "clear": [whitening.fold(weights) for weights in clear],
        "seconds": {**seconds, "bootstrapping": spent["refresh"]},
        "bootstraps": engine.ledger.totals["refresh"],
        "key_count": 1 + len(key.galois_elements(layout.keys())),
        "key_bytes": literal.key_bytes,
        "upload": sum(sizes),
    }


def wire_key_bytes(literal: Bootstrapping) -> int:
    """What a key of so many levels takes in the format of uploads: a digit a limb, half of it a seed."""
    bits = literal.first_bits + literal.depth * literal.scale_bits + SPECIAL_BITS
    return (literal.depth + 1) * bits * literal.ring_degree // 8
