"""The tables of a study: tables.md to read, tables.csv and differences.csv to compute with, and figures.

Numbers of a paper stand in columns and rows of their own that say "paper".
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from framecast.api.report import report
from framecast.files import write_atomically
from framecast.reporting.figures import Line, draw_curves
from framecast.reporting.results import UNDEFINED
from framecast.studies.compare import FEWEST_SEEDS, Difference, Spread, adjust, check_alike, differences, spread
from framecast.studies.plan import StudyPlan
from framecast.studies.records import (
    PER_CLIP,
    Hours,
    Record,
    Records,
    add_hours,
    complete_costs,
    machine_hours,
    run_of_record,
)

PUBLISHED_COSTS = {"parameters_m": ("Params", " M"), "macs_g": ("FLOPs", " G"), "memory_gb": ("memory", " GB"),
                   "training_hours": ("training", " h")}  # fmt: skip
"""What of a paper's numbers is a cost: its name in a study's file, and how a column shows it."""
Rows = list[list[str]]


def score_rows(plan: StudyPlan, records: Records) -> Rows:
    """Return the scores of models and baselines, mean and spread over seeds, and what the paper prints."""
    scores = scores_of(records)
    published = [score for score in plan.published.values if score not in PUBLISHED_COSTS]
    published.sort(key=lambda score: scores.index(score) if score in scores else len(scores))
    paper = [f"paper: {score_label(records, score)}" for score in published]
    rows = [["model", "seeds", "clips trained", *(score_label(records, score) for score in scores), *paper]]
    for label, group in by_model(plan, records).items():
        clips = {record["training"]["clips"] for record in group}
        row = [label, str(len(group)), " to ".join(f"{n:,}" for n in sorted({min(clips), max(clips)}))]
        row += [_spread_text(spread([record["forecast"]["mean"].get(score) for record in group])) for score in scores]
        rows.append(row + _paper(plan, published, label))
    for name, baseline in baselines_of(records).items():
        cells = [_spread_text(spread([baseline["mean"].get(score)])) for score in scores]
        rows.append([name, "", "", *cells, *([""] * len(published))])
    return rows


def not_learnt(records: Records) -> str:
    """Return by which scores every model is worse than a blank frame, and what that means; "" where none is."""
    blank = baselines_of(records).get("blank frame")
    if not blank:
        return ""
    worse = []
    for score in scores_of(records):
        best, base = next(iter(records.values()))["evaluation"]["scores"][score]["best"], blank["mean"].get(score)
        of_models = [record["forecast"]["mean"].get(score) for record in records.values()]
        if base is None or None in of_models or best not in ("low", "high"):
            continue
        if min(of_models) > base if best == "low" else max(of_models) < base:
            worse.append(score_label(records, score))
    if not worse:
        return ""
    return (
        f"**Not learnt yet:** by {', '.join(worse)} every model is worse than a blank frame, so differences in it say "
        "nothing about forecasts."
    )


def expense_rows(plan: StudyPlan, records: Records) -> Rows:
    """Return what models cost, counted and timed, and what the paper prints."""
    published = [cost for cost in PUBLISHED_COSTS if cost in plan.published.values]
    paper = [f"paper: {PUBLISHED_COSTS[cost][0]}" for cost in published]
    rows = [["model", "Params", "MACs", "kept for backward, MB", "peak of a step, MB", "training, ms a clip",
             "forecast, ms a clip", *paper]]  # fmt: skip
    for label, group in by_model(plan, records).items():
        cost = group[0]["cost"]
        row = [label, f"{cost['parameters']:,}", f"{cost['macs'] / 1e9:.3g} G"]
        row += [f"{cost[key] / 1e6:.1f}" for key in ("saved_bytes", "peak_bytes")]
        row += [_spread_text(Spread(*(1000 * value for value in seconds))) for seconds in clip_seconds(group)]
        rows.append(row + _paper(plan, published, label))
    return rows


def clip_seconds(group: Sequence[Record]) -> tuple[Spread, Spread]:
    """Return the seconds of training on a clip, and of forecasting one, over a model's seeds."""
    training = spread([record["training"]["seconds_per_clip"] for record in group])
    return training, spread([record["evaluation"]["seconds_per_clip"] for record in group])


def hour_rows(hours: Sequence[Hours]) -> Rows:
    """Return machine hours by model, and their sum."""
    rows = [["model", "sittings", "training, h", "evaluation, h", "together, h", "of it unfinished, h"]]
    for one in [*hours, add_hours("all", hours)]:
        numbers = (one.training, one.evaluation, one.total, one.unfinished)
        rows.append([one.model, str(one.sittings), *(f"{number:.3f}" for number in numbers)])
    return rows


