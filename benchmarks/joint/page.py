"""The page of joint keys, its figure, and the README's table, from what was measured."""

from __future__ import annotations

from typing import Any

from benchmarks.commands import ROOT
from benchmarks.joint.heads import AVERAGE, CLEAR, ENCRYPTED, MANY_STEPS, RESAMPLES, SAME_STEPS, own
from benchmarks.page import table
from blindtune.federation.threshold.transcript import STAGES

PAGE, README, FIGURE = ROOT / "docs" / "joint-keys.md", ROOT / "README.md", ROOT / "docs" / "joint-keys.svg"
BEGIN, END = "<!-- measured: python -m benchmarks.jointkeys -->", "<!-- end of what was measured -->"
"""In both files."""

PHASES = {"keys": "key generation", "moments": "moments", "encrypt": "rows", "open": "opening"}


def write(found: dict[str, Any]) -> None:
    """Write the page's and the README's sections, and draw the figure."""
    draw(found["areas"])
    for path, text in ((PAGE, section(found)), (README, summary(found))):
        before, _, rest = path.read_text().partition(BEGIN)
        path.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{rest.partition(END)[2]}")


def section(found: dict[str, Any]) -> str:
    """The page's section."""
    names, areas = list(found["rows"]), found["areas"]
    rows = [
        [
            name,
            shown(a["val"]),
            shown(a["test"]),
            shown(a["test"]["gain"], "+.4f") if "gain" in a["test"] else "–",
        ]
        for name, a in areas.items()
    ]
    hospitals = [found["roles"][name] for name in names]
    spent = {phase: max(role["phases"][phase]["processor"] for role in hospitals) for phase in PHASES}
    sent = {stage: told["bytes"] for stage, told in found["messages"].items()}
    bytes_ = {
        "keys": sum(sent[stage] for stage in STAGES),
        "moments": sent["sum"],
        "encrypt": max(role["upload"] for role in hospitals),
        "open": sent["consent"] + sent["share"],
    }
    phases = [[n, f"{spent[p]:.1f}", f"{bytes_[p] / 1e6:.3g}"] for p, n in PHASES.items()]
    without = [
        [
            f"{name}'s share",
            f"{found['attack']['largest_value_without'][name]:.0f}",
            f"{found['attack']['correlation_without'][name]:+.2f}",
        ]
        for name in names
    ]
    m, server, attacked = found["machine"], found["roles"]["server"], found["attack"]
    rehearsed = found["seconds"]["rehearsal"]
    return f"""
Written by `python -m benchmarks.jointkeys` on {m["cpu"]}, {m["cores"]} cores, with a load of
{m["load_at_start"]:.1f} at the start, commit {m["commit"]}. Hospitals with Python {m["python"]} and OpenFHE
{m["openfhe"]}, the server with Python {server["python"]} and {server["engine"]}.

{" / ".join(str(sum(counts)) for counts in found["rows"].values())} training rows at {len(names)} hospitals
({"; ".join(f"{n}: {', '.join(map(str, c))}" for n, c in found["rows"].items())} of
{", ".join(found["classes"])}), ring degree {found["ring_degree"]:,}, {found["modulus_bits"]:g} bits,
{found["statistical_bits"]} bits of smudging. Mean area under the curve, each class against the rest, on
{found["held"]["val"]} validation and {found["held"]["test"]} test scans; intervals are 95 %, by patient, from
{RESAMPLES:,} resampled sets. The gain is the encrypted pooled head's over the row's, on the same resampled
patients.

{table(["head", "validation", "test", "gain on the test scans"], rows)}

![Area under the curve of all heads](joint-keys.svg)

Federated averaging with one step a round makes the very steps of the pooled head, in clear at each hospital,
which has to be there in every round. Under a joint key a hospital encrypts once and computes no gradients.

What a hospital spends, in processor seconds of one core, and sends:

{table(["phase", "seconds", "MB"], phases)}

The server adds the keys up in {server["phases"]["keys"]["processor"]:.0f} processor seconds and loads and
trains in {server["phases"]["train"]["processor"]:.0f}, with {server["memory_gib"]:.1f} GiB; a hospital takes
{max(role["memory_gib"] for role in hospitals):.1f} GiB. {_rehearsal(rehearsed)}

After the study all directories but one hospital's were put together, and the result was decrypted with what
lies there; the head's own values are up to {attacked["largest_value_opened_by_all"]:.1f}.

{table(["without", "largest value", "correlation with the head"], without)}

Every file of every directory was searched for the shares, as words, as blobs pack them and as coefficients:
each lies in its owner's `secret-share`{_elsewhere(attacked)}.
"""


