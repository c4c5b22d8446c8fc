"""The report: one self-contained HTML page of one or several result folders."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from framecast.data.units import duration_text
from framecast.errors import RunNotFoundError, UnknownNameError, check_count
from framecast.files import write_atomically
from framecast.reporting.clips import clip_figures, clip_legend, clip_rows, comparison_drawings
from framecast.reporting.figures import TITLE as RADAR_TITLE
from framecast.reporting.figures import Drawing, Line, draw_curves, draw_radar, radar_axes, write_drawings
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


def _page(
    folders: list[Path], results: list[Results], scores: Sequence[str] | None, most: int
) -> tuple[str, dict[str, Drawing]]:
    """Return the page, and the drawings that stand beside it too."""
    names, infos = run_names(results), score_infos(results)
    chosen = {name: infos[name] for name in scores} if scores else {n: i for n, i in infos.items() if i["main"]}
    curves, training = _lead_curves(names, results, chosen), training_curves(names, folders)
    axes = radar_axes(results, next(iter(chosen), None))
    radar = {RADAR_TITLE: draw_radar(names, axes)} if len(results) > 1 and len(axes) > 2 else {}
    clips = clip_rows(names, folders, results, most)
    context = {
        "title": "Forecast report",
        "runs": [_facts(name, run) for name, run in zip(names, results, strict=True)],
        "tables": _tables(names, results),
        "notes": [
            *dict.fromkeys(note for run in results for note in run.get("notes", ())),
            *_scaling_note(names, results),
        ],
        "intervals": any(run.get("bootstrap") for run in results),
        "fallbacks": _fallbacks(results),
        "radar": [Markup(drawing.svg) for drawing in radar.values()],
        "curves": [Markup(drawing.svg) for drawing in curves.values()],
        "training": [Markup(drawing.svg) for drawing in training.values()],
        "clips": clip_figures(clips, results[0]),
        "legend": clip_legend(results[0]),
    }
    template = files("framecast.reporting").joinpath("page.html.j2").read_text()
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template).render(context)
    return page, curves | training | radar | comparison_drawings(clips, results[0])


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
    spec = results["clip_spec"]
    pace = f", {duration_text(spec['interval'])} apart" if spec.get("interval") else ""
    unit = f", {spec['unit']}" if spec["unit"] != "1" else ""
    return {
        "name": name,
        "run": results["run"],
        "parameters": f"{results['parameters']:,}",
        "macs": f"{number_text(results['macs'] / 1e9, 3)} G" if "macs" in results else "–",
        "training": f"{number_text(results['peak_bytes'] / 1e6, 3)} MB" if "peak_bytes" in results else "–",
        "milliseconds": f"{1000 * results['seconds_per_clip']:.1f}",
        "data": f"{_data_title(results)}, {results['split']}, {results['clips']:,} clips",
        "clips": f"{spec['context']} → {spec['horizon']} frames of {spec['height']}×{spec['width']}{pace}{unit}",
    }


def _tables(names: list[str], results: list[Results]) -> list[dict[str, Any]]:
    """Return one table for each kind of scores, of the forecasts and of the published convention."""
    infos = score_infos(results)
    kinds = list(dict.fromkeys(info["table"] for info in infos.values()))
    same_clips = len({run["fingerprint"] for run in results}) == 1
    tables = []
    for block, caption in CAPTIONS.items():
        columns = forecast_columns(names, results, block)
        for kind in kinds if columns else ():
            scores = {score: info for score, info in infos.items() if info["table"] == kind}
            best = {
                score: clear_best(columns, score, info["best"]) if same_clips else None
                for score, info in scores.items()
            }
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


def _lead_curves(
    names: list[str], results: list[Results], scores: Mapping[str, Mapping[str, Any]]
) -> dict[str, Drawing]:
    columns = forecast_columns(names, results, "forecasts")
    muted = [name for name, (_, model) in columns.items() if not model]
    drawings = {}
    across, step = _lead_axis(results)
    for score, info in scores.items():
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
        title, up = info["label"], BETTER[info["best"]]
        drawings[title] = draw_curves(lines, title=title, across=across, up=up, muted=muted, bands=bands)
    return drawings


def _lead_axis(results: list[Results]) -> tuple[str, float]:
    """Return the title of the axis of lead times, and the step of a frame on it: minutes, if all runs agree on them."""
    intervals = {run["clip_spec"].get("interval") for run in results}
    seconds = intervals.pop() if len(intervals) == 1 else None
    return ("lead time (minutes)", seconds / 60) if seconds and seconds >= 60 else ("lead time (frames)", 1)


def _numbers(values: Any) -> list[float]:
    """Return values with NaN, which leaves a gap in a curve, where they are undefined."""
    return [math.nan if value is None else value for value in values]


def training_curves(names: list[str], folders: list[Path]) -> dict[str, Drawing]:
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
            drawings[title] = draw_curves(lines, title=title, across="batches", up="", log=True)
    return drawings
