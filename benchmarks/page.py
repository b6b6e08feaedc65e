"""``docs/benchmarks.md`` from ``template.md`` and what was measured: every figure comes from ``results``."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.cases import CLEAR, CONVERGED, ENCRYPTED, HETAL, SIZES, START
from benchmarks.commands import ROOT, kept
from benchmarks.peers.render import render as peers_section
from benchmarks.plots import draw
from blindtune.kernels.machine import SWITCHES

PAGE = ROOT / "docs" / "benchmarks.md"
README, FIGURES, END = ROOT / "README.md", "<!-- figures: make bench -->", "<!-- end of figures -->"
TEMPLATE = ROOT / "benchmarks" / "template.md"
PLOTS = ROOT / "docs" / "benchmarks"

CORES = os.cpu_count() or 1

NAMES = {
    "pneumoniamnist": "PneumoniaMNIST",
    "xrays": "paediatric chest X-rays",
    "mnist-192-real": "MNIST, 52,500 images",
}
"""Cases on real data, as the README calls them."""

Cases = dict[str, dict[str, Any]]
Cell = Callable[[str, dict[str, Any]], str]

SIZE: dict[str, Cell] = {
    "rows": lambda n, r: f"{r['rows']:,}",
    "columns": lambda n, r: str(r["columns"]),
    "classes": lambda n, r: str(r["classes"]),
}
SPENT: dict[str, Cell] = {
    "data_MB": lambda n, r: f"{r['bytes']['data'] / 1e6:.0f}",
    "keys_MB": lambda n, r: f"{r['bytes']['keys'] / 1e6:.0f}",
    "memory_GB": lambda n, r: f"{r['timing']['peak_bytes'] / 1e9:.2f}",
    "weight_error": lambda n, r: f"{100 * r['deviation']:.3f} %",
}
"""Columns that several tables have."""


def write_page() -> None:
    """Write the page and its plots."""
    real, hetal, scaling = (kept(name).get("cases", {}) for name in ("real", "hetal", "scaling"))
    shown: Cases = {**real, **hetal}
    written = {
        "machines": machines(shown | scaling),
        "hetal": against_hetal(hetal),
        "accuracy": accuracy(shown),
        "cost": cost(shown),
        "phases": phases(shown),
        "curves": curves(scaling),
        "speedups": speedups(scaling),
        "prediction": prediction(shown | scaling),
        "kernels": kernels(),
        "peers": peers(),
    }
    text = TEMPLATE.read_text()
    for name, section in written.items():
        text = text.replace(f"<!-- {name} -->", section.strip())
    PAGE.write_text(text)
    if shown:
        before, rest = README.read_text().split(FIGURES, 1)
        _, after = rest.split(END, 1)
        README.write_text(f"{before}{FIGURES}\n{summary(shown)}\n{END}{after}")


def table(heads: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def columns(cases: Cases, **cells: Cell) -> str:
    """A table with a row for each case."""
    if not cases:
        return "Not measured yet."
    heads = ["case", *(name.replace("_", " ") for name in cells)]
    return table(heads, ([name, *(cell(name, r) for cell in cells.values())] for name, r in cases.items()))


def training(r: dict[str, Any]) -> float:
    """Seconds of training, of the quickest run."""
    return float(r["timing"]["seconds_training"])


def heads_of(r: dict[str, Any], head: str) -> str:
    """A head's test accuracy."""
    found = r["heads"].get(head)
    return f"{found['accuracy']:.4f}" if found else "–"


def gap(r: dict[str, Any]) -> str:
    """Points between the encrypted and the converged head."""
    return f"{100 * (r['heads'][ENCRYPTED]['accuracy'] - r['heads'][CONVERGED]['accuracy']):+.2f}"


def security(r: dict[str, Any]) -> str:
    """Security, ring and modulus."""
    p = r["parameters"]
    bits = sum(q.bit_length() for q in p["primes"])
    return f"{p['security']} bit, 2^{p['ring_degree'].bit_length() - 1}, ≤ {bits} bit"