def summary(found: dict[str, Any]) -> str:
    """The README's table and figure."""
    areas = found["areas"]
    rows = [[name, shown(a["val"], ".3f"), shown(a["test"], ".3f")] for name, a in areas.items()]
    heads = ["one-vs-rest heads on frozen DeiT-tiny features", "AUC, validation", "AUC, test"]
    gains = [f"{shown(areas[own(name)]['test']['gain'], '+.3f')} over {name}'s" for name in found["rows"]]
    return f"""
{table(heads, rows)}

Pooling gains {", ".join(gains[:-1])} and {gains[-1]} own head on the test scans (95 % intervals by patient).
Federated averaging with one step a round makes the same steps in clear, at hospitals that are there in every
round.

![Area under the curve of all heads](docs/joint-keys.svg)"""


def shown(figure: dict[str, Any], form: str = ".4f") -> str:
    """A figure and its interval."""
    return f"{figure['value']:{form}} ({figure['low']:{form}} to {figure['high']:{form}})"


def _rehearsal(seconds: float | None) -> str:
    if seconds is None:
        return "The length of the result's error is that of an earlier run's rehearsal."
    return f"The rehearsal that measures the result's error took {seconds:.0f} s on the clock."


def _elsewhere(attacked: dict[str, Any]) -> str:
    own = {name: [f"{name}/private/secret-share"] for name in attacked["files_with_a_share"]}
    return (
        " alone" if attacked["files_with_a_share"] == own else f", and also: {attacked['files_with_a_share']}"
    )


def draw(areas: dict[str, Any]) -> None:
    """The figure: each head's area on the test scans with its interval, and on the validation scans."""
    import matplotlib

    matplotlib.use("svg")
    # Files that do not change when nothing else does.
    matplotlib.rcParams.update({"svg.hashsalt": "blindtune", "svg.fonttype": "none", "font.size": 10})
    from matplotlib import pyplot, ticker

    figure, axis = pyplot.subplots(figsize=(7.6, 3.6), layout="constrained")
    colours = {
        ENCRYPTED: "#0b5fa5",
        CLEAR: "#555555",
        AVERAGE: "#8a6d1d",
        SAME_STEPS: "#8a6d1d",
        MANY_STEPS: "#8a6d1d",
    }
    names = list(areas)
    for place, name in enumerate(reversed(names)):
        colour, test, val = colours.get(name, "#b3541e"), areas[name]["test"], areas[name]["val"]
        axis.plot([test["low"], test["high"]], [place, place], color=colour, alpha=0.45, linewidth=2)
        axis.plot(test["value"], place, marker="o", color=colour)
        axis.plot(val["value"], place, marker="o", color=colour, markerfacecolor="white")
    axis.set_yticks(range(len(names)), reversed(names))
    axis.axvline(areas[ENCRYPTED]["test"]["value"], color=colours[ENCRYPTED], linestyle=":", linewidth=1)
    axis.set(xlabel="AUC: test (filled, 95 %) and validation (open)")
    axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:.2f}"))
    axis.grid(axis="x", alpha=0.25)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0)
    figure.patch.set_facecolor("white")
    figure.savefig(FIGURE, metadata={"Date": None})
    pyplot.close(figure)
