"""What a study with a joint key costs 2, 3, 5 and 10 hospitals: keys, rows, training, refresh, opening.

    python -m benchmarks.hospitals EMBEDDINGS.npz --work DIRECTORY [--server-python PYTHON] [--hospitals 2 3]

In an environment with OpenFHE; the server, a process of its own, may run in another one, with SEAL. All
hospitals of a study are in one process, one after the other, each with its own objects and its own
directory: their shares do not meet in any object. The training rows are dealt out to as many hospitals as
there are. Written to ``docs/benchmarks/hospitals.md`` and ``benchmarks/results/hospitals.json``, which keep
what was measured before for other numbers of hospitals.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import ROOT, keep, kept
from benchmarks.joint.machine import here
from benchmarks.joint.roles import HospitalRole, finish, start_role, told
from benchmarks.joint.task import LAYOUT, STATISTICAL_BITS, agree, lay_out, parameters_of, split, task_of
from benchmarks.page import table
from blindtune.federation.threshold.mailbox import DirectoryMailbox
from blindtune.federation.threshold.terms import Terms
from blindtune.he.openfhe.refresh import Stale, combine
from blindtune.imaging.arrays import load_embeddings

PAGE = ROOT / "docs" / "benchmarks" / "hospitals.md"
STAGES = ("join", "first", "second", "confirm", "sum", "consent", "share")


class CountedMailbox(DirectoryMailbox):
    """A mailbox that counts one hospital's bytes.

    Attributes:
        sent, fetched: by stage; what is fetched twice counts twice.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.sent, self.fetched = Counter[str](), Counter[str]()
        self._most = dict[tuple[str, str, str], int]()

    def post(self, stage: str, item: str, sender: str, message: bytes) -> None:
        super().post(stage, item, sender, message)
        self.sent[_kind(stage)] += len(message)

    def fetch(self, stage: str, item: str, sender: str, most: int) -> bytes | None:
        message = super().fetch(stage, item, sender, most)
        size = len(message or b"")
        self.fetched[_kind(stage)] += size
        key = (stage, item, sender)
        self._most[key] = max(size, self._most.get(key, 0))
        return message

    def received(self, name: str) -> Counter[str]:
        """Bytes of the others' messages by stage, as far as they were read, each once."""
        found = Counter[str]()
        for (stage, _, sender), size in self._most.items():
            found[_kind(stage)] += size * (sender != name)
        return found


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--server-python", default=sys.executable)
    parser.add_argument("--hospitals", type=int, nargs="*", default=[2, 3, 5, 10])
    given = parser.parse_args()
    rehearsed = kept("jointkeys")
    results = kept("hospitals") or {"studies": []}
    for count in given.hospitals:
        # The error of a result grows with the members' errors and with their shares.
        length = rehearsed["length"] * max(1.0, count / len(rehearsed["rows"]))
        given.work.mkdir(parents=True)
        # In a new process each: OpenFHE's context is made anew, as at a hospital.
        with get_context("spawn").Pool(1) as pool:
            task = (given.work, given.data, count, length, given.server_python)
            found = pool.apply(study, task)
        others = [s for s in results["studies"] if s["hospitals"] != count]
        results["studies"] = sorted([*others, found], key=lambda s: int(s["hospitals"]))
        shutil.rmtree(given.work)
        keep("hospitals", results)
        PAGE.write_text(render(results))


def study(work: Path, embeddings: Path, count: int, length: float, server_python: str) -> dict[str, Any]:
    """One study, from keys to the opened head."""
    machine = here()
    data = load_embeddings(embeddings)
    names = [f"hospital-{n:02}" for n in range(1, count + 1)]
    shards = split(data, "train", {name: [1 / count] * len(data.classes) for name in names})
    task = task_of(data)
    terms, identities = agree(names, task, length)
    lay_out(work, terms, identities, shards)
    boxes = {name: CountedMailbox(work / "server" / "mailbox") for name in names}
    roles = {name: HospitalRole(work, name, boxes[name]) for name in names}
    rounds = {"keys": everybody(roles, HospitalRole.keys)}
    everybody(roles, HospitalRole.moments)
    for role in roles.values():
        role.encrypt()
    finish([start_role(work, "server", server_python)])
    refresh = refreshed(terms, roles)
    everybody(roles, HospitalRole.open)
    heads = [np.load(work / name / "head.npz")["weights"] for name in names]
    if any((head != heads[0]).any() for head in heads):
        raise RuntimeError("hospitals that opened different heads")
    server, parameters = told(work / "server"), parameters_of(task)
    return {
        "machine": machine,
        "hospitals": count,
        "rows": [len(shards[name].labels) for name in names],
        "ring_degree": parameters.ring_degree,
        "modulus_bits": round(parameters.modulus_bits, 2),
        "items": len(list((work / "server" / "mailbox").rglob(f"*.{names[0]}"))),
        "passes_of_key_generation": rounds["keys"],
        "processor": {
            phase: max(role.told.phases[phase]["processor"] for role in roles.values())
            for phase in ("keys", "moments", "encrypt", "refresh", "open")
        },
        "sent": {s: max(box.sent[s] for box in boxes.values()) for s in STAGES},
        "received": {s: max(box.received(n)[s] for n, box in boxes.items()) for s in STAGES},
        "fetched": {s: max(box.fetched[s] for box in boxes.values()) for s in STAGES},
        "upload": max(role.uploaded for role in roles.values()),
        "refresh": refresh,
        "server": server,
        "disk_bytes": sum(path.stat().st_size for path in work.rglob("*") if path.is_file()),
    }


