"""Figures as SVG and PNG: made without a screen, embedded in a page or written beside it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from framecast.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#d6601c", "#20639b", "#3caea3", "#8e44ad", "#c0392b", "#7f8c8d")
DOTS_PER_INCH = 150


class Drawing(NamedTuple):
    """A figure in two forms: an <svg> element to embed, and a PNG."""

    svg: str
    png: bytes


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    # Figure by hand: pyplot would keep global state and pick a screen.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def rendered(figure: Figure, title: str) -> Drawing:
    """Return a figure as SVG and PNG; the title names it for those who cannot see it.

    Words in the SVG are text, a third of the size of outlines, and equal figures are equal files.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    vector, pixels = io.StringIO(), io.BytesIO()
    FigureCanvasSVG(figure)
    lean: Any = {"svg.fonttype": "none", "svg.hashsalt": file_name(title), "font.sans-serif": ["DejaVu Sans"]}
    with rc_context(lean):
        figure.savefig(vector, format="svg", metadata={"Date": None})
    FigureCanvasAgg(figure)
    figure.savefig(pixels, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    svg = re.sub(r"\n\s+", "\n", vector.getvalue())
    # Embedded in one page with others, identifiers of two figures must not meet.
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{file_name(title)}-", svg[svg.index("<svg") :])
    return Drawing(svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1), pixels.getvalue())


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
