"""The report: one self-contained HTML page of one or several result folders."""

from __future__ import annotations

import base64
import csv
import json
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from framecast.errors import DataError, RunFolderError
from framecast.reporting.curves import Line, curves
from framecast.reporting.frames import animation, strip
from framecast.storage import write_atomically

# Score -> how the page calls it, and whether less is better.
SCORES = {"mse": ("MSE", True), "mae": ("MAE", True), "psnr": ("PSNR (dB)", False), "ssim": ("SSIM", False)}
CLIPS_SHOWN = 4


def write_report(folders: list[Path], out: Path) -> Path:
    """Write the page of result folders.

    Raises:
        RunFolderError: no folders, or one that holds no results.json.
        DataError: a results file is damaged.
    """
    if not folders:
        raise RunFolderError("report needs at least one folder that evaluate wrote into")
    results = [_read(folder) for folder in folders]
    names = _names(results)
    context = {
        "title": "Forecast report",
        "runs": [_facts(name, found) for name, found in zip(names, results, strict=True)],
        "tables": _tables(names, results),
        "curves": [Markup(svg) for svg in _lead_curves(names, results)],
        "training": [Markup(svg) for svg in _training_curves(names, folders)],
        "clips": _clips(names, folders, results),
        "scores": [label for label, _ in SCORES.values()],
    }
    template = files("framecast.reporting").joinpath("page.html.j2").read_text()
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template).render(context)
    write_atomically(out, page.encode())
    return out


def _read(folder: Path) -> dict[str, Any]:
    file = folder / "results.json"
    if not file.is_file():
        raise RunFolderError(f"{folder} holds no results.json: run framecast evaluate on it first")
    try:
        found = json.loads(file.read_text())
        assert found["forecasts"]
        assert found["clip_spec"]
    except (ValueError, KeyError, AssertionError) as error:
        raise DataError(f"{file} is not what framecast evaluate writes: {error!r}: evaluate again") from error
    return found  # type: ignore[no-any-return]


def _names(results: list[dict[str, Any]]) -> list[str]:
    """Call every run by its model, and by its folder too where two have the same model."""
    models = [found["model"] for found in results]
    return [
        f"{found['model']} ({found['run']})" if models.count(found["model"]) > 1 else found["model"]
        for found in results
    ]


def _facts(name: str, found: dict[str, Any]) -> dict[str, Any]:
    spec = found["clip_spec"]
    return {
        "name": name,
        "run": found["run"],
        "parameters": f"{found['parameters']:,}",
        "milliseconds": f"{1000 * found['seconds_per_clip']:.1f}",
        "data": f"{found['data']}, {found['split']}, {found['clips']:,} clips",
        "clips": f"{spec['context']} → {spec['horizon']} frames of {spec['height']}×{spec['width']}",
    }


def _columns(names: list[str], results: list[dict[str, Any]], block: str) -> dict[str, tuple[dict[str, Any], bool]]:
    """Return forecast name -> (its scores, whether it is a model), the baselines last and once."""
    models: dict[str, tuple[dict[str, Any], bool]] = {}
    baselines: dict[str, tuple[dict[str, Any], bool]] = {}
    for name, found in zip(names, results, strict=True):
        for forecast, scores in found.get(block, {}).items():
            if forecast == found["model"]:
                models[name] = (scores, True)
            else:
                # Runs of one test set share their baselines; another test set shows its own.
                label = forecast if found["fingerprint"] == results[0]["fingerprint"] else f"{forecast} of {name}"
                baselines.setdefault(label, (scores, False))
    return models | baselines


def _tables(names: list[str], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    captions = {
        "forecasts": "Forecast frames, mean over lead times",
        "as_published": "All frames, warm-up included, as the released code averages",
    }
    tables = []
    for block, caption in captions.items():
        columns = _columns(names, results, block)
        if not columns:
            continue
        best = {
            score: (min if less else max)(found["mean"][score] for found, _ in columns.values())
            for score, (_, less) in SCORES.items()
        }
        rows = [
            {
                "name": name,
                "model": model,
                "cells": [
                    {"text": f"{found['mean'][score]:.4g}", "best": found["mean"][score] == best[score]}
                    for score in SCORES
                ],
            }
            for name, (found, model) in columns.items()
        ]
        tables.append({"caption": caption, "rows": rows})
    return tables


def _lead_curves(names: list[str], results: list[dict[str, Any]]) -> list[str]:
    columns = _columns(names, results, "forecasts")
    muted = [name for name, (_, model) in columns.items() if not model]
    drawn = []
    for score, (label, less) in SCORES.items():
        lines: dict[str, Line] = {
            name: (range(1, len(found["per_lead"][score]) + 1), found["per_lead"][score])
            for name, (found, _) in columns.items()
        }
        better = "lower is better" if less else "higher is better"
        drawn.append(curves(lines, title=label, across="lead time (frames)", up=better, muted=muted))
    return drawn


def _training_curves(names: list[str], folders: list[Path]) -> list[str]:
    drawn = []
    for file, column, title in (("train", "loss", "Training loss"), ("validation", "validation_mse", "Validation MSE")):
        lines: dict[str, Line] = {}
        for name, folder in zip(names, folders, strict=True):
            path = folder / "log" / f"{file}.csv"
            if path.is_file():
                with path.open(newline="") as content:
                    rows = list(csv.DictReader(content))
                lines[name] = ([float(row["batch"]) for row in rows], [float(row[column]) for row in rows])
        if any(x for x, _ in lines.values()):
            drawn.append(curves(lines, title=title, across="batches", up="", log=True))
    return drawn


def _clips(names: list[str], folders: list[Path], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return pictures of the first clips: past, truth, each run's forecast and its absolute difference."""
    shown: list[dict[str, Any]] = []
    loaded = [_examples(folder) for folder in folders]
    first = loaded[0]
    for number in range(min(CLIPS_SHOWN, len(first.get("truth", ())))):
        past, truth = first["past"][number], first["truth"][number]
        rows = [("truth", _png([np.concatenate([past, truth])]))]
        panels = {"truth": (np.concatenate([past, truth]), len(past))}
        for name, examples, found in zip(names, loaded, results, strict=True):
            if len(examples.get("truth", ())) <= number or not np.array_equal(examples["truth"][number], truth):
                continue
            forecast = examples[found["model"]][number]
            difference = np.abs(forecast.astype(np.float32).clip(0, 1) - truth)
            rows.append((name, _png([np.concatenate([np.ones_like(past), forecast])])))
            rows.append((f"|{name} − truth|", _png([np.concatenate([np.ones_like(past), difference])])))
            panels[name] = (np.concatenate([past, forecast]), len(past))
        shown.append(
            {
                "number": number,
                "rows": [{"label": label, "src": src} for label, src in rows],
                "animation": _source("gif", animation(panels)),
                "past": len(past),
            }
        )
    return shown


def _examples(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    path = folder / "examples.npz"
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name].astype(np.float32) for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}: evaluate again") from error


def _png(rows: list[np.ndarray[Any, Any]]) -> str:
    return _source("png", strip(rows))


def _source(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