def everybody(roles: dict[str, HospitalRole], phase: Callable[[HospitalRole], bool]) -> int:
    """Let hospitals speak in turn until all are through a phase; how often all were asked."""
    waiting, passes = list(roles.values()), 0
    while waiting:
        waiting, passes = [role for role in waiting if not phase(role)], passes + 1
    return passes


def refreshed(terms: Terms, roles: dict[str, HospitalRole]) -> dict[str, float]:
    """One refresh of the weights, as if the program had one: bytes of a hospital's part, and the processor
    seconds of whoever puts the parts together."""
    p, reference = terms.checked_parameters, os.urandom(32)
    public = next(iter(roles.values())).party.public_key
    sent, busy = 0, 0.0
    for n in range(len(terms.periods)):
        blob = public.encrypt(np.full(p.slots, 0.25))
        stale, parts = Stale.read(blob, p, p.levels, reference, n), []
        for role in roles.values():
            with role.told.phase("refresh"):
                parts.append(role.party.share.refresh(stale))
        sent += len(parts[0].to_bytes())
        start = time.process_time()
        combine(stale, parts, public)
        busy += time.process_time() - start
    return {"bytes": sent, "processor": busy}


def render(results: dict[str, Any]) -> str:
    """The page."""
    studies = results["studies"]
    heads = ["", *(f"{s['hospitals']} hospitals" for s in studies)]

    def row(name: str, cell: Callable[[dict[str, Any]], str]) -> list[str]:
        return [name, *(cell(s) for s in studies)]

    busy = {
        "a hospital: key generation": lambda s: f"{s['processor']['keys']:.1f}",
        "a hospital: moments": lambda s: f"{s['processor']['moments']:.2f}",
        "a hospital: encrypting its rows": lambda s: f"{s['processor']['encrypt']:.1f}",
        "a hospital: one refresh": lambda s: f"{s['processor']['refresh']:.2f}",
        "a hospital: opening": lambda s: f"{s['processor']['open']:.2f}",
        "the server: adding the keys up": lambda s: f"{s['server']['phases']['keys']['processor']:.1f}",
        "the server: loading and training": lambda s: f"{s['server']['phases']['train']['processor']:.1f}",
        "the server: one refresh": lambda s: f"{s['refresh']['processor']:.2f}",
    }
    moved = [
        row(f"{stage}: {field}", lambda s, f=field, x=stage: shown(s[f][x]))
        for stage in STAGES
        for field in ("sent", "received")
    ]
    moved.insert(-4, row("encrypted rows: sent", lambda s: shown(s["upload"])))
    moved.insert(-4, row("a refresh: sent", lambda s: shown(s["refresh"]["bytes"])))
    first, m, server = studies[0], studies[0]["machine"], studies[0]["server"]
    loads = ", ".join(f"{s['machine']['load_at_start']:.1f}" for s in studies)
    commits = ", ".join(dict.fromkeys(s["machine"]["commit"] for s in studies))
    disk = ", ".join(f"{s['disk_bytes'] / 1e9:.1f}" for s in studies)
    memory = ", ".join(f"{s['server']['memory_gib']:.1f}" for s in studies)
    return f"""# Joint keys of 2 to 10 hospitals

Written by `python -m benchmarks.hospitals` on {m["cpu"]}, {m["cores"]} cores, with loads of
{loads} at the starts, commit {commits}. Hospitals with Python {m["python"]} and OpenFHE
{m["openfhe"]}, the server with Python {server["python"]} and {server["engine"]}. Hospitals are in one
process, one after the other, each with its own objects and directory; the server is a process of its own.
[Joint keys](../joint-keys.md) says what is computed, and measures three hospitals in their own processes.

{sum(first["rows"]):,} training rows are dealt out to all hospitals alike; ring degree
{first["ring_degree"]:,}, {first["modulus_bits"]:g} bits, {STATISTICAL_BITS} bits of smudging. Every hospital
has a row block of its own, so that training takes as many blocks as there are hospitals; what a hospital does
and sends is the same for up to {LAYOUT.rows:,} rows. The opening's noise is that of three hospitals, in
proportion to their number: it has no part in the times.

## Processor seconds of one core

The most of any hospital: the first one in the process makes OpenFHE's context for all.

{table(heads, [row(name, cell) for name, cell in busy.items()])}

## What a hospital sends and receives, by round

Received is what it reads of the others' messages, each once: of rotation keys only who said which. `first`
and `second` are the shares of the keys, `sum` the moments. A refresh is not part of these studies' three
steps: it is one of all weights, done beside them.

{table(heads, moved)}

All directories together took {disk} GB: a hospital keeps what it said. The server's peak memory was
{memory} GiB.
"""


def shown(size: float) -> str:
    """Bytes in three digits."""
    for unit, of in (("MB", 1e6), ("kB", 1e3)):
        if size >= of:
            return f"{size / of:,.0f} {unit}" if size >= 100 * of else f"{size / of:.3g} {unit}"
    return f"{size:.0f} B"


def _kind(stage: str) -> str:
    return stage.partition("-")[0]


if __name__ == "__main__":
    main()
