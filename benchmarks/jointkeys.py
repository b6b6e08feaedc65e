"""Three hospitals and a server, four processes in four directories: one head on all rows, opened by all.

    python -m benchmarks.jointkeys EMBEDDINGS.npz --work DIRECTORY [--server-python PYTHON] [--length LENGTH]

In an environment with OpenFHE; the server may run in another one, with SEAL. Embeddings are what ``blindtune
encrypt`` keeps in a study's private directory: features, labels, patients and splits. The training patients
are split into three unequal shards with other shares of the classes. Written to
``benchmarks/results/jointkeys.json`` and ``docs/joint-keys.md``: areas under the curve of the pooled head,
encrypted and in clear, of each hospital's own head and of their average; seconds and bytes of every phase;
and what an attacker finds who has all directories but one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import ROOT, commit, keep, kept
from blindtune.client.calibrate import processor
from blindtune.client.encoding import encode
from blindtune.federation.agreement import HeadModel
from blindtune.federation.heads import Cases
from blindtune.federation.identity import Identity
from blindtune.federation.threshold.decryption import Opening
from blindtune.federation.threshold.mailbox import DirectoryMailbox
from blindtune.federation.threshold.party import Party
from blindtune.federation.threshold.rehearsal import MARGIN, Rehearsal
from blindtune.federation.threshold.rows import JointRows, scaling_of, write_keys
from blindtune.federation.threshold.terms import Task, Terms
from blindtune.federation.threshold.transcript import STAGES, Transcript
from blindtune.he.openfhe.opening import Opened, fuse
from blindtune.he.openfhe.share import SecretShare
from blindtune.imaging.arrays import load_embeddings
from blindtune.kernels.blocks import Blocks
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Trainer
from blindtune.models.heads import Encoded
from blindtune.models.rehearsal import rehearse
from blindtune.models.whitening import Whitening
from blindtune.params import ParametersLiteral
from blindtune.wire.bundle import Bundle
from blindtune.wire.manifest import layout_model, parameters_model, program_model
from blindtune.wire.study import train_here

NAMES = ("north", "south", "west")
SHARES = {"north": (0.75, 0.15, 0.1), "south": (0.15, 0.65, 0.25), "west": (0.1, 0.2, 0.65)}
"""What part of each class's patients (bacterial, normal, viral) a hospital has."""

TASK = {"directions": 63, "epsilon": 0.1, "degree": 7, "interval": 12.0}
RATES = (4.0, 4.0, 4.0)
PAUSE = 0.2
PAGE = ROOT / "docs" / "joint-keys.md"
BEGIN, END = "<!-- measured: python -m benchmarks.jointkeys -->", "<!-- end of what was measured -->"


