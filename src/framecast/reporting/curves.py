"""Curves as SVG: scores per lead time and training curves."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

COLOURS = ("#d6601c", "#20639b", "#3caea3", "#8e44ad", "#c0392b", "#7f8c8d")
# Muted lines: colour and dashes, told apart without colour.
MUTED = (("#9aa0a6", "--"), ("#9aa0a6", ":"), ("#b9bec4", "-."), ("#4d5561", "-"))

Line = tuple[Sequence[float], Sequence[float]]


def draw_curves(
    lines: Mapping[str, Line],
    *,
    title: str,
    across: str,
    up: str,
    muted: Sequence[str] = (),
    log: bool = False,
    bands: Mapping[str, Sequence[Sequence[float]]] | None = None,
) -> str:
    """Return an SVG of named lines (x, y); the muted ones are grey and dashed, ``bands`` are shaded (low, high)."""
    # Figure and canvas by hand: pyplot would keep global state and pick a screen.
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    FigureCanvasSVG(figure)
    axes: Any = figure.add_subplot()
    styles = iter(COLOURS * (1 + len(lines) // len(COLOURS)))
    greys = iter(MUTED * (1 + len(lines) // len(MUTED)))
    for name, (x, y) in lines.items():
        if name in muted:
            style: dict[str, Any] = dict(zip(("color", "linestyle"), next(greys), strict=True))
        else:
            style = {"color": next(styles), "linewidth": 2}
        axes.plot(x, y, label=name, marker="o" if len(x) < 25 else None, markersize=3, **style)
        if bands and name in bands:
            axes.fill_between(x, *bands[name], color=style["color"], alpha=0.15, linewidth=0)
    axes.set(title=title, xlabel=across, ylabel=up)
    if log:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if lines:
        axes.legend(frameon=False, fontsize=8)
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    svg = content.getvalue()
    # Embedded in one page with others, identifiers of two figures must not meet.
    tag = re.sub(r"\W+", "-", title.lower())
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{tag}-", svg[svg.index("<svg") :])
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
