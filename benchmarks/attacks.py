"""The attacks of ``blindtune audit`` at their full size, on the paediatric X-rays: a page for each.

    python -m benchmarks.attacks --shared ../shared --work /tmp/blindtune-attacks [--parts keys membership dp]

Each table is what these commands printed; their results are kept in the work directory, and what is there
already is not run again: a run that was stopped goes on. Written to ``docs/audit-keys.md``,
``docs/audit-membership.md`` and ``docs/audit-dp.md``, and to ``benchmarks/results/attacks-*.json``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from benchmarks.casestudy import prepare
from benchmarks.commands import ROOT, Failed, keep, machine
from benchmarks.page import table
from blindtune.audit.keys import SIZES
from blindtune.audit.private import lower_bound
from blindtune.audit.results import AttackResult, read_results
from blindtune.client.study import StudyDirectory

TRIES = 1000
BUDGETS = (
    ("--epsilon", "1", "--epsilon", "3", "--canaries", "2000"),
    ("--epsilon", "8", "--canaries", "16000", "--delta", "1e-6"),
)
"""Of the private audit. Nothing beyond 8 can be proven with few canaries, or where delta is not far below one
over them."""

KEYS = """# Key recovery

Li and Micciancio's passive attack (2020/1533) on throw-away keys, a fresh one each time: the attacker has a
ciphertext and is told what it decrypts to. Recovered means the very key, coefficient by coefficient.

{table}

Raw decryptions give the key away with every parameter set, at 128 bits of security as without any, by one
division. That is the control, and why what `decrypt` writes must never reach whoever computed. What
`blindtune release` tells gave no key away. The interval's upper end is what so many tries can exclude; the
guarantee is the derivation in `blindtune/he/flooding.py`. Here all coefficients are told, which helps the
attacker: a release tells a few hundred of them.

```console
{commands}
```
"""

MEMBERSHIP = """# Membership inference

The likelihood ratio attack (Carlini et al. 2022) on the paediatric X-rays ({target}): shadow heads of each
kind, each trained on half of the patients; every head is attacked with all the others. Members are patients:
what is told of a patient's scans adds up. Intervals are 95 %, over patients. Guessing gives a true
positive rate (TPR) as large as the false positive rate (FPR), and an area (AUC) of 0.5.

{table}

* The control, a head that memorises its rows, is found out: the attack works.
* The decrypted head tells something of who was trained on. Encryption does not change what a head says.
* A sanitised release hides the key and not the patients: its row is the decrypted head's.
* Private heads (one site, 30 noisy steps and a noisy mean, as in the case study; delta a tenth of one over
  the patients) are the protection against this.

The attacker is strong: it knows embeddings and labels of all patients, and all heads of the same kind but the
one that it attacks.

```console
$ blindtune encrypt SCANS --labels LABELS.csv --out STUDY
{commands}
```
"""

DP = """# Audit of private training

One training run is enough to bound its epsilon from below (Steinke, Nasr and Jagielski 2023): canaries, each
put in by a coin, a head trained by the code of private rounds, and guesses of how the coins fell
({target}). Bounds are right with 95 % confidence. *Provable* is what so many canaries would prove, were
every guess right.

{table}

{said} With a bug planted on purpose the bound exceeds the claim, as far as so many canaries can prove it.

```console
{commands}
```
"""
Run = Callable[..., list[AttackResult]]


def runner(work: Path) -> Run:
    """Runs ``blindtune audit`` with a file of results in the work directory; the command goes on from it."""

    def run(name: str, *arguments: str) -> list[AttackResult]:
        path = work / f"{name}.json"
        call(["audit", *arguments, "--json", "--out", str(path)])
        return read_results(path)

    return run


def call(arguments: list[str]) -> None:
    """Run a command of blindtune's."""
    command = [sys.executable, "-m", "blindtune.cli.main", *arguments]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        raise Failed(f"blindtune {arguments[0]}")


def keys(run: Run, given: argparse.Namespace) -> tuple[list[AttackResult], str]:
    """Key recovery from raw and sanitised decryptions."""
    found = []
    for name in SIZES:
        found += run(f"keys-{name}", "keys", "--parameters", name, "--tries", str(given.tries))
    rows = [[r.target, r.protection, f"{r.trials:,}", *cells(r, "keys recovered")] for r in found]
    shown = table(["parameters", "told", "tries", "keys recovered"], rows)
    return found, KEYS.format(table=shown, commands=commands(found))


