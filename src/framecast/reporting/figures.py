"""Figures as SVG and PNG: curves, grids of pictures, radar charts, receptive fields and outputs of layers.

They are made without a screen, and embedded in a page or written beside it.
"""

from __future__ import annotations

import html
import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framecast.errors import OptionError
from framecast.files import write_atomically
from framecast.reporting.pictures import Picture, to_picture
from framecast.reporting.results import Results, number_text, score_infos

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#d6601c", "#20639b", "#3caea3", "#8e44ad", "#c0392b", "#7f8c8d")
DOTS_PER_INCH = 150


class Drawing:
    """A figure in two forms, each made when it is first asked for.

    Args:
        figure: what is drawn.
        title: names it for those who cannot see it.
    """

    def __init__(self, figure: Figure, title: str) -> None:
        self.figure, self.title = figure, title

    @cached_property
    def svg(self) -> str:
        """An <svg> element to embed; words are text, a third of the size of outlines, and equal figures equal files."""
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        name, vector = file_name(self.title), io.StringIO()
        FigureCanvasSVG(self.figure)
        lean: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "font.sans-serif": ["DejaVu Sans"]}
        with rc_context(lean):
            self.figure.savefig(vector, format="svg", metadata={"Date": None})
        svg = re.sub(r"\n\s+", "\n", vector.getvalue())
        # Embedded in one page with others, identifiers of two figures must not meet.
        svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg[svg.index("<svg") :])
        return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(self.title)}" ', 1)

    @cached_property
    def png(self) -> bytes:
        """A PNG."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        pixels = io.BytesIO()
        FigureCanvasAgg(self.figure)
        self.figure.savefig(pixels, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
        return pixels.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    # Figure by hand: pyplot would keep global state and pick a screen.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def file_name(title: str) -> str:
    """Return a title as the stem of a file: small letters, digits and hyphens."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def write_drawings(folder: Path, drawings: Mapping[str, Drawing]) -> list[Path]:
    """Write title.svg and title.png of each drawing into a folder and return their paths.

    Raises:
        OSError: the folder cannot be written.
    """
    paths = []
    for title, drawing in drawings.items():
        for suffix, content in (("svg", drawing.svg.encode()), ("png", drawing.png)):
            paths.append(folder / f"{file_name(title)}.{suffix}")
            write_atomically(paths[-1], content)
    return paths


# Lines beyond the colours are told apart by dashes.
DASHES = ("-", "--", ":")
# Muted lines: colour and dashes, told apart without colour.
MUTED = (("#9aa0a6", "--"), ("#9aa0a6", ":"), ("#b9bec4", "-."), ("#4d5561", "-"))

Line = tuple[Sequence[float], Sequence[float]]
LineStyle = tuple[str, str]
LEGEND_CHARACTERS, LEGEND_KEY = 74, 8
"""Letters of a legend's line in a figure of curves, and what a key beside its text takes of them."""
MINUTES = (1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 240, 360, 720, 1440)
MOST_TICKS = 7


def line_styles(names: Sequence[str]) -> dict[str, LineStyle]:
    """Return name -> colour and dashes, so that a run has one colour in all figures and tables of a page."""
    styles = cycle((colour, dashes) for dashes in DASHES for colour in COLOURS)
    return dict(zip(names, styles, strict=False))