def difference_rows(plan: StudyPlan, paired: Iterable[Difference]) -> Rows:
    """Return paired differences with their intervals, and the paper's difference of the same score."""
    paper = plan.published.values
    rows = [
        ["model", "against", "score", "difference", "95 % interval", "in %", "p, adjusted", "differs", "seeds", "clips"]
    ]
    if paper:
        rows[0].append("paper: in %")
    for one in paired:
        adjusted = UNDEFINED if math.isnan(one.adjusted) else f"{one.adjusted:.2g}"
        row = [one.model, one.reference, one.score.upper(), f"{one.mean:+.4g}", f"{one.low:+.4g} to {one.high:+.4g}",
               _percent(one.mean, one.base), adjusted, one.differs, str(one.seeds), f"{one.clips:,}"]  # fmt: skip
        if paper:
            values = paper.get(one.score, {})
            base = values.get(one.reference, math.nan)
            row.append(_percent(values[one.model] - base, base) if {one.model, one.reference} <= values.keys() else "")
        rows.append(row)
    return rows


def lead_rows(plan: StudyPlan, records: Records, score: str) -> Rows:
    """Return a score per lead time, of models and baselines."""
    leads = range(next(iter(records.values()))["evaluation"]["horizon"])
    rows = [["model", *(str(lead + 1) for lead in leads)]]
    for label, several in by_model(plan, records).items():
        curves = [record["forecast"]["per_lead"].get(score) for record in several]
        defined = [values for values in curves if values]
        if defined:
            rows.append([label, *(_spread_text(spread([values[lead] for values in defined])) for lead in leads)])
    for name, baseline in baselines_of(records).items():
        values = baseline["per_lead"].get(score)
        if values:
            rows.append([name, *(_spread_text(spread([values[lead]])) for lead in leads)])
    return rows


def by_model(plan: StudyPlan, records: Records) -> dict[str, list[Record]]:
    """Return the records of each model that has any, one a seed."""
    groups = {
        label: [record for trial, record in records.items() if trial.model.label == label] for label in plan.models
    }
    return {label: group for label, group in groups.items() if group}


def baselines_of(records: Records) -> Mapping[str, Any]:
    """Return the scores of the baselines, which are the same in all records."""
    baselines: Mapping[str, Any] = next(iter(records.values()))["baselines"] if records else {}
    return baselines


def scores_of(records: Records) -> list[str]:
    """Return the names of the main scores."""
    if not records:
        return []
    return [name for name, info in next(iter(records.values()))["evaluation"]["scores"].items() if info["main"]]


def score_label(records: Records, score: str) -> str:
    """Return how a score is called in tables."""
    info = next(iter(records.values()))["evaluation"]["scores"].get(score)
    return str(info["label"]) if info else score


def _paper(plan: StudyPlan, columns: Sequence[str], label: str) -> list[str]:
    """Return what the paper prints of a model, empty where it prints nothing."""
    values = [plan.published.values[column].get(label) for column in columns]
    units = [PUBLISHED_COSTS.get(column, ("", ""))[1] for column in columns]
    return ["" if value is None else f"{value:g}{unit}" for value, unit in zip(values, units, strict=True)]


def _percent(part: float, total: float) -> str:
    return f"{100 * part / total:+.1f} %" if total else UNDEFINED


def _spread_text(spread: Spread) -> str:
    if math.isnan(spread.mean):
        return UNDEFINED
    return f"{spread.mean:.4g}" + ("" if math.isnan(spread.deviation) else f" ± {spread.deviation:.2g}")


def study_figures(plan: StudyPlan, records: Records) -> dict[str, str]:
    """Return name -> SVG; lines are means over seeds, shaded from the lowest to the highest seed."""
    groups = by_model(plan, records)
    figures = {}
    for name, axis, across in (
        ("learning-clips", "clips", "clips trained on"),
        ("learning-time", "seconds", "seconds of training"),
    ):
        lines, bands = _learning(groups, axis)
        if lines:
            figures[name] = draw_curves(lines, title="Validation MSE", across=across, up="", log=True, bands=bands).svg
    first = next(iter(records.values()))
    for score in PER_CLIP:
        lines, bands = _leads({label: [one["forecast"] for one in group] for label, group in groups.items()}, score)
        resting, _ = _leads({name: [baseline] for name, baseline in first["baselines"].items()}, score)
        if lines:
            title = first["evaluation"]["scores"][score]["label"]
            figures[f"leads-{score}"] = draw_curves(
                lines | resting, title=title, across="lead time (frames)", up="",
                muted=list(resting), bands=bands,
            ).svg  # fmt: skip
    return figures


