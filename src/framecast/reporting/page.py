"""The report: one self-contained HTML page of one or several result folders."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from framecast.data.units import duration_text
from framecast.errors import RunNotFoundError, UnknownNameError, check_count
from framecast.files import write_atomically
from framecast.reporting.clips import clip_figures, clip_legend, clip_rows, comparison_drawings, time_labels
from framecast.reporting.diagrams import ensemble_diagrams
from framecast.reporting.figures import TITLE as RADAR_TITLE
from framecast.reporting.figures import (
    Drawing,
    Line,
    LineStyle,
    draw_curves,
    draw_radar,
    line_styles,
    radar_axes,
    write_drawings,
)
from framecast.reporting.results import (
    Results,
    forecast_columns,
    number_text,
    range_text,
    read_results,
    run_names,
    score_infos,
    shown_score,
)
from framecast.untrusted import reading

CAPTIONS = {
    "forecasts": "forecast frames, all lead times",
    "as_published": "all frames, warm-up included, as the released code averages",
}
BETTER = {"low": "lower is better", "high": "higher is better", "one": "1 is best"}


def write_report(
    folders: list[Path], out: Path, scores: Sequence[str] | None = None, clips: int = 4, figures: bool = True
) -> Path:
    """Write the page of result folders, and its figures into a folder beside it.

    Args:
        folders: that evaluate wrote into.
        out: the page.
        scores: to draw per lead time, the first one in the radar chart too; None draws the main ones.
        clips: example clips to show, at most.
        figures: write the folder.

    Raises:
        ValueError: ``clips`` is negative.
        RunNotFoundError: no folders, or one that holds no results.json.
        DataError: a results file is damaged.
        UnknownNameError: the results have no such score.
    """
    check_count("clips", clips, least=0)
    if not folders:
        raise RunNotFoundError("report needs at least one folder that evaluate wrote into")
    results = [read_results(folder) for folder in folders]
    with reading(", ".join(map(str, folders)), "cannot be shown", "evaluate again"):
        infos = score_infos(results)
    for score in scores or ():
        if score not in infos:
            raise UnknownNameError("score in these results", score, infos)
    with reading(", ".join(map(str, folders)), "cannot be shown", "evaluate again"):
        page, drawings = _page(folders, results, scores, clips)
    write_atomically(out, page.encode())
    if figures:
        write_drawings(out.parent / f"{out.stem}-figures", drawings)
    return out


class _Runs(NamedTuple):
    """Runs that were tested on the same clips, what they are called among themselves, and their lines in figures."""

    names: list[str]
    folders: list[Path]
    results: list[Results]
    styles: dict[str, LineStyle]


def _page(
    folders: list[Path], results: list[Results], scores: Sequence[str] | None, most: int
) -> tuple[str, dict[str, Drawing]]:
    """Return the page, and the drawings that stand beside it too."""
    names = run_names(results)
    styles = line_styles(names)
    sets = []
    drawings: dict[str, Drawing] = {}
    groups = _by_clips(names, folders, results, styles)
    for number, runs in enumerate(groups, 1):
        # Figures of several test sets are told apart by their titles.
        suffix = "" if len(groups) == 1 else f", test set {number}"
        clips = clip_rows(runs.names, runs.folders, runs.results, most)
        curves = _lead_curves(runs, scores, suffix)
        curves |= _diagrams(runs, suffix)
        drawings |= curves | comparison_drawings(clips, runs.results[0], suffix)
        sets.append(
            {
                **_heading(runs.results[0], number if suffix else 0),
                "clips": clip_figures(clips, runs.results[0]),
                "legend": clip_legend(runs.results[0]),
                "tables": _tables(runs),
                "notes": [
                    *dict.fromkeys(note for run in runs.results for note in run.get("notes", ())),
                    *_scaling_note(runs.names, runs.results),
                ],
                "intervals": any(run.get("bootstrap") for run in runs.results),
                "fallbacks": _fallbacks(runs.results),
                "colours": {name: colour for name, (colour, _) in runs.styles.items()},
                "curves": [Markup(drawing.svg) for drawing in curves.values()],
            }
        )
    training = training_curves(names, folders, styles)
    axes = radar_axes(results, next(iter(scores or ()), None)) if len(groups) == 1 else {}
    # Two polygons, each with an axis of its own on which it is the worse, say less than the table.
    radar = {RADAR_TITLE: draw_radar(names, axes, styles)} if len(results) > 2 and len(axes) > 2 else {}
    context = {
        "title": "Forecast report",
        "sets": sets,
        "colours": {name: colour for name, (colour, _) in styles.items()},
        "runs": [_facts(name, run) for name, run in zip(names, results, strict=True)],
        "radar": [Markup(drawing.svg) for drawing in radar.values()],
        "training": [Markup(drawing.svg) for drawing in training.values()],
    }
    template = files("framecast.reporting").joinpath("page.html.j2").read_text()
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template).render(context)
    return page, drawings | training | radar


def _by_clips(
    names: list[str], folders: list[Path], results: list[Results], styles: Mapping[str, LineStyle]
) -> list[_Runs]:
    """Return the runs by the clips they were tested on, in the order in which these first come."""
    groups: dict[Any, list[int]] = {}
    for place, run in enumerate(results):
        groups.setdefault((run["fingerprint"], run["clips"]), []).append(place)
    found = []
    for places in groups.values():
        tested = [results[place] for place in places]
        own = run_names(tested)
        lines = {name: styles[names[place]] for name, place in zip(own, places, strict=True)}
        found.append(_Runs(own, [folders[place] for place in places], tested, lines))
    return found


def _heading(results: Results, number: int) -> dict[str, str]:
    """Return what a test set is called, and what its clips are."""
    spec = results["clip_spec"]
    pace = f", {duration_text(spec['interval'])} apart" if spec.get("interval") else ""
    unit = f", {spec['unit']}" if spec["unit"] != "1" else ""
    period = results.get("period")
    return {
        "title": f"{f'{number}. ' if number else ''}{_data_title(results)}",
        "detail": f"{results['clips']:,} clips of the {results['split']} split"
        f"{f', {period_text(*period)}' if period else ''} · {spec['context']} → {spec['horizon']} frames of "
        f"{spec['height']}×{spec['width']}{pace}{unit}",
    }


def period_text(first: int, last: int) -> str:
    """Say from when to when frames are, of seconds since 1970 UTC."""
    days, clocks = zip(
        *(label.removesuffix(" UTC").split(" ") for label in time_labels(np.array([first, last]))), strict=True
    )
    if days[0] == days[1]:
        return f"{days[0]}, {clocks[0]} to {clocks[1]} UTC"
    return f"{days[0]} {clocks[0]} to {days[1]} {clocks[1]} UTC"


def _scaling_note(names: list[str], results: list[Results]) -> list[str]:
    """Say which scalings there are, where there are several: errors of frames in [0, 1] do not compare then."""
    scalings: dict[str, list[str]] = {}
    for name, run in zip(names, results, strict=True):
        facts = run["clip_spec"]["scaling"]
        words = ", ".join(f"{key} {value:g}" for key, value in facts.items() if key != "kind")
        scalings.setdefault(f"{facts['kind']} ({words})", []).append(name)
    if len(scalings) < 2:
        return []
    listing = "; ".join(f"{scaling} of {', '.join(runs)}" for scaling, runs in scalings.items())
    return [f"The runs have different scalings, so their errors of frames in [0, 1] do not compare: {listing}."]


def _data_title(results: Results) -> str:
    """Return what the data is called: the name of the file or folder of frames of one's own, or of the data set."""
    path = results.get("data_options", {}).get("path")
    return Path(path).name if path else str(results["data"])


