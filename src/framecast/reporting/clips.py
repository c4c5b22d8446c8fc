"""Example clips as figures: past, truth, each run's forecast and its error, as strips and an animation.

How a frame is painted follows from the unit of its values: rain rates by their colour scale, everything else as
shades between the limits of its scaling.
"""

from __future__ import annotations

import base64
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from framecast.datasets.scaling import Scaling, scaling_from_dict
from framecast.registry import RAIN_RATE
from framecast.reporting.frames import Frames, Painter, Picture, animation, strip, to_picture
from framecast.reporting.rain import legend_picture, rain_legend, rain_picture
from framecast.reporting.results import Results, read_examples

CLIPS_SHOWN = 4
# Baselines worth looking at; the others are seen in the past frames.
BASELINES_SHOWN = ("extrapolation",)


class Style(NamedTuple):
    """How frames in physical units and their errors are painted, and the colour scale that goes with it."""

    paint: Painter
    paint_error: Painter
    legend: list[tuple[str, str]]
    animate: dict[str, Any]


def clip_style(unit: str, scaling: Scaling) -> Style:
    """Return how frames of that unit are painted."""
    if unit == RAIN_RATE:
        return Style(
            rain_picture, rain_picture, rain_legend(), {"foot": legend_picture, "milliseconds": 500, "least": 240}
        )
    low, high = scaling.limits
    return Style(partial(_shades, scaling), lambda error: to_picture(error / (high - low)), [], {})


def _shades(scaling: Scaling, frame: Frames) -> Picture:
    return to_picture(scaling.scale(torch.from_numpy(np.ascontiguousarray(frame))).numpy())


def time_labels(times: NDArray[Any]) -> list[str]:
    """Return times in seconds since 1970 UTC as text, the date first."""
    stamps = [str(np.datetime64(int(second), "s").astype("datetime64[m]")) for second in times]
    return [stamp.replace("T", " ") + " UTC" for stamp in stamps]


def clip_legend(found: Results) -> list[tuple[str, str]]:
    """Return the colour scale of a run's frames, colour and label; empty where shades speak for themselves."""
    return _style(found).legend


def _style(found: Results) -> Style:
    spec = found["clip_spec"]
    return clip_style(spec["unit"], scaling_from_dict(spec["scaling"]))


def clip_figures(names: list[str], folders: list[Path], results: list[Results]) -> list[dict[str, Any]]:
    """Return pictures of the first clips: past, truth, each run's forecast and its absolute difference.

    Raises:
        DataError: the examples of a folder are damaged.
    """
    loaded = [read_examples(folder) for folder in folders]
    style, first = _style(results[0]), loaded[0]
    figures = []
    for number in range(min(CLIPS_SHOWN, len(first.get("truth", ())))):
        past, truth = first["past"][number], first["truth"][number]
        whole = np.concatenate([past, truth])
        draw = partial(_png, columns=len(whole), paint=style.paint)
        draw_error = partial(_png, columns=len(whole), paint=style.paint_error)
        rows, panels = [("truth", draw(whole))], {"truth": (whole, len(past))}
        for name, examples, found in zip(names, loaded, results, strict=True):
            if len(examples.get("truth", ())) <= number or not _same(examples["truth"][number], truth):
                continue
            shown = [(name, found["model"]), *((baseline, baseline) for baseline in BASELINES_SHOWN)]
            for label, key in shown:
                if key not in examples or label in panels:
                    continue
                forecast = examples[key][number]
                rows.append((label, draw(forecast)))
                rows.append((f"|{label} − truth|", draw_error(np.abs(forecast - truth))))
                panels[label] = (np.concatenate([past, forecast]), len(past))
        captions = time_labels(first["times"][number]) if "times" in first else []
        figures.append(
            {
                "number": number,
                "rows": [{"label": label, "src": src} for label, src in rows],
                "animation": _source("gif", animation(panels, paint=style.paint, captions=captions, **style.animate)),
                "past": len(past),
                "times": [{"text": label[11:16], "past": step < len(past)} for step, label in enumerate(captions)],
                "began": captions[0] if captions else "",
            }
        )
    return figures


def _same(one: Frames, other: Frames) -> bool:
    return one.shape == other.shape and np.array_equal(one, other, equal_nan=True)


def _png(row: Frames, *, columns: int, paint: Painter) -> str:
    return _source("png", strip([row], columns=columns, paint=paint))


def _source(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
