"""The scaling curves as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

AXES = {"rows": "training rows", "features": "columns", "classes": "classes", "cores": "threads"}
FIELDS = {"rows": "rows", "features": "columns", "classes": "classes", "cores": "cores"}


def draw(cases: dict[str, dict[str, Any]], target: Path) -> list[tuple[str, Path]]:
    """One plot a curve: title and file."""
    import matplotlib

    matplotlib.use("svg")
    # Files that do not change when nothing else does.
    matplotlib.rcParams.update({"svg.hashsalt": "blindtune", "svg.fonttype": "none", "font.size": 10})
    from matplotlib import pyplot, ticker

    found = []
    for curve, label in AXES.items():
        own = sorted(
            (r[FIELDS[curve]], r["timing"]["seconds_training"], r["timing"]["peak_bytes"] / 1e9)
            for name, r in cases.items()
            if name.startswith(curve + "-")
        )
        if len(own) < 2:
            continue
        x, seconds, memory = zip(*own, strict=True)
        figure, axis = pyplot.subplots(figsize=(4.6, 3.0), layout="constrained")
        axis.plot(x, seconds, marker="o", color="#0b5fa5", label="training, s")
        axis.set(xlabel=label, ylabel="training, s", ylim=(0, None), xlim=(0, None))
        axis.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
        axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        axis.grid(alpha=0.25)
        if curve != "cores":
            other = axis.twinx()
            other.plot(x, memory, marker="s", linestyle="--", color="#b3541e", label="memory, GB")
            other.set(ylabel="peak memory, GB (dashed)", ylim=(0, None))
        else:
            axis.plot(x, [seconds[0] / n for n in x], linestyle=":", color="#555555", label="ideal")
            axis.legend()
        path = target / f"{curve}.svg"
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
        found.append((f"Training time by {label}", path))
    return found