def _facts(name: str, results: Results) -> dict[str, Any]:
    return {
        "name": name,
        "run": results["run"],
        "parameters": f"{results['parameters']:,}",
        "macs": f"{number_text(results['macs'] / 1e9, 3)} G" if "macs" in results else "–",
        "training": f"{number_text(results['peak_bytes'] / 1e6, 3)} MB" if "peak_bytes" in results else "–",
        "milliseconds": f"{1000 * results['seconds_per_clip']:.1f}",
    }


def _tables(runs: _Runs) -> list[dict[str, Any]]:
    """Return one table for each kind of scores, of the forecasts and of the published convention."""
    infos = score_infos(runs.results)
    kinds = list(dict.fromkeys(info["table"] for info in infos.values()))
    tables = []
    for block, caption in CAPTIONS.items():
        columns = forecast_columns(runs.names, runs.results, block)
        for kind in kinds if columns else ():
            scores = {score: info for score, info in infos.items() if info["table"] == kind}
            best = {score: clear_best(columns, score, info["best"]) for score, info in scores.items()}
            rows = [
                {
                    "name": name,
                    "model": model,
                    "cells": [_cell(run, score, best[score] == name) for score in scores],
                }
                for name, (run, model) in columns.items()
            ]
            tables.append(
                {"caption": f"{kind}: {caption}", "scores": [i["label"] for i in scores.values()], "rows": rows}
            )
    return tables


def clear_best(columns: Mapping[str, tuple[Results, bool]], score: str, rule: str) -> str | None:
    """Return the name of the forecast that is best beyond doubt, or None.

    Its 95 % interval over clips meets no other's. As no deviation of a difference is above the sum of both deviations,
    the paired interval of its difference to any other then leaves out zero too.

    Args:
        columns: name -> scores of a forecast, and whether it is a model's; all of the same clips.
        score: name of the score.
        rule: "low", "high" or "one": which values are best.
    """
    reaches = {}
    for name, (scores, _) in columns.items():
        if scores["mean"].get(score) is None:
            continue
        bounds = scores.get("interval", {}).get("mean", {}).get(score)
        if not bounds or None in bounds:
            return None
        low, high = bounds
        reaches[name] = _badness(low, high, rule)
    for name, (_, worst) in reaches.items():
        rivals = [least for other, (least, _) in reaches.items() if other != name]
        if rivals and worst < min(rivals):
            return name
    return None