def membership(run: Run, given: argparse.Namespace) -> tuple[list[AttackResult], str]:
    """Who was in the training data."""
    study = given.work / "study"
    if not StudyDirectory(study).complete:
        call(["encrypt", str(embeddings(given.shared, given.work)), "--out", str(study), "--json"])
    done = given.work / "membership.json"
    found = read_results(done) if done.is_file() else run("membership", "membership", str(study))
    names = list(found[0].figures)
    rows = [[r.protection, str(r.trials), *cells(r, *names)] for r in found]
    shown = table(["head", "shadow heads", *names], rows)
    return found, MEMBERSHIP.format(table=shown, target=found[0].target, commands=commands(found))


def embeddings(shared: Path, work: Path) -> Path:
    """The X-rays' embeddings, as in the case study; made once."""
    path = work / "xrays.npz"
    if not path.is_file():
        data = prepare(shared, work).data
        np.savez(
            path,
            embeddings=data.features,
            labels=data.labels,
            classes=np.array(data.classes),
            patients=np.array(data.patients),
            splits=data.splits,
        )
    return path


def dp(run: Run, _: argparse.Namespace) -> tuple[list[AttackResult], str]:
    """Whether private training holds its epsilon."""
    found = [r for at, options in enumerate(BUDGETS) for r in run(f"dp-{at}", "dp", *options)]
    rows = [
        [
            r.protection.partition(", ")[2],
            f"{r.trials:,}",
            delta_of(r),
            *cells(r, "claimed epsilon", "proven lower bound"),
            f"{provable(r):.1f}",
            verdict(r),
        ]
        for r in found
    ]
    kept = all(verdict(r) != "EXCEEDED" for r in found)
    heads = ["budget", "canaries", "delta", "claimed epsilon", "proven lower bound", "provable", "verdict"]
    return found, DP.format(
        table=table(heads, rows),
        commands=commands(found),
        target=found[0].target.rpartition(", ")[0],
        said="No bound exceeds the claim of training as it is, which does not prove that nothing is wrong."
        if kept
        else "A BOUND EXCEEDS THE CLAIM: private training is wrong.",
    )


def delta_of(r: AttackResult) -> str:
    """The delta that a private audit's run claims."""
    return r.target.rpartition(" ")[2]


def provable(r: AttackResult) -> float:
    """What so many canaries would prove, were every guess right."""
    inside = np.arange(r.trials) % 2 == 0
    return lower_bound(inside.astype(float), inside, float(delta_of(r)))


def commands(found: list[AttackResult]) -> str:
    """Each command that made a result, once, as typed."""
    return "\n".join(f"$ {c}" for c in dict.fromkeys(r.command for r in found))


def verdict(r: AttackResult) -> str:
    """What a row of the privacy audit says."""
    claimed, low = (r.figures[n].value or 0.0 for n in ("claimed epsilon", "proven lower bound"))
    if "planted" in r.protection:
        return "caught" if low > claimed else "not caught: beyond what can be proven"
    return "kept" if low <= claimed else "EXCEEDED"


def cells(r: AttackResult, *names: str) -> Iterable[str]:
    """Figures with their intervals."""
    for name in names:
        f = r.figures[name]
        interval = "" if f.low is None or f.high is None else f" ({f.low:.4f} to {f.high:.4f})"
        yield "–" if f.value is None else f"{f.value:.4f}{interval}" if interval else f"{f.value:.3f}"


PARTS = {"keys": keys, "membership": membership, "dp": dp}


def main() -> None:
    """Attack, and write the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tries", type=int, default=TRIES, help="keys a size of parameters")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    for part in given.parts:
        found, text = PARTS[part](runner(given.work), given)
        here = machine()
        keep(f"attacks-{part}", {"machine": here, "results": [r.to_json() for r in found]})
        written = f"Written by `python -m benchmarks.attacks --parts {part}` on {here['cpu']}.\n"
        (ROOT / "docs" / f"audit-{part}.md").write_text(f"{text}\n{written}")


if __name__ == "__main__":
    main()
