"""Scans rebuilt from gradients and from embeddings: the paediatric chest X-rays attacked.

    python -m benchmarks.attacks_images --shared ../shared --work /tmp/blindtune-attacks [--parts NAME ...]

Half of the patients are the attacker's public images, the other half is attacked. Runs the commands of
``blindtune audit`` and writes ``docs/audit-embedding.md``, ``docs/audit-inversion.md`` and
``benchmarks/results/attacks_images.json``. Pictures show synthetic scans under the same
attacks (``--pictures``): no patient's scan is published. A run that was stopped goes on with the next
image; ``--parts --pictures`` without names writes the pages only.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.commands import ROOT, keep, kept, machine
from benchmarks.datasets import weights_of, xrays
from benchmarks.page import table
from blindtune.audit.embedding import DECODER, GRADIENT, LINK
from blindtune.audit.quality import FEATURES
from blindtune.audit.results import AttackResult, read_results
from blindtune.imaging.synthetic import write_synthetic_cohort
from blindtune.report.figures import Figure

NAME = "attacks_images"
DOCS = ROOT / "docs"
PICTURES = DOCS / "audit"
DEIT = "deit_tiny_patch16_224"
DECODED = ("--iterations", "0", "--images", "40")
"""Where a search leads away from what the classifier's gradient decodes to, or costs too much."""

RUNS: dict[str, tuple[str, ...]] = {
    "embedding": ("embedding", "--backbone", DEIT, "--side", "48", "--epochs", "10"),
    "embedded": ("embedding", "--backbone", FEATURES, "--side", "48", "--epochs", "10"),
    "deit": ("inversion", "--network", DEIT, "--side", "64", "--images", "12", "--iterations", "40"),
    "resnet-evaluation": (
        *("inversion", "--network", "resnet18", "--norm", "batch", "--mode", "evaluation"),
        *("--images", "3", "--epsilon", "8", "--iterations", "100"),
    ),
    "resnet-group": ("inversion", "--network", "resnet18", *DECODED),
    "resnet-training": ("inversion", "--network", "resnet18", "--norm", "batch", "--side", "48", *DECODED),
}  # fmt: skip
"""The commands behind each table."""

DRAWN = ("embedding", "deit", "resnet-group")
"""Parts with pictures: their attacks take minutes."""


def command(part: str) -> str:
    """The documented command of a part."""
    kind, *options = RUNS[part]
    weights = " --weights deit_tiny.safetensors" if part == "embedding" else ""
    return f"blindtune audit {kind} SCANS {' '.join(options)}{weights} --out AUDIT/"


def run(part: str, shared: Path, work: Path) -> list[AttackResult]:
    """A part on the X-rays."""
    scans, labels, table_, *_ = xrays(shared, work)
    attack(part, [scans, labels, table_], shared, work / part)
    return read_results(work / part / f"{RUNS[part][0]}.json")


def attack(part: str, scans: Sequence[str], shared: Path, out: Path) -> None:
    """A part's command, in this process, so that its progress is seen."""
    import typer

    from blindtune.cli.commands import app

    kind, *options = RUNS[part]
    if part == "embedding":
        options += ["--weights", str(weights_of(shared))]
    program: Any = typer.main.get_command(app)
    program.main(["audit", kind, *scans, *options, "--out", str(out)], standalone_mode=False)


def draw(part: str, shared: Path, work: Path) -> None:
    """A part's pictures, of synthetic scans."""
    scans, out, kind = work / "synthetic", work / f"{part}-synthetic", RUNS[part][0]
    if not scans.exists():
        write_synthetic_cohort(scans)
    attack(part, [str(scans)], shared, out)
    shutil.copyfile(out / f"{kind}.png", PICTURES / f"{part}.png")
    if kind == "embedding":
        shutil.copyfile(out / "gradient.png", PICTURES / f"{part}-gradient.png")


def figure(found: Mapping[str, Any] | None) -> str:
    """A figure with its interval, as a cell."""
    if found is None or found["value"] is None:
        return "–"
    one = Figure(**found)
    text = f"{one.value:.3g}"
    return text if one.low is None else f"{text} ({one.low:.3g} to {one.high:.3g})"