def _badness(low: float, high: float, rule: str) -> tuple[float, float]:
    """Return the bounds of what an interval says of how far from the best value a score is."""
    if rule == "low":
        return low, high
    if rule == "high":
        return -high, -low
    ends = sorted(abs(math.log(bound)) if bound > 0 else math.inf for bound in (low, high))
    return (0.0 if low <= 1 <= high else ends[0]), ends[1]


def _cell(scores: Results, score: str, best: bool) -> dict[str, Any]:
    value = scores["mean"].get(score)
    bounds = scores.get("interval", {}).get("mean", {}).get(score)
    spread = "" if not bounds or None in bounds or value is None else range_text(*bounds)
    return {"text": shown_score(value), "best": best, "spread": spread}


def _fallbacks(results: list[Results]) -> list[str]:
    """Say where a baseline had to fall back to persistence."""
    return [
        f"{name}: {forecast['fallbacks']} of {run['clips']} clips had no motion to follow and got persistence."
        for run in results[:1]
        for name, forecast in run["forecasts"].items()
        if forecast.get("fallbacks")
    ]


def _lead_curves(runs: _Runs, scores: Sequence[str] | None, suffix: str) -> dict[str, Drawing]:
    infos = score_infos(runs.results)
    chosen = [name for name in scores if name in infos] if scores else [
        name for name, info in infos.items() if info["main"] or info.get("curve")
    ]  # fmt: skip
    columns = forecast_columns(runs.names, runs.results, "forecasts")
    muted = [name for name, (_, model) in columns.items() if not model]
    drawings = {}
    across, step = _lead_axis(runs.results)
    for score in chosen:
        lines: dict[str, Line] = {}
        bands: dict[str, list[list[float]]] = {}
        for name, (forecast, model) in columns.items():
            values = forecast["per_lead"].get(score)
            if values is None:
                continue
            lines[name] = ([step * lead for lead in range(1, len(values) + 1)], _numbers(values))
            spread = forecast.get("interval", {}).get("per_lead", {}).get(score)
            if model and spread:
                bands[name] = [_numbers(bound) for bound in zip(*spread, strict=True)]
        title, up = f"{infos[score]['label']}{suffix}", BETTER[infos[score]["best"]]
        minutes = step if across == MINUTES_AHEAD else None
        drawings[title] = draw_curves(
            lines, title=title, across=across, up=up, muted=muted, bands=bands, styles=runs.styles, minutes=minutes
        )
    return drawings


def _diagrams(runs: _Runs, suffix: str) -> dict[str, Drawing]:
    """Return the diagrams of ensembles, where there are some."""
    columns = forecast_columns(runs.names, runs.results, "forecasts")
    muted = [name for name, (_, model) in columns.items() if not model]
    forecasts = {name: forecast for name, (forecast, _) in columns.items()}
    return ensemble_diagrams(forecasts, score_infos(runs.results), muted=muted, styles=runs.styles, suffix=suffix)


MINUTES_AHEAD = "lead time (minutes)"


def _lead_axis(results: list[Results]) -> tuple[str, float]:
    """Return the title of the axis of lead times, and the step of a frame on it: minutes, if all runs agree on them."""
    intervals = {run["clip_spec"].get("interval") for run in results}
    seconds = intervals.pop() if len(intervals) == 1 else None
    return (MINUTES_AHEAD, seconds / 60) if seconds and seconds >= 60 else ("lead time (frames)", 1)


def _numbers(values: Any) -> list[float]:
    """Return values with NaN, which leaves a gap in a curve, where they are undefined."""
    return [math.nan if value is None else value for value in values]


def training_curves(
    names: list[str], folders: list[Path], styles: Mapping[str, LineStyle] | None = None
) -> dict[str, Drawing]:
    """Return loss and validation error of runs over their batches, of those whose logs are there."""
    drawings = {}
    for file, column, title in (("train", "loss", "Training loss"), ("validation", "validation_mse", "Validation MSE")):
        lines: dict[str, Line] = {}
        for name, folder in zip(names, folders, strict=True):
            path = folder / "log" / f"{file}.csv"
            if path.is_file():
                with path.open(newline="") as content:
                    rows = list(csv.DictReader(content))
                lines[name] = ([float(row["batch"]) for row in rows], [float(row[column]) for row in rows])
        if any(x for x, _ in lines.values()):
            drawings[title] = draw_curves(lines, title=title, across="batches", up="", log=True, styles=styles)
    return drawings