def main() -> None:
    """Run everything, or one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--server-python", default=sys.executable)
    parser.add_argument("--length", type=float, help="of the result's error, instead of a rehearsal")
    parser.add_argument("--role", choices=(*NAMES, "server"))
    given = parser.parse_args()
    if given.role == "server":
        serve(given.work)
    elif given.role:
        hospital(given.work, given.role)
    else:
        keep("jointkeys", run(given))
        render()


def run(given: argparse.Namespace) -> dict[str, Any]:
    """The study, and what is measured of it."""
    given.work.mkdir(parents=True)
    data = load_embeddings(given.data)
    shards = split(data)
    task = Task(
        model=HeadModel(features=data.features.shape[1], rows=2048, loss="one-vs-rest", blind=True, **TASK),
        classes=list(data.classes),
        rates=list(RATES),
    )
    layout = Layout(16384, 4, (32,), 8, 1, 1)
    parameters = ParametersLiteral(32768, task.head.program.levels, 55, 56, 60).checked()
    start = time.perf_counter()
    length = given.length or MARGIN * Rehearsal(parameters, layout, len(NAMES)).length(stand_in(task, layout))
    rehearsed = time.perf_counter() - start
    identities = {name: Identity.generate() for name in NAMES}
    terms = Terms(
        study=os.urandom(16).hex(),
        members={name: identity.public.hex() for name, identity in identities.items()},
        parameters=parameters_model(parameters),
        layout=layout_model(layout),
        program=program_model(task.head.program),
        task=task,
        length=length,
    )
    for name in NAMES:
        place = given.work / name
        place.mkdir()
        identities[name].write(place / "identity.pem")
        np.savez(place / "rows.npz", features=shards[name].features, labels=shards[name].labels)
        (place / "terms.json").write_text(terms.model_dump_json())
    (given.work / "server").mkdir()
    (given.work / "server" / "terms.json").write_text(terms.model_dump_json())
    start = time.perf_counter()
    processes = [
        subprocess.Popen(
            [python, "-m", "benchmarks.jointkeys", *sys.argv[1:], "--role", role],
            cwd=ROOT,
        )
        for role, python in [(n, sys.executable) for n in NAMES] + [("server", given.server_python)]
    ]
    finish(processes)
    return {
        "machine": {
            "cpu": processor(),
            "cores": os.cpu_count(),
            "python": sys.version.split()[0],
            "openfhe": version("openfhe"),
            "commit": commit(),
            "load_at_start": os.getloadavg()[0],
        },
        "ring_degree": parameters.ring_degree,
        "modulus_bits": round(parameters.modulus_bits, 2),
        "statistical_bits": 40,
        "length": length,
        "seconds": {"rehearsal": rehearsed, "study": time.perf_counter() - start},
        "classes": list(data.classes),
        "rows": {name: np.bincount(s.labels).tolist() for name, s in shards.items()},
        "roles": {r: json.loads((given.work / r / "told.json").read_text()) for r in (*NAMES, "server")},
        "messages": messages(given.work / "server" / "mailbox"),
        "areas": areas(given.work, data, shards, task),
        "attack": attack(given.work, terms),
    }


def render() -> None:
    """Write what was kept into the page of joint keys."""
    found = kept("jointkeys")
    rows = {name: sum(counts) for name, counts in found["rows"].items()}
    areas_ = [[name, f"{a['val']:.4f}", f"{a['test']:.4f}"] for name, a in found["areas"].items()]
    sent = {stage: told["bytes"] for stage, told in found["messages"].items()}
    hospitals = [found["roles"][name] for name in NAMES]
    spent = {
        phase: max(role["phases"][phase]["processor"] for role in hospitals)
        for phase in ("keys", "moments", "encrypt", "open")
    }
    server = found["roles"]["server"]
    phases = [
        ["key generation", spent["keys"], sum(sent[stage] for stage in STAGES)],
        ["moments", spent["moments"], sent["sum"]],
        ["rows", spent["encrypt"], max(role["upload"] for role in hospitals)],
        ["opening", spent["open"], sent["consent"] + sent["share"]],
    ]
    told = found["machine"]
    text = f"""
{" / ".join(map(str, rows.values()))} training rows at three hospitals, ring degree {found["ring_degree"]:,},
{found["modulus_bits"]:g} bits, {found["statistical_bits"]} bits of smudging; hospitals with OpenFHE
{told["openfhe"]}, the server with {server["engine"]}. Area under the curve, each class against the rest:

{table(["head", "validation", "test"], areas_)}

What a hospital spends, in processor seconds of one core ({told["cpu"]}), and sends:

{table(["phase", "seconds", "MB"], [[n, f"{s:.1f}", f"{b / 1e6:.3g}"] for n, s, b in phases])}

The server adds the keys up in {server["phases"]["keys"]["processor"]:.0f} and trains in
{server["phases"]["train"]["processor"]:.0f} processor seconds; the rehearsal that measures the error took
{found["seconds"]["rehearsal"]:.0f} s on the clock of a machine under a load of {told["load_at_start"]:.0f}.
Commit {told["commit"]}, `python -m benchmarks.jointkeys`.
"""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + text + END + rest.partition(END)[2])


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def finish(processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait for all; if one fails, the others wait for it no longer."""
    while any(process.poll() is None for process in processes):
        if any(process.poll() for process in processes):
            for process in processes:
                process.kill()
            raise SystemExit("a process failed")
        time.sleep(PAUSE)