def share(found: Mapping[str, Any]) -> str:
    """A share of patients with its interval, as a cell."""
    value, low, high = (100 * (found[k] or 0) for k in ("value", "low", "high"))
    return f"{value:.0f} % ({low:.0f} to {high:.0f})"


def rows_of(results: Sequence[Mapping[str, Any]], shares: Sequence[str], figures: Sequence[str]) -> str:
    """A table: a row for each protection."""
    lines = []
    for r in results:
        found = r["figures"]
        cells = [share(found[k]) if k in found else "–" for k in shares]
        lines.append([r["protection"], str(r["trials"]), *cells, *(figure(found.get(k)) for k in figures)])
    return table(["protection", "n", *shares, *figures], lines)


LINKED = "linked to another scan of the same patient"
QUALITY = ("MSE", "PSNR, dB", "SSIM", f"FID ({FEATURES})")
INTRODUCTION = (
    "Written by `python -m benchmarks.attacks_images`. Scans: 1,564 paediatric chest X-rays of 1,202 "
    "patients (Kermany et al. 2018, CC BY 4.0, "
    "[doi:10.17632/rscbjbr9sj.2](https://doi.org/10.17632/rscbjbr9sj.2)). Pictures below are not of "
    "them: the same command attacked synthetic scans, of no patient. Half of the patients stand for "
    "public images that the attacker knows; the others are attacked, one scan each. Intervals are "
    "95 %: exact for shares, Student's t for means over patients. FID is in features of "
    "`blindtune_deit_96` and biased upwards with so few images.\n"
)
VERDICT = (
    "\n**{answer}.** From a DeiT embedding a small decoder draws a scan whose nearest true scan is "
    "that of its own patient in {hit} of {n} patients, where chance is {chance}; and the embedding's "
    "nearest neighbour is another scan of the same patient in {linked} (chance {chance_linked}). "
    "What is drawn is blurred, and closer to the patient than the mean of all; an attacker who holds "
    "a candidate's scan needs no decoder, but embeds it and compares. blindtune treats embeddings as "
    "patient data: they stay in the private directory, and leave encrypted only.\n"
)
FROM_GRADIENT = (
    "\n### From a head's gradient\n\nA softmax head's gradient by one case is the derivative by its "
    "logit times the embedding, and by the bias the derivative alone: their ratio is the embedding, "
    "exactly. A batch or a sum leaves a weighted mean, whose nearest embedding is a member's more "
    "often than chance explains: a secure sum of few images is not anonymous by itself. Noise leaves "
    "noise; clipping alone hides nothing. Chance is the share of patients in one batch. A decoder "
    "draws a chest whatever it is given: look at the shares, not at how real a picture seems.\n\n"
)
ATTACK = (
    "\nThe attack: a transformer's patches follow in closed form from the gradients of patch and position "
    "embedding (after APRIL, Lu et al. 2022). Of other networks, the classifier's gradient holds "
    "exactly what the classifier was given of one image, and a linear map, fitted to public images, "
    "draws a scan of that. A search after Geiping et al. 2020 goes on from there (cosine distance by "
    "layer, total variation, signed Adam), first in the span of public images' principal components, "
    "with labels read off the bias. `--iterations 0` leaves the search out. Gradients are those that "
    "the federation's sites compute, clip and add noise to, at random weights with residual branches "
    "open. *One image* is the positive control: where it fails, the other rows of its table say "
    "nothing. It succeeds when patients are re-identified above chance; that it should also beat the "
    "guess in SSIM was asked for at first, and dropped when an earlier search missed it. Settings were "
    "chosen on invented patients; what the map alone finds was looked at on these scans too, before the "
    "runs below. Sums are of two images a site; epsilon is of 30 steps with sampling 0.2 at delta 1e-4. "
    "Searches are short, for two slow cores: what they do not find, more work may. Sites take one step "
    "a sync; updates of several local steps were not attacked. Sites keep batch statistics; the row "
    "that has them shows what averaging them would tell. *Labels recovered* are counts by class within "
    "what was seen: secure sums do not hide those.\n"
)


def of(results: Sequence[Mapping[str, Any]], attack: str) -> list[Mapping[str, Any]]:
    """An attack's results."""
    return [r for r in results if r["attack"] == attack]


def chance(result: Mapping[str, Any]) -> str:
    """What guessing gives."""
    return f"{100 * result['figures']['by chance']['value']:.1f} %"