def legend_columns(labels: Sequence[str]) -> int:
    """Return how many labels of a legend of a figure of curves stand side by side without being cut."""
    longest = max(map(len, labels), default=0) + LEGEND_KEY
    return max(1, min(3, LEGEND_CHARACTERS // longest))


def minute_step(span: float, least: float) -> float:
    """Return the minutes between ticks of an axis: a round number of them, and of steps of ``least`` minutes."""
    round_steps = [step for step in MINUTES if step % least == 0 and span / step <= MOST_TICKS]
    return round_steps[0] if round_steps else least * max(1, math.ceil(span / least / MOST_TICKS))


def draw_curves(
    lines: Mapping[str, Line],
    *,
    title: str,
    across: str,
    up: str,
    muted: Sequence[str] = (),
    log: bool = False,
    bands: Mapping[str, Sequence[Sequence[float]]] | None = None,
    styles: Mapping[str, LineStyle] | None = None,
    minutes: float | None = None,
    whole: bool = True,
) -> Drawing:
    """Draw named lines (x, y).

    Args:
        lines: by name.
        title: of the figure.
        across: what x is.
        up: what y is.
        muted: names of lines that are grey and dashed.
        log: whether y is logarithmic.
        bands: name -> shades (low, high).
        styles: of the others, see ``line_styles``; None gives them by their order.
        minutes: where x is in minutes, those between two frames.
        whole: whether x is told in whole numbers.
    """
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    labels = {name: textwrap.fill(name, LEGEND_CHARACTERS - LEGEND_KEY) for name in lines}
    columns = legend_columns([line for label in labels.values() for line in label.splitlines()])
    tallest = max((label.count("\n") + 1 for label in labels.values()), default=1)
    figure = new_figure(5.2, 3.4 + 0.17 * tallest * math.ceil(len(lines) / columns))
    axes: Any = figure.add_subplot()
    chosen = styles or line_styles([name for name in lines if name not in muted])
    greys = iter(MUTED * (1 + len(lines) // len(MUTED)))
    for name, (x, y) in lines.items():
        if name in muted:
            style: dict[str, Any] = dict(zip(("color", "linestyle"), next(greys), strict=True))
        else:
            colour, dashes = chosen[name]
            style = {"color": colour, "linestyle": dashes, "linewidth": 2}
        axes.plot(x, y, label=labels[name], marker="o" if len(x) < 25 else None, markersize=3, **style)
        if bands and name in bands:
            axes.fill_between(x, *bands[name], color=style["color"], alpha=0.15, linewidth=0)
    axes.set(title=title, xlabel=across, ylabel=up)
    if log:
        axes.set_yscale("log")
    last = max((max(x) for x, _ in lines.values() if len(x)), default=0)
    numbers = MaxNLocator(integer=whole)
    axes.xaxis.set_major_locator(MultipleLocator(minute_step(last, minutes)) if minutes and last else numbers)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if lines:
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    return Drawing(figure, title)


# Key in the results, its name, and what the number is divided by to be readable.
COSTS = (
    ("parameters", "parameters", 1e6, "M"),
    ("macs", "multiply-accumulates", 1e9, "G"),
    ("peak_bytes", "training memory", 1e9, "GB"),
    ("seconds_per_clip", "forecast time", 1e-3, "ms"),
)
TITLE = "Cost and score"


def radar_axes(results: Sequence[Results], score: str | None = None) -> dict[str, list[float]]:
    """Return axis -> one positive value of each run, greater is worse; what any run lacks is left out.

    Args:
        results: of the runs.
        score: the score of the last axis; None takes the first one.
    """
    axes = {}
    for key, label, divisor, unit in COSTS:
        values = [run.get(key) for run in results]
        if all(values):
            axes[f"{label} ({unit})"] = [float(value) / divisor for value in values if value]
    infos = score_infos(list(results))
    name = score or next(iter(infos))
    scores = [run["forecasts"][run["model"]]["mean"].get(name) for run in results]
    if infos[name]["best"] in ("low", "high") and all(value is not None and value > 0 for value in scores):
        low = infos[name]["best"] == "low"
        label = infos[name]["label"]
        axes[label if low else f"1 / {label}"] = [value if low else 1 / value for value in scores]
    return axes


def draw_radar(
    names: Sequence[str], axes: Mapping[str, Sequence[float]], styles: Mapping[str, LineStyle] | None = None
) -> Drawing:
    """Draw one polygon a name over three axes or more, each of positive values, as shares of the largest.

    Args:
        names: of the polygons.
        axes: name of an axis -> a value of each.
        styles: of the polygons, see ``line_styles``; None gives them by their order.

    Raises:
        ValueError: fewer than three axes.
    """
    if len(axes) < 3:
        raise OptionError(f"a radar chart needs at least three axes and got {list(axes)}: use a table")
    angles = [2 * math.pi * number / len(axes) for number in range(len(axes))]
    chosen, columns = styles or line_styles(names), legend_columns(names)
    figure = new_figure(6.4, 5 + 0.17 * math.ceil(len(names) / columns))
    plot: Any = figure.add_subplot(projection="polar")
    plot.set_theta_offset(math.pi / 2)
    plot.set_theta_direction(-1)
    for number, name in enumerate(names):
        shares = [values[number] / max(values) for values in axes.values()]
        colour, dashes = chosen[name]
        plot.plot([*angles, angles[0]], [*shares, shares[0]], color=colour, linestyle=dashes, linewidth=2, label=name)
        plot.fill(angles, shares, color=colour, alpha=0.07)
    names_of_axes = [f"{label}\nmost: {number_text(max(values), 3)}" for label, values in axes.items()]
    plot.set_xticks(angles, names_of_axes, fontsize=8)
    for angle, label in zip(angles, plot.get_xticklabels(), strict=True):
        # Away from the plot, on whichever side of it the axis ends.
        across = math.sin(angle)
        label.set_horizontalalignment("left" if across > 0.1 else "right" if across < -0.1 else "center")
    plot.set_ylim(0, 1.05)
    plot.set_yticks([0.25, 0.5, 0.75, 1], ["", "50 %", "", "100 %"], fontsize=7, color="#7f8c8d")
    plot.tick_params(axis="x", pad=6)
    plot.grid(alpha=0.3)
    plot.spines["polar"].set_visible(False)
    plot.set_title(f"{TITLE}: outwards is worse", fontsize=11, pad=18)
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    return Drawing(figure, TITLE)


GAP = 2
LEAST_INCHES, MOST_INCHES, CHARACTERS_PER_INCH, LEGEND_INCHES = 0.52, 0.9, 14, 0.95
PictureRow = Sequence[Picture | None]


def draw_grid(
    panels: Mapping[str, Mapping[str, PictureRow]],
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
    return Drawing(figure, title)


def _sheet(rows: Sequence[PictureRow], columns: int, height: int, width: int) -> Picture:
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


DECADES = 4
# At the edge of a frame padding with zeros is felt; it would outshine what happens inside.
BORDER = 1 / 8
BOX = (214, 96, 28)
LABELS = {"head": "output"}


def draw_fields(fields: Mapping[str, Mapping[str, tuple[NDArray[Any], int]]]) -> Drawing:
    """Draw the gradient of each layer's central value, with a box around what it can see by theory.

    Args:
        fields: model -> layer -> gradient (H, W), side of the theoretical field in pixels.
    """
    columns = list(dict.fromkeys(layer for layers in fields.values() for layer in layers))
    rows = {
        model: [_field(*layers[layer]) if layer in layers else None for layer in columns]
        for model, layers in fields.items()
    }
    title = f"Receptive fields: gradients, white the strongest, black {DECADES} decades below; box: theory"
    return draw_grid({"": rows}, columns, title)


def _field(gradient: NDArray[Any], side: int) -> NDArray[np.uint8]:
    strongest = gradient.max() or 1
    decades = np.log10(np.maximum(gradient / strongest, 10.0**-DECADES))
    picture = to_picture(1 + decades[None] / DECADES)
    if side < min(picture.shape[:2]):
        # The centre of a map lies up to half its stride from the frame's, so the box is put around what was seen.
        rows, columns = (np.flatnonzero((gradient > 0).any(axis)) for axis in (1, 0))
        top, left = (int(places[0] + places[-1] + 1 - side) // 2 for places in (rows, columns))
        for line in range(1, 2 + len(picture) // 100):
            above, before = max(0, top - line), max(0, left - line)
            below, after = min(len(picture), top + side + line) - 1, min(picture.shape[1], left + side + line) - 1
            picture[[above, below], before : after + 1] = BOX
            picture[above : below + 1, [before, after]] = BOX
    return picture


def draw_layers(outputs: Mapping[str, Mapping[str, NDArray[Any]]], context: int) -> Drawing:
    """Draw maps over time, a panel a model and a row a layer, each picture from its own darkest to its brightest.

    What goes in and comes out is shown from 0, black, to 1, white.

    Args:
        outputs: model -> layer -> maps (N, h, w).
        context: steps that saw a true frame; the others saw the model's own.
    """
    panels = {
        model: {
            LABELS.get(layer, layer): [to_picture(one[None]) for one in maps]
            if layer in ("input", "head")
            else shades(maps, BORDER)
            for layer, maps in layers.items()
        }
        for model, layers in outputs.items()
    }
    steps = max(len(row) for rows in panels.values() for row in rows.values())
    columns = [f"t={step}" if step < context else f"({step})" for step in range(steps)]
    title = "Input, layers (each picture on its own scale) and output over time; (t): fed with the model's own forecast"
    return draw_grid(panels, columns, title, across=2)
