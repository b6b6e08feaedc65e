"""The page and the README's table of the case study, from its kept results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.commands import ROOT
from benchmarks.page import table

PAGE = ROOT / "docs" / "casestudy.md"
START_MARK, END_MARK = "<!-- figures: case study -->", "<!-- end of case study -->"
FIGURES = ("accuracy", "balanced_accuracy", "mcc", "roc_auc")
TITLES = {
    "heads": "Heads on frozen DeiT-tiny features",
    "networks": "Networks end to end",
    "private-networks": "A private network end to end",
}
"""Of the parts, in order."""


def render(parts: Mapping[str, Any]) -> str:
    """``docs/casestudy.md``."""
    text = (
        "# Case study: paediatric chest X-rays over three hospitals\n\n"
        "PriMIA (Kaissis, Ziller et al. 2021) trained on these images: normal, bacterial or viral pneumonia "
        "(Kermany et al., CC BY 4.0). Here are 1,564 of them; patients are drawn over three unequal sites, "
        "and every model is judged on the same 310 test scans of other patients. Written by "
        "`python -m benchmarks.casestudy`, which also makes a page with curves, confusion matrices and every "
        "interval. Intervals are 95 %, by patient.\n"
    )
    for part, title in TITLES.items():
        if part not in parts:
            continue
        one = parts[part]
        m, judged = one["machine"], one["judged"]
        reference = judged["comparison"]["reference"]
        rows = []
        for name, metrics in judged["models"].items():
            about = one["about"][name]
            test = judged["comparison"]["agreement"].get(name, {}).get("mcnemar") or {}
            rows.append(
                [
                    name,
                    *(shown(metrics["figures"][key]) for key in FIGURES),
                    f"{test['p_by_patient']:.3f}" if test else "–",
                    f"{about['epsilon']:.2f}" if "epsilon" in about else "–",
                    f"{about['seconds']:.1f}",
                ]
            )
        sizes = "; ".join(
            f"{s}: {v['scans']['train']} training and {v['scans']['val']} validation scans, "
            f"{v['patients']} training patients"
            for s, v in one["sites"].items()
        )
        titles = ["model", "accuracy", "balanced accuracy", "MCC", "AUC", f"p against {reference}"]
        text += (
            f"\n## {title}\n\n{sizes}. {m['cpu']}, {m['cores']} cores, Python {m['python']}, commit "
            f"{m['commit']}, a load of {m['load_at_start']:.1f} when it ended; all sites in one process, one "
            "after the other: seconds are of all together.\n\n"
            + table([*titles, "epsilon", "seconds"], rows)
            + "\n"
        )
    return text + NOTES


NOTES = """
* *p* is McNemar's test with whole patients as units (exact); it is not corrected for the number of models.
* *epsilon* is per training patient at delta 1e-4, of all that leaves the sites, moments included: noise is
  shared by three sites and hidden by the secure sum; heads take 30 steps, each patient in one with
  probability 0.2.
* The private network is small and starts from random weights: exact noise is drawn for every parameter, at
  every site, in every step, which takes longer than the gradients where there are millions. It takes 30
  steps, each patient in one with probability 0.5; the rows without privacy take eight passes with momentum.
  Network and rate were chosen on validation scans, which epsilon does not count.
* *blind federation*: four rounds; each site's step runs on ciphertexts at a server in another process, at
  128-bit security. *blind steps in clear* are the same steps without encryption.
* With three sites a secure sum needs all three.
* ResNet-18 starts from random weights: there are no pretrained ones here; its rows show the mechanism, not
  what the network can do. DeiT-tiny starts from ImageNet.
* Test intervals overlap widely with 310 scans: read differences by their p.
"""


def shown(figure: Mapping[str, Any]) -> str:
    """A figure and its interval."""
    return f"{figure['value']:.3f} ({figure['low']:.3f}–{figure['high']:.3f})"


def readme(results: Mapping[str, Any]) -> str:
    """The heads' rows for the README."""
    judged = results["heads"]["judged"]["models"]
    rows = [
        [name, *(shown(m["figures"][k]) for k in ("accuracy", "mcc", "roc_auc"))]
        for name, m in judged.items()
    ]
    return table(["heads on frozen DeiT-tiny features", "accuracy", "MCC", "AUC"], rows)


def write(results: Mapping[str, Any]) -> None:
    """The page and the README's table."""
    PAGE.write_text(render(results))
    path = ROOT / "README.md"
    before, rest = path.read_text().split(START_MARK)
    path.write_text(f"{before}{START_MARK}\n{readme(results)}\n{END_MARK}{rest.split(END_MARK)[1]}")