def embedding_page(found: Mapping[str, Any]) -> str:
    """``docs/audit-embedding.md``."""
    text = "# Are embeddings patient data?\n\n" + INTRODUCTION
    parts = [p for p in ("embedding", "embedded") if p in found]
    if parts:
        first = found[parts[0]]["results"]
        clear, link = of(first, DECODER)[0], of(first, LINK)[0]
        shown = min(
            one["figures"][k]["low"] / one["figures"]["by chance"]["value"]
            for one, k in ((clear, "patients re-identified"), (link, LINKED))
        )
        text += VERDICT.format(
            answer="Yes" if shown > 1 else "Not shown here",
            hit=share(clear["figures"]["patients re-identified"]),
            n=clear["trials"],
            chance=chance(clear),
            linked=share(link["figures"][LINKED]),
            chance_linked=chance(link),
        )
    for part in parts:
        r = found[part]["results"]
        text += f"\n## {RUNS[part][2]}\n\n```console\n$ {command(part)}\n```\n" + FROM_GRADIENT
        shares = ("embeddings revealed exactly", "nearest embedding is one of the batch")
        text += rows_of(of(r, GRADIENT), shares, ("by chance", "relative error of the closest, median"))
        text += pictured(part, "Decoded from gradients", f"{part}-gradient") + "\n\n### From an embedding\n\n"
        text += rows_of(of(r, DECODER), ("patients re-identified",), QUALITY)
        text += pictured(part, "Decoded embeddings", part) + "\n\n### To another scan of the patient\n\n"
        text += rows_of(of(r, LINK), (LINKED,), ("by chance",)) + "\n\n" + where(found[part])
    return text


def inversion_page(found: Mapping[str, Any]) -> str:
    """``docs/audit-inversion.md``."""
    text = "# Scans from gradients\n\n" + INTRODUCTION + ATTACK
    for part in (p for p in RUNS if p in found and RUNS[p][0] == "inversion"):
        r = found[part]["results"]
        control = "succeeded" if r[0]["control"] else "**failed: the table says nothing of protections**"
        title = r[0]["target"].split(";")[0]
        text += f"\n## {title}\n\n```console\n$ {command(part)}\n```\n\nControl: {control}.\n\n"
        text += rows_of(r, ("patients re-identified", "labels recovered"), QUALITY)
        tests = [("ANOVA over all protections", r[0]["figures"].get("ANOVA of SSIM over the protections, p"))]
        tests += [
            (x["protection"], x["figures"].get("t-test of SSIM against no protection, p")) for x in r[1:-1]
        ]
        if len(tests) > 1:
            text += "\n\nSSIM against one image without protection, Welch's t-test, not corrected:\n\n"
            text += table(["", "p"], [[name, figure(f)] for name, f in tests])
        text += pictured(part, "True and rebuilt scans", part) + "\n\n" + where(found[part])
    return text


def pictured(part: str, title: str, name: str) -> str:
    """A picture of a part that has one."""
    return f"\n\n![{title}, synthetic](audit/{name}.png)" if part in DRAWN else ""


def where(part: Mapping[str, Any]) -> str:
    """Where a part was measured."""
    m = part["machine"]
    packages = f"Python {m['python']}, torch {m['packages']['torch']}"
    return f"{m['cpu']}, {m['cores']} cores, {packages}, commit {m['commit']}.\n"


def main() -> None:
    """Run the parts asked for, and write both pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--parts", nargs="*", choices=RUNS, default=list(RUNS))
    parser.add_argument("--pictures", nargs="*", choices=DRAWN, default=list(DRAWN))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(exist_ok=True)
    found = kept(NAME)
    for part in given.parts:
        results = run(part, given.shared, given.work)
        found[part] = {"machine": machine(), "results": [r.to_json() for r in results]}
        keep(NAME, found)
        write_pages(found)
    for part in given.pictures:
        draw(part, given.shared, given.work)
    write_pages(found)


def write_pages(found: Mapping[str, Any]) -> None:
    """Both pages, of what was found so far."""
    (DOCS / "audit-embedding.md").write_text(embedding_page(found))
    (DOCS / "audit-inversion.md").write_text(inversion_page(found))


if __name__ == "__main__":
    main()
