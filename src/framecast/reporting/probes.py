"""What was measured inside models, as figures: receptive fields and the outputs of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.reporting.figures import Drawing
from framecast.reporting.frames import to_picture
from framecast.reporting.grids import draw_grid, shades

DECADES = 4
# At the edge of a frame padding with zeros is felt; it would outshine what happens inside.
BORDER = 1 / 8
BOX = (214, 96, 28)
LABELS = {"head": "output"}


def draw_fields(found: Mapping[str, Mapping[str, tuple[NDArray[Any], int]]]) -> Drawing:
    """Draw the gradient of each layer's central value, with a box around what it can see by theory.

    Args:
        found: model -> layer -> gradient (H, W), side of the theoretical field in pixels.
    """
    columns = list(dict.fromkeys(layer for layers in found.values() for layer in layers))
    rows = {
        model: [_field(*layers[layer]) if layer in layers else None for layer in columns]
        for model, layers in found.items()
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


def draw_layers(found: Mapping[str, Mapping[str, NDArray[Any]]], context: int) -> Drawing:
    """Draw maps over time, a panel a model and a row a layer, each picture from its own darkest to its brightest.

    What goes in and comes out is shown from 0, black, to 1, white.

    Args:
        found: model -> layer -> maps (N, h, w).
        context: steps that saw a true frame; the others saw the model's own.
    """
    panels = {
        model: {
            LABELS.get(layer, layer): [to_picture(one[None]) for one in maps]
            if layer in ("input", "head")
            else shades(maps, BORDER)
            for layer, maps in layers.items()
        }
        for model, layers in found.items()
    }
    steps = max(len(row) for rows in panels.values() for row in rows.values())
    columns = [f"t={step}" if step < context else f"({step})" for step in range(steps)]
    title = "Input, layers (each picture on its own scale) and output over time; (t): fed with the model's own forecast"
    return draw_grid(panels, columns, title, across=2)
