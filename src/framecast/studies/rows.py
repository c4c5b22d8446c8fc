"""Rows of a study's tables: scores, costs, machine hours, paired differences, scores per lead time.

Numbers of a paper stand in columns of their own that say "paper".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from framecast.reporting.tables import UNDEFINED
from framecast.studies.comparing import Difference, Records, Spread, spread
from framecast.studies.costs import Hours, add_hours
from framecast.studies.plan import Plan
from framecast.studies.records import Record

PUBLISHED_COSTS = {"parameters_m": ("Params", " M"), "macs_g": ("FLOPs", " G"), "memory_gb": ("memory", " GB"),
                   "training_hours": ("training", " h")}  # fmt: skip
"""What of a paper's numbers is a cost: its name in a study's file, and how a column shows it."""
Rows = list[list[str]]


def score_rows(plan: Plan, records: Records) -> Rows:
    """Return the scores of models and baselines, mean and spread over seeds, and what the paper prints."""
    scores = scores_of(records)
    published = [score for score in plan.published.values if score not in PUBLISHED_COSTS]
    published.sort(key=lambda score: scores.index(score) if score in scores else len(scores))
    paper = [f"paper: {score_label(records, score)}" for score in published]
    rows = [["model", "seeds", "clips trained", *(score_label(records, score) for score in scores), *paper]]
    for label, own in by_model(plan, records).items():
        clips = {record["training"]["clips"] for record in own}
        row = [label, str(len(own)), " to ".join(f"{n:,}" for n in sorted({min(clips), max(clips)}))]
        row += [_shown(spread([record["forecast"]["mean"].get(score) for record in own])) for score in scores]
        rows.append(row + _paper(plan, published, label))
    for name, found in baselines_of(records).items():
        cells = [_shown(spread([found["mean"].get(score)])) for score in scores]
        rows.append([name, "", "", *cells, *([""] * len(published))])
    return rows


def expense_rows(plan: Plan, records: Records) -> Rows:
    """Return what models cost, counted and timed, and what the paper prints."""
    published = [cost for cost in PUBLISHED_COSTS if cost in plan.published.values]
    paper = [f"paper: {PUBLISHED_COSTS[cost][0]}" for cost in published]
    rows = [["model", "Params", "MACs", "kept for backward, MB", "peak of a step, MB", "training, ms a clip",
             "forecast, ms a clip", *paper]]  # fmt: skip
    for label, own in by_model(plan, records).items():
        cost = own[0]["cost"]
        row = [label, f"{cost['parameters']:,}", f"{cost['macs'] / 1e9:.3g} G"]
        row += [f"{cost[key] / 1e6:.1f}" for key in ("saved_bytes", "peak_bytes")]
        row += [_shown(Spread(*(1000 * value for value in seconds))) for seconds in clip_seconds(own)]
        rows.append(row + _paper(plan, published, label))
    return rows


def clip_seconds(own: Sequence[Record]) -> tuple[Spread, Spread]:
    """Return the seconds of training on a clip, and of forecasting one, over a model's seeds."""
    training = spread([record["training"]["seconds_per_clip"] for record in own])
    return training, spread([record["evaluation"]["seconds_per_clip"] for record in own])


def hour_rows(hours: Sequence[Hours]) -> Rows:
    """Return machine hours by model, and their sum."""
    rows = [["model", "sittings", "training, h", "evaluation, h", "together, h", "of it unfinished, h"]]
    for one in [*hours, add_hours("all", hours)]:
        numbers = (one.training, one.evaluation, one.total, one.unfinished)
        rows.append([one.model, str(one.sittings), *(f"{number:.3f}" for number in numbers)])
    return rows


def difference_rows(plan: Plan, apart: Iterable[Difference]) -> Rows:
    """Return paired differences with their intervals, and the paper's difference of the same score."""
    paper = plan.published.values
    rows = [["model", "against", "score", "difference", "95 % interval", "in %", "differs", "seeds", "clips"]]
    if paper:
        rows[0].append("paper: in %")
    for one in apart:
        row = [one.model, one.reference, one.score.upper(), f"{one.mean:+.4g}", f"{one.low:+.4g} to {one.high:+.4g}",
               _percent(one.mean, one.base), one.differs, str(one.seeds), f"{one.clips:,}"]  # fmt: skip
        if paper:
            there = paper.get(one.score, {})
            base = there.get(one.reference, math.nan)
            row.append(_percent(there[one.model] - base, base) if {one.model, one.reference} <= there.keys() else "")
        rows.append(row)
    return rows


def lead_rows(plan: Plan, records: Records, score: str) -> Rows:
    """Return a score per lead time, of models and baselines."""
    leads = range(next(iter(records.values()))["evaluation"]["horizon"])
    rows = [["model", *(str(lead + 1) for lead in leads)]]
    for label, several in by_model(plan, records).items():
        own = [record["forecast"]["per_lead"].get(score) for record in several]
        known = [values for values in own if values]
        if known:
            rows.append([label, *(_shown(spread([values[lead] for values in known])) for lead in leads)])
    for name, found in baselines_of(records).items():
        values = found["per_lead"].get(score)
        if values:
            rows.append([name, *(_shown(spread([values[lead]])) for lead in leads)])
    return rows


def by_model(plan: Plan, records: Records) -> dict[str, list[Record]]:
    """Return the records of each model that has any, one a seed."""
    found = {label: [record for cell, record in records.items() if cell.model.label == label] for label in plan.models}
    return {label: own for label, own in found.items() if own}


def baselines_of(records: Records) -> Mapping[str, Any]:
    """Return the scores of the baselines, which are the same in all records."""
    found: Mapping[str, Any] = next(iter(records.values()))["baselines"] if records else {}
    return found


def scores_of(records: Records) -> list[str]:
    """Return the names of the main scores."""
    if not records:
        return []
    return [name for name, info in next(iter(records.values()))["evaluation"]["scores"].items() if info["main"]]


def score_label(records: Records, score: str) -> str:
    """Return how a score is called in tables."""
    info = next(iter(records.values()))["evaluation"]["scores"].get(score)
    return str(info["label"]) if info else score


def _paper(plan: Plan, columns: Sequence[str], label: str) -> list[str]:
    """Return what the paper prints of a model, empty where it prints nothing."""
    values = [plan.published.values[column].get(label) for column in columns]
    units = [PUBLISHED_COSTS.get(column, ("", ""))[1] for column in columns]
    return ["" if value is None else f"{value:g}{unit}" for value, unit in zip(values, units, strict=True)]


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:+.1f} %" if whole else UNDEFINED


def _shown(found: Spread) -> str:
    if math.isnan(found.mean):
        return UNDEFINED
    return f"{found.mean:.4g}" + ("" if math.isnan(found.deviation) else f" ± {found.deviation:.2g}")
