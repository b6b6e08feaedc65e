"""One matplotlib drawing → one SVG string that takes its colours from the page around it.

Drawings use the placeholder colours below; the finished SVG names CSS variables in their place, so
that one drawing is legible on light and on dark paper. Each variable has a mid-tone to fall back on.
"""

from __future__ import annotations

import html
import io
import re
import threading
import warnings
from collections.abc import Callable
from typing import Any

INK, MUTED, GRID, ACCENT = "#010101", "#020202", "#030303", "#040404"
#: Okabe and Ito's colours (2008), told apart with any colour vision; their order is by contrast.
SERIES = ("#050501", "#050502", "#050503", "#050504", "#050505", "#050506")
#: Lines of several series differ in more than their colour.
STYLES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))

_VARIABLES = {
    INK: "var(--ink, #777)",
    MUTED: "var(--muted, #888)",
    GRID: "var(--grid, #8884)",
    ACCENT: "var(--accent, #0072b2)",
    **{
        placeholder: f"var(--series-{number}, {colour})"
        for number, (placeholder, colour) in enumerate(
            zip(SERIES, ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9"), strict=True), 1
        )
    },
}

_SETTINGS = {
    # Text stays text: it can be searched, read aloud and set in the page's own font.
    "svg.fonttype": "none",
    # A class named "$" or "_a" is a name, not a formula.
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
}
#: matplotlib's settings are one per process, so drawings take turns.
_TURN = threading.Lock()


def label(text: str) -> str:
    """A name for a legend: one that starts with an underscore would be left out, so a joiner goes first."""
    return "\u2060" + text


def render(
    draw: Callable[[Any], None],
    size: tuple[float, float],
    *,
    title: str,
    description: str,
    prefix: str,
) -> str:
    """Draw on a fresh figure and return an ``<svg role="img">``.

    Args:
        draw: gets a ``matplotlib.figure.Figure`` with a transparent background.
        size: inches, width and height.
        title: read out by screen readers and shown on hover.
        description: what the picture shows, in a sentence; read out after the title.
        prefix: makes ids unique in a page of several drawings; letters, digits and hyphens.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with _TURN, matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": prefix}), warnings.catch_warnings():
        # The browser has glyphs that matplotlib's own font lacks, and nothing is drawn with that font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        draw(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_the_page(buffer.getvalue(), title, description, prefix)


def _for_the_page(svg: str, title: str, description: str, prefix: str) -> str:
    svg = svg[svg.index("<svg") :]
    # The style element would reach the whole page, the metadata names outside addresses.
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href=", "href=")
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg))
    names = {name for pair in used for name in pair if name}
    svg = re.sub(
        r' id="([^"]*)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in names else "", svg
    )
    svg = svg.replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", svg)
    for placeholder, variable in _VARIABLES.items():
        svg = svg.replace(placeholder, variable)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert box is not None
    opening = (
        f'<svg class="plot" role="img" viewBox="{box[0][9:-1]}" style="width: {float(box[1]):.0f}pt" '
        f'aria-labelledby="{prefix}-title {prefix}-desc">'
        f'<title id="{prefix}-title">{html.escape(title)}</title>'
        f'<desc id="{prefix}-desc">{html.escape(description)}</desc>'
    )
    return opening + svg[svg.index(">") + 1 :].strip()
