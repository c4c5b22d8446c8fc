"""Figures of a study: how the models learn, against clips and against time, and how forecasts fade with lead time."""

from __future__ import annotations

from typing import Any

import numpy as np

from framecast.reporting.curves import Line, draw_curves
from framecast.studies.comparing import Records
from framecast.studies.plan import Plan
from framecast.studies.records import PER_CLIP, Record


def study_figures(plan: Plan, records: Records) -> dict[str, str]:
    """Return name -> SVG; lines are means over seeds, shaded from the lowest to the highest seed."""
    by_model = {
        label: own
        for label in plan.models
        if (own := [record for cell, record in records.items() if cell.model.label == label])
    }
    drawn = {}
    for name, axis, across in (
        ("learning-clips", "clips", "clips trained on"),
        ("learning-time", "seconds", "seconds of training"),
    ):
        lines, bands = _learning(by_model, axis)
        if lines:
            drawn[name] = draw_curves(lines, title="Validation MSE", across=across, up="", log=True, bands=bands).svg
    first = next(iter(records.values()))
    for score in PER_CLIP:
        lines, bands = _leads({label: [one["forecast"] for one in own] for label, own in by_model.items()}, score)
        resting, _ = _leads({name: [found] for name, found in first["baselines"].items()}, score)
        if lines:
            title = first["evaluation"]["scores"][score]["label"]
            drawn[f"leads-{score}"] = draw_curves(
                lines | resting, title=title, across="lead time (frames)", up="",
                muted=list(resting), bands=bands,
            ).svg  # fmt: skip
    return drawn


def _learning(by_model: dict[str, list[Record]], axis: str) -> tuple[dict[str, Line], dict[str, Any]]:
    lines: dict[str, Line] = {}
    bands: dict[str, Any] = {}
    for label, own in by_model.items():
        # Seeds are validated after the same batches, except where patience stopped one earlier.
        shared = set.intersection(*(set(record["curve"]["batch"]) for record in own))
        kept = [[place for place, batch in enumerate(record["curve"]["batch"]) if batch in shared] for record in own]
        x, y = (
            np.array(
                [[record["curve"][key][place] for place in places] for record, places in zip(own, kept, strict=True)]
            )
            for key in (axis, "validation_mse")
        )
        if y.size:
            lines[label] = (x.mean(0).tolist(), y.mean(0).tolist())
            bands[label] = [y.min(0), y.max(0)]
    return lines, bands


def _leads(by_name: dict[str, list[Any]], score: str) -> tuple[dict[str, Line], dict[str, Any]]:
    lines: dict[str, Line] = {}
    bands: dict[str, Any] = {}
    for name, several in by_name.items():
        known = [found["per_lead"][score] for found in several if found["per_lead"].get(score)]
        if known:
            y = np.array(known, float)
            lines[name] = (list(range(1, y.shape[1] + 1)), y.mean(0).tolist())
            bands[name] = [y.min(0), y.max(0)]
    return lines, bands
