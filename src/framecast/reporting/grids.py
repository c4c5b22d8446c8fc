"""Grids of pictures: named rows of frames over time, one panel or several, as one figure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.reporting.figures import DOTS_PER_INCH, Drawing, new_figure, rendered
from framecast.reporting.frames import Picture

GAP = 2
LEAST_INCHES, MOST_INCHES, CHARACTERS_PER_INCH, LEGEND_INCHES = 0.52, 0.9, 14, 0.95
Row = Sequence[Picture | None]


def draw_grid(
    panels: Mapping[str, Mapping[str, Row]],
    columns: Sequence[str],
    title: str,
    *,
    across: int = 1,
    legend: Sequence[tuple[str, str]] = (),
    unit: str = "",
) -> Drawing:
    """Draw panels of rows of pictures.

    Args:
        panels: title of a panel -> label of a row -> pictures (h, w, 3), None for an empty place; smaller ones are
            enlarged to the largest.
        columns: a label for each place in a row.
        title: of the figure.
        across: panels side by side.
        legend: colours and what they stand for.
        unit: of the legend.
    """
    from matplotlib.patches import Patch

    tall = max(len(rows) for rows in panels.values())
    across = min(across, len(panels))
    down = math.ceil(len(panels) / across)
    shapes = [p.shape for rows in panels.values() for row in rows.values() for p in row if p is not None]
    height, width = max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)
    cell = min(max(LEAST_INCHES, width / DOTS_PER_INCH), MOST_INCHES)
    inches = across * (1.0 + cell * len(columns))
    lines = textwrap.fill(title, int(inches * CHARACTERS_PER_INCH))
    panel = 0.4 + cell * height / width * tall
    entries = max(1, int(inches / LEGEND_INCHES))
    below = 0.15 * (1 + -(-len(legend) // entries)) if legend else 0
    figure = new_figure(inches, 0.3 + 0.15 * lines.count("\n") + down * panel + below)
    figure.suptitle(lines, fontsize=10)
    for number, (name, rows) in enumerate(panels.items()):
        axes: Any = figure.add_subplot(down, across, number + 1)
        axes.imshow(_sheet(list(rows.values()), len(columns), height, width), interpolation="nearest")
        axes.set_xticks([(place + 0.5) * (width + GAP) for place in range(len(columns))], columns, fontsize=7)
        axes.set_yticks([(place + 0.5) * (height + GAP) for place in range(len(rows))], list(rows), fontsize=7)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if name:
            axes.set_title(name, fontsize=10)
    if legend:
        handles = [Patch(facecolor=colour, edgecolor="#8a8f98", label=label) for colour, label in legend]
        figure.legend(handles=handles, loc="outside lower center", ncols=entries, title=unit, frameon=False, fontsize=7)
    return rendered(figure, title)


def _sheet(rows: Sequence[Row], columns: int, height: int, width: int) -> Picture:
    sheet = np.full((len(rows) * (height + GAP), columns * (width + GAP), 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            if picture is not None:
                large = picture.repeat(height // picture.shape[0], 0).repeat(width // picture.shape[1], 1)
                top, left = y * (height + GAP), x * (width + GAP)
                sheet[top : top + large.shape[0], left : left + large.shape[1]] = large
    return sheet


def shades(maps: NDArray[Any], border: float = 0.0) -> list[Picture]:
    """Turn maps (N, h, w) into grey pictures, each from its own darkest to its brightest value.

    Args:
        maps: values.
        border: share of the height and width at each edge whose values do not set the scale.
    """
    top, left = (int(border * side) for side in maps.shape[1:])
    inside = maps[:, top : maps.shape[1] - top, left : maps.shape[2] - left]
    low, high = inside.min((1, 2), keepdims=True), inside.max((1, 2), keepdims=True)
    grey = (np.clip((maps - low) / np.where(high > low, high - low, 1), 0, 1) * 255).round().astype(np.uint8)
    return [np.repeat(one[..., None], 3, 2) for one in grey]