def split(data: Any) -> dict[str, Cases]:
    """Training rows by patient, unequally, each hospital with other shares of the classes."""
    rng = np.random.default_rng(0)
    train = data.indices("train")
    patients = np.asarray(data.patients)[train]
    owner: dict[str, str] = {}
    for patient, label in zip(patients, data.labels[train], strict=True):
        if patient not in owner:
            owner[patient] = str(rng.choice(NAMES, p=[SHARES[name][label] for name in NAMES]))
    owners = np.array([owner[p] for p in patients])
    return {n: Cases(data.features[train][owners == n], data.labels[train][owners == n]) for n in NAMES}


def stand_in(task: Task, layout: Layout) -> Any:
    """Trains on random rows of the agreed shape: the error hardly depends on them."""
    rng = np.random.default_rng(1)
    rows = 1100
    x = np.hstack([rng.normal(size=(rows, task.model.directions)), np.ones((rows, 1))])
    labels = np.eye(len(task.classes))[rng.integers(0, len(task.classes), rows)]
    encoded = Encoded(
        1.5 * (labels - 0.5), 1.5 * np.ones_like(labels) * task.head.coefficients[:, None, None]
    )

    def train(engine: Any, encrypt: Any) -> Any:
        data: dict[Any, Any] = {}
        residuals: dict[Any, Any] = {}
        for name, vectors in encode(x, encoded, task.head, layout, scaling_of(task, rows)):
            kind, *numbers = name.split("-")
            place, fresh = tuple(map(int, numbers)), [encrypt(v) for v in vectors]
            if kind == "residual":
                residuals[place] = fresh
            else:
                data |= {(*place, n // layout.baby, n % layout.baby): c for n, c in enumerate(fresh)}
        return Trainer(Blocks(engine, layout, data, residuals)).train(task.head.program)

    return train


class Told:
    """Seconds of a process, by phase: on the clock and on the processor."""

    def __init__(self) -> None:
        self.phases: dict[str, dict[str, float]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase."""
        wall, busy = time.perf_counter(), time.process_time()
        yield
        self.phases[name] = {
            "wall": time.perf_counter() - wall,
            "processor": time.process_time() - busy,
        }

    def write(self, place: Path, **more: Any) -> None:
        """Keep it."""
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        (place / "told.json").write_text(json.dumps({"phases": self.phases, "memory_gib": memory, **more}))


def hospital(work: Path, name: str) -> None:
    """One hospital, from its own directory and the mailbox."""
    place, server, told = work / name, work / "server", Told()
    terms = Terms.parse((place / "terms.json").read_bytes())
    party = Party(
        Terms.parse((server / "terms.json").read_bytes()),
        terms,
        name,
        Identity.read(place / "identity.pem"),
        DirectoryMailbox(server / "mailbox"),
        place / "private",
    )
    with told.phase("keys"):
        until(lambda: not party.advance().absent)
    rows = np.load(place / "rows.npz")
    joint = JointRows(party, Cases(rows["features"], rows["labels"]))
    with told.phase("moments"):
        joint.contribute()
        until(lambda: not joint.sum.advance().absent)
    with told.phase("encrypt"):
        manifest = joint.write(server / f"rows-{name}")
    until((server / "head" / "manifest.json").exists)
    with told.phase("open"):
        opening = Opening(party, list(Bundle(server / "head").items("weights")))
        opening.consent()
        until(lambda: not opening.advance().absent)
        weights, biases = joint.raw(opening.head())
    np.savez(place / "head.npz", weights=weights, biases=biases)
    upload = sum(part.size for part in manifest.parts)
    told.write(place, upload=upload, fingerprint=party.transcript.fingerprint)


def serve(work: Path) -> None:
    """The server: reads the mailbox, trains on what hospitals left."""
    place, told = work / "server", Told()
    transcript = Transcript(
        Terms.parse((place / "terms.json").read_bytes()), DirectoryMailbox(place / "mailbox")
    )
    until(lambda: not any(transcript.absent(stage) for stage in STAGES))
    with told.phase("keys"):
        write_keys(transcript, place / "keys")
    bundles = [place / f"rows-{name}" for name in NAMES]
    until(lambda: all((bundle / "manifest.json").exists() for bundle in bundles))
    with told.phase("train"):
        train_here(place / "keys", bundles, place / "head")
    told.write(place, engine="tenseal" if sys.version_info >= (3, 11) else "openfhe")


def until(done: Any) -> None:
    """Wait for something."""
    while not done():
        time.sleep(PAUSE)


def messages(mailbox: Path) -> dict[str, dict[str, Any]]:
    """Number and bytes of one hospital's messages in each stage."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(mailbox.rglob(f"*.{NAMES[0]}")):
        stage = found.setdefault(path.parent.name.partition("-")[0], {"messages": 0, "bytes": 0})
        stage["messages"] += 1
        stage["bytes"] += path.stat().st_size
    return found


def areas(work: Path, data: Any, shards: dict[str, Cases], task: Task) -> dict[str, Any]:
    """Area under the curve, each class against the rest, of all heads on validation and test rows."""
    heads = {
        "pooled, encrypted": tuple(np.load(work / NAMES[0] / "head.npz")[k] for k in ("weights", "biases"))
    }
    whole = Cases(
        np.vstack([s.features for s in shards.values()]), np.concatenate([s.labels for s in shards.values()])
    )
    heads["pooled, same steps in clear"] = in_clear(whole, task)
    own = {name: in_clear(shard, task) for name, shard in shards.items()}
    heads |= {f"{name}'s own rows": head for name, head in own.items()}
    sizes = [len(s.labels) for s in shards.values()]
    heads["average of the hospitals' own heads"] = tuple(
        np.average([head[n] for head in own.values()], axis=0, weights=sizes) for n in range(2)
    )
    found: dict[str, Any] = {}
    for name, (weights, biases) in heads.items():
        scores = data.features @ weights.T + biases
        found[name] = {
            part: float(np.mean([area(scores[i, k], data.labels[i] == k) for k in range(len(data.classes))]))
            for part in ("val", "test")
            for i in [data.indices(part)]
        }
    return found


def in_clear(cases: Cases, task: Task) -> tuple[Any, Any]:
    """The same steps on rows in clear."""
    x, classes = cases.features.astype(np.float64), len(task.classes)
    truth = np.eye(classes)[cases.labels]
    whitening = Whitening.fit(x, task.model.directions, task.model.epsilon, "")
    share = np.clip(truth.mean(axis=0), 1e-9, 1 - 1e-9)
    weights = np.where(truth > 0, 0.5 / share, 0.5 / (1 - share))
    encoded = Encoded(weights * (truth - 0.5), weights * task.head.coefficients[:, None, None])
    return whitening.fold(rehearse(whitening.apply(x), encoded, task.head).weights)


def area(scores: Any, positive: Any) -> float:
    """Mann and Whitney's: the chance that a positive row scores above a negative one."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores)] = np.arange(1, len(scores) + 1)
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


def attack(work: Path, terms: Terms) -> dict[str, Any]:
    """What someone has who holds the server's and two hospitals' directories, and where shares lie."""
    p = terms.checked_parameters
    opened = [
        Opened.read(data, p, terms.final_level, period)
        for data, period in zip(Bundle(work / "server" / "head").items("weights"), terms.periods, strict=True)
    ]
    size = 8 * (p.levels + 1) * p.ring_degree
    stored = {n: (work / n / "private" / "secret-share").read_bytes() for n in NAMES}
    shares, found = {}, {}
    for name, data in stored.items():
        end = data.index(b"BTR1", size)
        shares[name] = SecretShare.from_bytes(p, terms.digest, data[:end])
        pieces = [data[end - size + at :][:64] for at in range(0, size, size // 7)]
        found[name] = sorted(
            str(path.relative_to(work))
            for path in work.rglob("*")
            if path.is_file() and any(piece in path.read_bytes() for piece in pieces)
        )
    zero = np.zeros(opened[0].period, np.complex128)
    partials = {name: share.partial(opened[0], zero) for name, share in shares.items()}
    whole = fuse(opened[0], list(partials.values()), p)
    two = {name: fuse(opened[0], [x for n, x in partials.items() if n != name], p) for name in NAMES}
    agreement = {name: float(np.corrcoef(values.real, whole.real)[0, 1]) for name, values in two.items()}
    return {
        "files_with_a_share": found,
        "largest_value_opened_by_all": float(np.abs(whole).max()),
        "largest_value_without": {name: float(np.abs(values).max()) for name, values in two.items()},
        "correlation_without": agreement,
    }


if __name__ == "__main__":
    main()