def against_hetal(cases: Cases) -> str:
    """Training times beside the published ones."""

    def published(name: str) -> int:
        return HETAL[name.split("-")[0]]

    def ratio(name: str, r: dict[str, Any]) -> str:
        return f"{published(name) / training(r):.0f}×"

    ordered = {n: cases[n] for problem in SIZES for n in cases if n.split("-")[0] == problem}
    return columns(
        ordered,
        **SIZE,
        features=lambda n, r: "synthetic" if r["synthetic"] else "real",
        security=lambda n, r: security(r),
        train_s=lambda n, r: f"{training(r):.2f}",
        HETAL_s_quoted=lambda n, r: f"{published(n):,}",
        ratio=ratio,
        encrypted=lambda n, r: heads_of(r, ENCRYPTED),
        same_steps_in_clear=lambda n, r: heads_of(r, CLEAR),
        converged_plaintext=lambda n, r: heads_of(r, CONVERGED),
        points=lambda n, r: gap(r),
    )


def summary(cases: Cases) -> str:
    """The README's table: the cases on real data."""
    return columns(
        {NAMES[n]: r for n, r in cases.items() if n in NAMES},
        training_rows=lambda n, r: f"{r['rows']:,}",
        classes=lambda n, r: str(r["classes"]),
        server_trains=lambda n, r: f"{training(r):.1f} s",
        server_memory=lambda n, r: f"{r['timing']['peak_bytes'] / 1e9:.1f} GB",
        upload=lambda n, r: f"{r['bytes']['data'] / 1e6:.0f} + {r['bytes']['keys'] / 1e6:.0f} MB",
        clear_start=lambda n, r: heads_of(r, START),
        encrypted=lambda n, r: heads_of(r, ENCRYPTED),
        same_steps_in_clear=lambda n, r: heads_of(r, CLEAR),
        converged_plaintext=lambda n, r: heads_of(r, CONVERGED),
    )


def accuracy(cases: Cases) -> str:
    """Every head's figures."""
    rows = []
    for name, r in cases.items():
        found = [r["heads"].get(h) for h in (START, ENCRYPTED, CLEAR, CONVERGED)]
        for key, label in (("accuracy", "accuracy"), ("roc_auc", "ROC-AUC"), ("mcc", "MCC")):
            values = [f"{f[key]:.4f}" if f and f.get(key) is not None else "–" for f in found]
            rows.append([name, "synthetic" if r["synthetic"] else "real", label, *values])
    heads = ["case", "features", "figure", "start, in clear", "encrypted", "same steps in clear", "converged"]
    return table(heads, rows) if rows else "Not measured yet."


def cost(cases: Cases) -> str:
    """Seconds, bytes, memory, and how flat the profile is."""
    return columns(
        cases,
        train_s=lambda n, r: f"{training(r):.2f}",
        each_run=lambda n, r: ", ".join(f"{s:.2f}" for s in r["seconds_training_of_each_run"]),
        in_engine_calls=lambda n, r: f"{100 * r['timing']['seconds_operations'] / training(r):.0f} %",
        rehearsal_s=lambda n, r: f"{r['encrypt']['seconds']['rehearsal']:.1f}",
        encryption_s=lambda n, r: f"{r['encrypt']['seconds']['encryption']:.1f}",
        upload_s=lambda n, r: f"{r['seconds_submit']:.1f}",
        load_s=lambda n, r: f"{r['timing']['seconds_loading']:.1f}",
        **SPENT,
    )


def phases(cases: Cases) -> str:
    """Seconds of every step's phases, and of the operations."""
    rows = []
    for name, r in cases.items():
        for step in range(1, r["program"]["steps"] + 1):
            own = {p["phase"]: p["seconds"] for p in r["timing"]["phases"] if p["step"] == step}
            seconds = [f"{own.get(p, 0):.2f}" for p in ("forward", "residual", "backward", "update")]
            rows.append([name, str(step), *seconds])
    operations = []
    for name, r in cases.items():
        total: dict[str, list[float]] = {}
        for row in r["timing"]["operations"]:
            entry = total.setdefault(row["name"], [0, 0, 0.0])
            for k, key in enumerate(("count", "calls", "seconds")):
                entry[k] += row[key]
        told = [
            f"{operation} {int(n)} in {int(c)} calls: {s:.2f} s"
            for operation, (n, c, s) in sorted(total.items(), key=lambda x: -x[1][2])
            if s >= 0.005
        ]
        operations.append([name, "; ".join(told)])
    if not rows:
        return "Not measured yet."
    heads = ["case", "step", "forward product s", "residual polynomial s", "backward product s", "update s"]
    return table(heads, rows) + "\n\n" + table(["case", "operations"], operations)


