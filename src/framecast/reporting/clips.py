"""Figures of example clips: past, truth, each run's forecast and its error, as strips and an animation.

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

from framecast.data.scaling import Scaling, scaling_from_dict
from framecast.data.units import unit_facts
from framecast.reporting.figures import Drawing, PictureRow, draw_grid
from framecast.reporting.pictures import (
    FrameArray,
    Painter,
    Picture,
    animation,
    legend_picture,
    rain_legend,
    rain_picture,
    strip,
    to_picture,
)
from framecast.reporting.results import Results, read_examples

# The page enlarges what it shows, so a strip holds little more than the pixels of its frames.
LEAST_PIXELS = 32
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
    if unit_facts(unit).colours == "rain":
        return Style(
            rain_picture, rain_picture, rain_legend(), {"foot": legend_picture, "milliseconds": 500, "least": 240}
        )
    low, high = scaling.limits
    return Style(partial(_shades, scaling), lambda error: to_picture(error / (high - low)), [], {})


def _shades(scaling: Scaling, frame: FrameArray) -> Picture:
    return to_picture(scaling.scale(torch.from_numpy(np.ascontiguousarray(frame))).numpy())


def time_labels(times: NDArray[Any]) -> list[str]:
    """Return times in seconds since 1970 UTC as text, the date first."""
    stamps = [str(np.datetime64(int(second), "s").astype("datetime64[m]")) for second in times]
    return [stamp.replace("T", " ") + " UTC" for stamp in stamps]


def clip_legend(results: Results) -> list[tuple[str, str]]:
    """Return the colour scale of a run's frames, colour and label; empty where shades speak for themselves."""
    return _style(results).legend


def _style(results: Results) -> Style:
    spec = results["clip_spec"]
    return clip_style(spec["unit"], scaling_from_dict(spec["scaling"]))


class ClipRows(NamedTuple):
    """One example clip beside the forecasts of it.

    Attributes:
        number: of the clip.
        past: (T, C, H, W) in physical units.
        truth: (horizon, C, H, W).
        forecasts: name -> (horizon, C, H, W).
        captions: a time for each frame, or none.
    """

    number: int
    past: FrameArray
    truth: FrameArray
    forecasts: dict[str, FrameArray]
    captions: list[str]


def clip_rows(names: list[str], folders: list[Path], results: list[Results], most: int) -> list[ClipRows]:
    """Return the first example clips, ``most`` at most, with the forecasts of all runs that saw the same ones.

    Raises:
        DataError: the examples of a folder are damaged.
    """
    loaded = [read_examples(folder) for folder in folders]
    first, rows = loaded[0], []
    for number in range(min(most, len(first.get("truth", ())))):
        truth = first["truth"][number]
        forecasts: dict[str, FrameArray] = {}
        for name, examples, run in zip(names, loaded, results, strict=True):
            if len(examples.get("truth", ())) > number and _same(examples["truth"][number], truth):
                columns = [(name, run["model"]), *((baseline, baseline) for baseline in BASELINES_SHOWN)]
                for label, key in columns:
                    if key in examples:
                        forecasts.setdefault(label, examples[key][number])
        captions = time_labels(first["times"][number]) if "times" in first else []
        rows.append(ClipRows(number, first["past"][number], truth, forecasts, captions))
    return rows


def clip_figures(clips: list[ClipRows], results: Results) -> list[dict[str, Any]]:
    """Return pictures for the page: past, truth, each run's forecast and its absolute difference."""
    style, figures = _style(results), []
    for clip in clips:
        frames = np.concatenate([clip.past, clip.truth])
        draw = partial(_png, columns=len(frames), paint=style.paint)
        draw_error = partial(_png, columns=len(frames), paint=style.paint_error)
        rows, panels = [("truth", draw(frames))], {"truth": (frames, len(clip.past))}
        for label, forecast in clip.forecasts.items():
            rows.append((label, draw(forecast)))
            rows.append((f"|{label} − truth|", draw_error(np.abs(forecast - clip.truth))))
            panels[label] = (np.concatenate([clip.past, forecast]), len(clip.past))
        figures.append(
            {
                "number": clip.number,
                "rows": [{"label": label, "src": src} for label, src in rows],
                "animation": _source(
                    animation(panels, paint=style.paint, captions=clip.captions, kind="PNG", **style.animate)
                ),
                "past": len(clip.past),
                "times": [
                    {"text": label[11:16], "past": step < len(clip.past)} for step, label in enumerate(clip.captions)
                ],
                "began": clip.captions[0] if clip.captions else "",
            }
        )
    return figures


def comparison_drawings(clips: list[ClipRows], results: Results) -> dict[str, Drawing]:
    """Return one figure a clip: truth, each run's forecast and its absolute difference over time."""
    style, drawings = _style(results), {}
    for clip in clips:
        empty: list[Picture | None] = [None] * len(clip.past)
        past, truth = ([style.paint(frame) for frame in frames] for frames in (clip.past, clip.truth))
        rows: dict[str, PictureRow] = {"truth": [*past, *truth]}
        for label, forecast in clip.forecasts.items():
            error = np.abs(forecast - clip.truth)
            rows[label] = [*empty, *(style.paint(frame) for frame in forecast)]
            rows[f"|{label} − truth|"] = [*empty, *(style.paint_error(frame) for frame in error)]
        steps = [*range(1 - len(clip.past), 1), *range(1, 1 + len(clip.truth))]
        columns = [caption[11:16] for caption in clip.captions] or [
            f"{step:+d}" if step > 0 else str(step) for step in steps
        ]
        title = f"Forecasts of clip {clip.number}"
        drawings[title] = draw_grid({"": rows}, columns, title, legend=style.legend, unit=results["clip_spec"]["unit"])
    return drawings


def _same(one: FrameArray, other: FrameArray) -> bool:
    return one.shape == other.shape and np.array_equal(one, other, equal_nan=True)


def _png(row: FrameArray, *, columns: int, paint: Painter) -> str:
    return _source(strip([row], least=LEAST_PIXELS, columns=columns, paint=paint))


def _source(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
