"""The attacks of ``blindtune audit`` at their full size, on the paediatric X-rays: a page for each.

    python -m benchmarks.attacks --shared ../shared --work /tmp/blindtune-attacks [--parts keys membership dp]

Each table is what one command printed; its results are kept in the work directory, and what is there
already is not run again. Written to ``docs/audit-keys.md``, ``docs/audit-membership.md`` and
``docs/audit-dp.md``, and to ``benchmarks/results/attacks-*.json``.
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
from blindtune.audit.private import lower_bound
from blindtune.audit.results import AttackResult, read_results
from blindtune.client.study import StudyDirectory

TRIES, CANARIES, DELTA = 1000, 2000, 1e-5

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

One training run is enough to bound its epsilon from below (Steinke, Nasr and Jagielski 2023): {canaries}
canaries, each put in by a coin, a head trained by the code of private rounds, and guesses of how the coins
fell ({target}). Bounds are right with 95 % confidence.

{table}

{said} With a bug planted on purpose the bound exceeds the claim, as far as so many canaries can prove it: had
every guess been right, {canaries} of them would prove an epsilon of {most:.1f} and no more.

```console
{commands}
```
"""
Run = Callable[..., list[AttackResult]]


def runner(work: Path) -> Run:
    """Runs ``blindtune audit`` with a file of results in the work directory, unless that is there."""

    def run(name: str, *arguments: str) -> list[AttackResult]:
        path = work / f"{name}.json"
        if not path.is_file():
            call(["audit", *arguments, "--json", "--out", str(path)])
        return read_results(path)

    return run


def call(arguments: list[str]) -> None:
    """Run a command of blindtune's."""
    command = [sys.executable, "-m", "blindtune.cli.main", *arguments]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        raise Failed(f"blindtune {arguments[0]}")


def keys(run: Run, _: argparse.Namespace) -> tuple[list[AttackResult], str]:
    """Key recovery from raw and sanitised decryptions."""
    found = []
    for name, tries in (("insecure", TRIES), ("usual", TRIES), ("release", TRIES // 10)):
        found += run(f"keys-{name}", "keys", "--parameters", name, "--tries", str(tries))
    rows = [[r.target, r.protection, f"{r.trials:,}", *cells(r, "keys recovered")] for r in found]
    shown = table(["parameters", "told", "tries", "keys recovered"], rows)
    return found, KEYS.format(table=shown, commands=commands(found))


def membership(run: Run, given: argparse.Namespace) -> tuple[list[AttackResult], str]:
    """Who was in the training data."""
    study = given.work / "study"
    if not StudyDirectory(study).complete:
        call(["encrypt", str(embeddings(given.shared, given.work)), "--out", str(study), "--json"])
    found = run("membership", "membership", str(study))
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
    budgets = [x for e in ("1", "3", "8") for x in ("--epsilon", e)]
    found = run("dp", "dp", *budgets, "--canaries", str(CANARIES))
    rows = [
        [r.protection.partition(", ")[2], *cells(r, "claimed epsilon", "proven lower bound"), verdict(r)]
        for r in found
    ]
    kept = all(verdict(r) != "EXCEEDED" for r in found)
    canaries = found[0].trials
    inside = np.arange(canaries) % 2 == 0
    return found, DP.format(
        table=table(["budget", "claimed epsilon", "proven lower bound", "verdict"], rows),
        canaries=f"{canaries:,}",
        commands=commands(found),
        target=found[0].target,
        most=lower_bound(inside.astype(float), inside, DELTA),
        said="No bound exceeds the claim of training as it is, which does not prove that nothing is wrong."
        if kept
        else "A BOUND EXCEEDS THE CLAIM: private training is wrong.",
    )


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
