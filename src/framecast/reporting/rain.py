"""Rain rates in mm/h as pictures: a discrete colour scale, grey where there is no data."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

# From this rate in mm/h on -> colour; blue is weak rain, warm colours are strong.
CLASSES: tuple[tuple[float, str], ...] = (
    (0.1, "#cfe7f5"),
    (0.5, "#8cc6ea"),
    (1, "#4696d2"),
    (2, "#2a63b0"),
    (5, "#f7dc5e"),
    (10, "#f5a33a"),
    (20, "#e4572e"),
    (50, "#b0234f"),
    (100, "#6a1a6e"),
)
DRY, NO_DATA = "#f7f9fa", "#b4b8bd"
UNIT = "mm/h"

_TABLE = np.array(
    [tuple(bytes.fromhex(colour[1:])) for colour in (DRY, *(colour for _, colour in CLASSES), NO_DATA)], np.uint8
)
_EDGES = np.array([edge for edge, _ in CLASSES])


def rain_picture(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn rain rates (C, H, W) in mm/h, NaN where there is no data, into a picture (H, W, 3) of the first channel."""
    rates = frame[0].astype(np.float64)
    classes = np.searchsorted(_EDGES, np.nan_to_num(rates), side="right")
    return _TABLE[np.where(np.isnan(rates), len(_TABLE) - 1, classes)]


def rain_legend() -> list[tuple[str, str]]:
    """Return colour and label of each class, from no data to the strongest rain."""
    edges = [edge for edge, _ in CLASSES]
    labels = [f"{low:g}–{high:g}" for low, high in pairwise(edges)] + [f"≥ {edges[-1]:g}"]
    colours = [colour for _, colour in CLASSES]
    return [(NO_DATA, "no data"), (DRY, f"< {edges[0]:g}"), *zip(colours, labels, strict=True)]


def legend_picture(width: int) -> NDArray[np.uint8]:
    """Return the colour scale as a picture (H, width, 3) to stand below a map: lower edges of the classes in mm/h."""
    cells = [("-", NO_DATA), ("0", DRY), *((f"{edge:g}", colour) for edge, colour in CLASSES)]
    step = max(1, (width - 30) // len(cells))
    sheet = Image.new("RGB", (width, 26), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (label, colour) in enumerate(cells):
        pen.rectangle((number * step, 2, (number + 1) * step - 2, 10), fill=colour, outline="#8a8f98")
        pen.text((number * step, 12), label, fill="black")
    pen.text((len(cells) * step, 1), UNIT, fill="black")
    return np.asarray(sheet)
