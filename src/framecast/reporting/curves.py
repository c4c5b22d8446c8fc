"""Curves: scores per lead time and training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from framecast.reporting.figures import COLOURS, Drawing, new_figure, rendered

# Lines beyond the colours are told apart by dashes.
DASHES = ("-", "--", ":")
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
) -> Drawing:
    """Draw named lines (x, y); the muted ones are grey and dashed, ``bands`` are shaded (low, high)."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(5.2, 3.4 + 0.17 * math.ceil(len(lines) / 3))
    axes: Any = figure.add_subplot()
    styles = cycle((colour, dashes) for dashes in DASHES for colour in COLOURS)
    greys = iter(MUTED * (1 + len(lines) // len(MUTED)))
    for name, (x, y) in lines.items():
        if name in muted:
            style: dict[str, Any] = dict(zip(("color", "linestyle"), next(greys), strict=True))
        else:
            colour, dashes = next(styles)
            style = {"color": colour, "linestyle": dashes, "linewidth": 2}
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
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return rendered(figure, title)