def curves(cases: Cases) -> str:
    """Plots and their table."""
    if not cases:
        return "Not measured yet."
    PLOTS.mkdir(exist_ok=True)
    images = [f"![{title}](benchmarks/{file.name})" for title, file in draw(cases, PLOTS)]
    return (
        "\n".join(images)
        + "\n\n"
        + columns(
            cases,
            **SIZE,
            cores=lambda n, r: str(r["cores"]),
            train_s=lambda n, r: f"{training(r):.2f}",
            key_switches=lambda n, r: f"{switches(r):,}",
            products=lambda n, r: f"{counted(r, 'multiply'):,}",
            **SPENT,
        )
    )


def counted(r: dict[str, Any], operation: str) -> int:
    """How many ciphertexts an operation was done on."""
    return sum(row["count"] for row in r["timing"]["operations"] if row["name"] == operation)


def switches(r: dict[str, Any]) -> int:
    """Key switches; a rotation onto an unrelinearised sum does two."""
    return counted(r, "rotate") + counted(r, "relinearise") + 2 * counted(r, "rotate_relinearise")


def prediction(cases: Cases) -> str:
    """Predicted seconds, by the calibration before the case's group, beside measured ones."""

    def median(r: dict[str, Any]) -> float:
        return statistics.median(r["seconds_training_of_each_run"])

    def predicted(r: dict[str, Any]) -> float:
        return float(r["timing"]["seconds_predicted"])

    return columns(
        {n: r for n, r in cases.items() if r["cores"] == r["machine"]["cores"]},
        predicted_s=lambda n, r: f"{predicted(r):.2f}",
        measured_s=lambda n, r: f"{training(r):.2f}",
        off_by=lambda n, r: f"{100 * (predicted(r) / training(r) - 1):+.0f} %",
        median_of_runs_s=lambda n, r: f"{median(r):.2f}",
        off_by_the_median=lambda n, r: f"{100 * (predicted(r) / median(r) - 1):+.0f} %",
    )


def speedups(cases: Cases) -> str:
    """One thread against all, by kind of operation, and what the machine's cores can do at all."""
    pairs = {
        "PneumoniaMNIST, one head": ("cores-1", f"cores-{CORES}"),
        "7,007 x 256, seven heads": ("seven-heads-on-1", f"seven-heads-on-{CORES}"),
    }
    found = {n: (cases[a], cases[b]) for n, (a, b) in pairs.items() if a in cases and b in cases}
    ceiling = kept("machine").get("ceiling")
    if not found or not ceiling:
        return "Not measured yet."

    def ratio(name: str, *operations: str) -> str:
        one, all_ = (
            sum(x["seconds"] for x in r["timing"]["operations"] if x["name"] in operations)
            for r in found[name]
        )
        return f"{one / all_:.2f}"

    rows = [
        [name, f"{training(one) / training(all_):.2f}", ratio(name, *SWITCHES), ratio(name, "multiply")]
        for name, (one, all_) in found.items()
    ]
    bounds = "; ".join(f"{name} {', '.join(f'{x:.2f}' for x in values)}" for name, values in ceiling.items())
    return (
        table(["case", "training", "key switches", "products"], rows)
        + f"\n\nThe machine itself, {CORES} processes against one, round by round: {bounds}."
    )


def machines(cases: Cases) -> str:
    """Where the cases were measured."""
    told: dict[str, list[str]] = {}
    for name, r in cases.items():
        m = r["machine"]
        packages = ", ".join(f"{k} {v}" for k, v in m["packages"].items())
        line = (
            f"{m['cpu']}, {m['cores']} virtual cores, {m['memory_gib']} GiB, "
            f"AVX-512 IFMA {'yes' if m['ifma'] else 'no'}, Python {m['python']}, {packages}, "
            f"commit {m['commit']}"
        )
        told.setdefault(line, []).append(name)
    lines = [
        f"{line}: {'all cases' if len(told) == 1 else ', '.join(names)}." for line, names in told.items()
    ]
    return "Measured on:\n\n" + "\n".join(f"* {line}" for line in lines) if lines else ""


def kernels() -> str:
    """Operations of the engines beside each other, from ``kernels.json``."""
    found = kept("kernels")
    if not found:
        return "Not measured yet."
    from benchmarks.kernels import render

    return render(found)


def peers() -> str:
    """The peers' own section."""
    found = kept("peers")
    return peers_section(found) if found else "Not measured yet."