def _learning(groups: dict[str, list[Record]], axis: str) -> tuple[dict[str, Line], dict[str, Any]]:
    lines: dict[str, Line] = {}
    bands: dict[str, Any] = {}
    for label, group in groups.items():
        # Seeds are validated after the same batches, except where patience stopped one earlier.
        shared = set.intersection(*(set(record["curve"]["batch"]) for record in group))
        shared_places = [
            [place for place, batch in enumerate(record["curve"]["batch"]) if batch in shared] for record in group
        ]
        x, y = (
            np.array(
                [
                    [record["curve"][key][place] for place in places]
                    for record, places in zip(group, shared_places, strict=True)
                ]
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
        curves = [forecast["per_lead"][score] for forecast in several if forecast["per_lead"].get(score)]
        if curves:
            y = np.array(curves, float)
            lines[name] = (list(range(1, y.shape[1] + 1)), y.mean(0).tolist())
            bands[name] = [y.min(0), y.max(0)]
    return lines, bands


TABLES, REPORT = "tables.md", "study-report.html"
# Reports stand in git: half a megabyte each, however many models there are.
CLIPS_SHOWN = 2
CSV_COLUMNS = ("source", "model", "score", "lead", "mean", "deviation")
FACTS = ("seeds", "clips_trained", "parameters", "macs", "batch", "saved_bytes", "peak_bytes",
         "training_seconds_per_clip", "forecast_seconds_per_clip", "machine_hours")  # fmt: skip


def write_tables(plan: StudyPlan, records: Records) -> None:
    """Write tables, figures and, where run folders are left, the report of the first seed.

    Args:
        plan: the study.
        records: of the trials that are done.

    Raises:
        DataError: two trials were tested on different clips.
    """
    check_alike(records)
    records, hours = complete_costs(plan, records), machine_hours(plan, records)
    paired = adjust([difference for score in PER_CLIP for difference in differences(plan, records, score)])
    figures = study_figures(plan, records) if records else {}
    text = _page(plan, records, hours, paired, list(figures))
    write_atomically(plan.out / TABLES, text.encode())
    write_atomically(plan.out / "tables.csv", _scores_csv(plan, records, hours[0]).encode())
    write_atomically(plan.out / "differences.csv", _differences_csv(paired).encode())
    for name, svg in figures.items():
        write_atomically(plan.out / "figures" / f"{name}.svg", svg.encode())
    first = [run_of_record(plan, trial, record) for trial, record in records.items() if trial.seed == plan.seeds[0]]
    folders = [folder for folder in first if (folder / "examples.npz").is_file()]
    # A report of some models never takes the place of one of all.
    if folders and (len(folders) == len(first) or not (plan.out / REPORT).exists()):
        report(folders, out=plan.out / REPORT, clips=CLIPS_SHOWN, figures=False, overwrite=True)


def _page(
    plan: StudyPlan,
    records: Records,
    hours: tuple[list[Hours], list[str]],
    paired: list[Difference],
    figures: Sequence[str],
) -> str:
    parts = [f"# {plan.name}", plan.about, _regime(plan, records)]
    if records:
        parts += ["## Scores", _table(score_rows(plan, records)), _score_legend(plan, records), not_learnt(records)]
        parts += ["## Cost", _table(expense_rows(plan, records)), _cost_legend(plan, records)]
        if paired:
            parts += ["## Paired differences", _table(difference_rows(plan, paired)), _reading(paired)]
        for score in PER_CLIP:
            parts += [f"## {score_label(records, score)} per lead time", _table(lead_rows(plan, records, score))]
        parts += ["## Curves", *(f"![{name}](figures/{name}.svg)" for name in figures)]
        parts += ["## Machine hours", _table(hour_rows(hours[0])), _hour_legend(hours[1])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _regime(plan: StudyPlan, records: Records) -> str:
    training = ", ".join(f"{name} {value}" for name, value in plan.training.items())
    total = len(plan.trials())
    data = ", ".join(f"{name} {value}" for name, value in plan.data_options.items())
    lines = [f"Data: {plan.data} ({data}).", f"Training: {training}; seeds {', '.join(map(str, plan.seeds))}."]
    if records:
        first = next(iter(records.values()))["evaluation"]
        lines.append(f"Tested on {first['clips']:,} clips of the {first['split']} split.")
        lines.append(f"{len(records)} of {total} trials are done.")
    else:
        lines.append(f"None of {total} trials is done.")
    return " ".join(lines) + f" Command: `{plan.command}`."


def _score_legend(plan: StudyPlan, records: Records) -> str:
    sentences = ["Mean ± standard deviation over seeds. Which of these differ, the paired differences below say."]
    notes = next(iter(records.values()))["evaluation"]["notes"]
    return " ".join([*sentences, *_not_ours(plan), *notes])


def _cost_legend(plan: StudyPlan, records: Records) -> str:
    batches = sorted({record["cost"]["batch"] for record in records.values()})
    sentences = [
        "MACs are of one forecast, context included. Memory is counted, not measured: what the forward pass keeps for "
        "backward, and all tensors at the peak of a training step with weights, gradients and Adam's moments, for "
        f"batches of {' or '.join(map(str, batches))} clips in 32-bit numbers. Times are mean ± standard deviation "
        "over seeds, of training the median over the log, on the machines that log.csv names, whatever else ran there."
    ]
    return " ".join([*sentences, *(_not_ours(plan) if PUBLISHED_COSTS.keys() & plan.published.values.keys() else [])])


def _not_ours(plan: StudyPlan) -> list[str]:
    return [f"Columns “paper” hold numbers of {plan.published.source}, not ours."] if plan.published.values else []


def _hour_legend(short: Sequence[str]) -> str:
    sentences = [
        "Hours of processes by the logs, validations included: two trials side by side for an hour make two. Trials "
        "that were taken from another study count with its log."
    ]
    if short:
        sentences.append(
            f"Of {', '.join(short)} the log lacks a sitting, as a process that is killed writes no row: the seconds of "
            "training in the record are counted."
        )
    return " ".join(sentences)


def _reading(paired: list[Difference]) -> str:
    sentences = [
        "Model minus the one it stands against, on the same test clips after trainings of the same seeds; the "
        "intervals are the wider ones of replicates that draw clips and seeds anew and of Student's t over seeds. "
        f"“lower” and “higher” are claimed from {FEWEST_SEEDS} seeds on, where a p-value adjusted for all "
        f"{len(paired)} differences (Holm) is below 0.05; else “cannot tell”, and no rank is claimed."
    ]
    fewest = min(one.seeds for one in paired)
    if fewest == 1:
        sentences.append("With one seed the interval is over clips alone: another training may say otherwise.")
    elif fewest < 5:
        sentences.append(f"{fewest} seeds say little about how much trainings vary, so the intervals are wide.")
    return " ".join(sentences)


def _scores_csv(plan: StudyPlan, records: Records, hours: Sequence[Hours]) -> str:
    rows: list[Sequence[Any]] = [[*CSV_COLUMNS, *FACTS]]
    empty = [""] * len(FACTS)
    total_hours = {one.model: f"{one.total:.4f}" for one in hours}
    for label, group in by_model(plan, records).items():
        cost, seconds = group[0]["cost"], [f"{baseline.mean:.4g}" for baseline in clip_seconds(group)]
        counts = [cost[name] for name in ("parameters", "macs", "batch", "saved_bytes", "peak_bytes")]
        facts = [
            len(group),
            group[0]["training"]["clips"],
            *counts,
            *seconds,
            total_hours.get(label, ""),
        ]
        for score in scores_of(records):
            for lead, values in _by_lead([record["forecast"] for record in group], score):
                rows.append(["ours", label, score, lead, *_plain(spread(values)), *facts])
    for name, baseline in baselines_of(records).items():
        for score in scores_of(records):
            for lead, values in _by_lead([baseline], score):
                rows.append(["ours", name, score, lead, *_plain(spread(values)), *empty])
    for score, printed in plan.published.values.items():
        for label, value in printed.items():
            rows.append([f"paper: {plan.published.source}", label, score, "mean", value, "", *empty])
    return _csv(rows)


def _by_lead(forecasts: Sequence[Mapping[str, Any]], score: str) -> list[tuple[Any, list[float | None]]]:
    """Return the values over seeds of each lead time, and of all together as "mean"."""
    each = [scores["per_lead"].get(score) for scores in forecasts]
    defined = [values for values in each if values]
    leads = [(lead, list(values)) for lead, values in enumerate(zip(*defined, strict=True), 1)]
    return [*leads, ("mean", [scores["mean"].get(score) for scores in forecasts])]


def _differences_csv(paired: list[Difference]) -> str:
    return _csv([[*Difference._fields, "differs"], *([*one, one.differs] for one in paired)])


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(rows)
    return content.getvalue()


def _plain(spread: Spread) -> list[Any]:
    return ["" if math.isnan(value) else value for value in spread]


def _table(rows: Rows) -> str:
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])
