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

from framecast.data.georeference import Georeference, georeference_from_dict
from framecast.data.scaling import Scaling, scaling_from_dict
from framecast.data.units import unit_facts
from framecast.reporting.figures import Drawing, PictureRow, draw_grid
from framecast.reporting.maps import LEAST_PIXELS, Overlay, map_overlay
from framecast.reporting.pictures import (
    FrameArray,
    Painter,
    Picture,
    animation,
    enlarge,
    legend_picture,
    rain_legend,
    rain_picture,
    strip,
    to_picture,
)
from framecast.reporting.results import Results, read_examples, read_results

# Baselines worth looking at; the others are seen in the past frames.
BASELINES_SHOWN = ("extrapolation",)


class Style(NamedTuple):
    """How frames in physical units and their errors are painted.

    Attributes:
        paint: a frame.
        paint_error: an absolute difference of two frames.
        legend: colours and what they stand for; none where shades speak for themselves.
        animate: options of ``animation``.
        overlay: draws on an enlarged picture, or None.
        least: pixels of the shorter side of a frame in a strip.
        most: frames that a strip shows.
    """

    paint: Painter
    paint_error: Painter
    legend: list[tuple[str, str]]
    animate: dict[str, Any]
    overlay: Overlay | None
    least: int
    most: int


def clip_style(unit: str, scaling: Scaling, place: Georeference | None = None) -> Style:
    """Return how frames of that unit are painted, as maps where it is known where they are."""
    overlay = map_overlay(place)
    least, most = (LEAST_PIXELS, 7) if overlay else (48, 20)
    if unit_facts(unit).colours == "rain":
        animate: dict[str, Any] = {"foot": legend_picture, "milliseconds": 500, "least": 240, "overlay": overlay}
        return Style(rain_picture, rain_picture, rain_legend(), animate, overlay, least, most)
    low, high = scaling.limits
    paint = partial(_shades, scaling)
    return Style(paint, lambda error: to_picture(error / (high - low)), [], {"overlay": overlay}, overlay, least, most)


def shown_frames(context: int, horizon: int, most: int) -> list[int]:
    """Return the numbers of the frames that a strip of so many shows: all, or the last past one and some lead times."""
    if context + horizon <= most:
        return list(range(context + horizon))
    step = -(-horizon // (most - 1))
    return [context - 1, *range(context - 1 + step, context + horizon, step)]


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
    place = georeference_from_dict(spec["georeference"]) if spec.get("georeference") else None
    return clip_style(spec["unit"], scaling_from_dict(spec["scaling"]), place)


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


def clip_pictures(folder: Path) -> dict[str, bytes]:
    """Return the first example clip of results as a moving picture and as a strip: past, truth, forecasts.

    Args:
        folder: that evaluate wrote into.

    Returns:
        "gif" and "png"; nothing where no example was kept.

    Raises:
        RunNotFoundError: it holds no results.
        DataError: they are damaged.
    """
    results = read_results(folder)
    style = _style(results)
    pictures = {}
    for clip in clip_rows([results["model"]], [folder], [results], 1):
        panels = {"truth": (np.concatenate([clip.past, clip.truth]), len(clip.past))}
        for label, forecast in clip.forecasts.items():
            panels[label] = (np.concatenate([clip.past, forecast]), len(clip.past))
        pictures["gif"] = animation(panels, paint=style.paint, captions=clip.captions, **style.animate)
        (pictures["png"],) = (drawing.png for drawing in comparison_drawings([clip], results).values())
    return pictures


def clip_figures(clips: list[ClipRows], results: Results) -> list[dict[str, Any]]:
    """Return pictures for the page: past, truth, each run's forecast and its absolute difference."""
    style, figures = _style(results), []
    for clip in clips:
        context, frames = len(clip.past), np.concatenate([clip.past, clip.truth])
        shown = shown_frames(context, len(clip.truth), style.most)
        later = [number - context for number in shown if number >= context]
        draw = partial(strip, least=style.least, columns=len(shown), overlay=style.overlay)
        rows = [("truth", "", draw([frames[shown]], paint=style.paint))]
        panels = {"truth": (frames, context)}
        for label, forecast in clip.forecasts.items():
            error = np.abs(forecast - clip.truth)[later]
            rows.append((label, label, draw([forecast[later]], paint=style.paint)))
            rows.append((f"|{label} − truth|", label, draw([error], paint=style.paint_error)))
            panels[label] = (np.concatenate([clip.past, forecast]), context)
        moving = animation(panels, paint=style.paint, captions=clip.captions, kind="PNG", **style.animate)
        figures.append(
            {
                "number": clip.number,
                "rows": [{"label": label, "of": run, "src": _source(content)} for label, run, content in rows],
                "animation": _source(moving),
                "panels": len(panels),
                "past": context,
                "steps": [
                    {"text": text, "past": number < context}
                    for text, number in zip(_step_names(clip, shown), shown, strict=True)
                ],
                "least": style.least,
                "began": clip.captions[0] if clip.captions else "",
            }
        )
    return figures


def _step_names(clip: ClipRows, numbers: list[int]) -> list[str]:
    """Return what the frames of these numbers are called: times, or lead times in frames, 0 the last past one."""
    if clip.captions:
        return [clip.captions[number][11:16] for number in numbers]
    steps = [number - len(clip.past) + 1 for number in numbers]
    return [f"{step:+d}" if step > 0 else str(step) for step in steps]


def comparison_drawings(clips: list[ClipRows], results: Results, suffix: str = "") -> dict[str, Drawing]:
    """Return one figure a clip: truth, each run's forecast and its absolute difference; their titles end alike."""
    style, drawings = _style(results), {}

    def picture(frame: FrameArray, paint: Painter) -> Picture:
        enlarged = enlarge(paint(frame), style.least)
        return enlarged if style.overlay is None else style.overlay(enlarged)

    for clip in clips:
        context, frames = len(clip.past), np.concatenate([clip.past, clip.truth])
        shown = shown_frames(context, len(clip.truth), style.most)
        later = [number - context for number in shown if number >= context]
        empty: list[Picture | None] = [None] * (len(shown) - len(later))
        rows: dict[str, PictureRow] = {"truth": [picture(frame, style.paint) for frame in frames[shown]]}
        for label, forecast in clip.forecasts.items():
            error = np.abs(forecast - clip.truth)
            rows[label] = [*empty, *(picture(frame, style.paint) for frame in forecast[later])]
            rows[f"|{label} − truth|"] = [*empty, *(picture(frame, style.paint_error) for frame in error[later])]
        title = f"Forecasts of clip {clip.number}{suffix}"
        drawings[title] = draw_grid(
            {"": rows}, _step_names(clip, shown), title, legend=style.legend, unit=results["clip_spec"]["unit"]
        )
    return drawings


def _same(one: FrameArray, other: FrameArray) -> bool:
    return one.shape == other.shape and np.array_equal(one, other, equal_nan=True)


def _source(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
