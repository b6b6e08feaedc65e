"""Curves over the rounds of federated runs, as inline SVG in the manner of :mod:`.plots`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _svg
from ._format import shortened
from .course import Course

#: Curve → (what the axis says, its lower and upper limit where they are fixed).
AXES: dict[str, tuple[str, float | None, float | None]] = {
    "loss": ("Mean loss on validation", 0.0, None),
    "accuracy": ("Accuracy on validation", 0.0, 1.0),
    "mcc": ("MCC on validation", None, 1.0),
    "auc": ("AUC on validation", None, 1.0),
    "sites": ("Sites in the sum", 0.0, None),
    "epsilon": ("Epsilon spent", 0.0, None),
}
#: These are of a whole round; the others are of the model that a round begins with.
_AFTER = frozenset({"sites", "epsilon"})
_WIDTH, _HEIGHT, _LEFT, _ABOVE = 3.5, 2.1, 0.65, 0.12


def course(courses: Mapping[str, Course], curve: str, *, prefix: str = "course") -> str:
    """One curve of every run that has it, over the rounds.

    Args:
        courses: run → course; the order gives the colours.
        curve: a key of :data:`AXES`.
        prefix: makes ids unique in the page.
    """
    lines = {
        name: (np.array([r.number for r in one.rounds]), one.curves[curve])
        for name, one in courses.items()
        if not np.isnan(one.curves[curve]).all()
    }
    label, low, high = AXES[curve]
    # Colour and style stay a run's own where another has no such curve.
    looks = {
        name: {"color": _svg.SERIES[at % len(_svg.SERIES)], "ls": _svg.STYLES[at % len(_svg.STYLES)]}
        for at, name in enumerate(courses)
    }
    below = 0.52 + (0.205 * len(lines) if len(courses) > 1 else 0.0)
    width, height = _LEFT + _WIDTH + 0.12, below + _HEIGHT + _ABOVE

    def draw(figure: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.add_axes((_LEFT / width, below / height, _WIDTH / width, _HEIGHT / height))
        axes.grid(lw=0.8)
        axes.tick_params(length=0, pad=5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if curve == "sites":
            axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        marked = (
            {"marker": "o", "markersize": 3} if max(map(len, (x for x, _ in lines.values()))) < 30 else {}
        )
        handles = []
        for name, (x, y) in lines.items():
            handles += axes.plot(x + (curve in _AFTER), y, lw=1.6, **looks[name], **marked)
        top = max(float(np.nanmax(y)) for _, y in lines.values())
        axes.set_ylim(low, high if high is not None else 1.08 * top or 1.0)
        axes.set_xlabel("Rounds done")
        axes.set_ylabel(label)
        if len(courses) > 1:
            labels = [_svg.label(shortened(name, 44)) for name in lines]
            figure.legend(handles, labels, loc="lower left", bbox_to_anchor=(0.02, 0.0), borderaxespad=0.2)

    ends = "; ".join(
        f"{name}: {y[known][0]:.3g} at first, {y[known][-1]:.3g} at last"
        for name, (_, y) in lines.items()
        for known in [~np.isnan(y)]
    )
    return _svg.render(draw, (width, height), title=f"{label} by round", description=ends, prefix=prefix)


def shown(courses: Mapping[str, Course]) -> list[str]:
    """The curves that at least one run has."""
    return [key for key in AXES if any(not np.isnan(one.curves[key]).all() for one in courses.values())]
