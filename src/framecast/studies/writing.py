"""Write what a study found: tables.md to read, tables.csv and differences.csv to compute with, and figures.

Numbers of a paper stand in columns and rows of their own that say "paper".
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from framecast.api import report
from framecast.storage import write_atomically
from framecast.studies.comparing import Difference, Records, Spread, check_alike, differences, spread
from framecast.studies.costs import Hours, complete_costs, machine_hours
from framecast.studies.figures import study_figures
from framecast.studies.plan import Plan
from framecast.studies.records import PER_CLIP, run_of_record
from framecast.studies.rows import (
    PUBLISHED_COSTS,
    Rows,
    baselines_of,
    by_model,
    clip_seconds,
    difference_rows,
    expense_rows,
    hour_rows,
    lead_rows,
    score_label,
    score_rows,
    scores_of,
)

TABLES, REPORT = "tables.md", "report.html"
# Reports stand in git: half a megabyte each, however many models there are.
CLIPS_SHOWN = 2
CSV_COLUMNS = ("source", "model", "score", "lead", "mean", "deviation")
FACTS = ("seeds", "clips_trained", "parameters", "macs", "batch", "saved_bytes", "peak_bytes",
         "training_seconds_per_clip", "forecast_seconds_per_clip", "machine_hours")  # fmt: skip


def write_tables(plan: Plan, records: Records) -> None:
    """Write tables, figures and, where run folders are left, the report of the first seed.

    Args:
        plan: the study.
        records: of the cells that are done.

    Raises:
        DataError: two cells were tested on different clips.
    """
    check_alike(records)
    records, spent = complete_costs(plan, records), machine_hours(plan, records)
    apart = [difference for score in PER_CLIP for difference in differences(plan, records, score)]
    drawn = study_figures(plan, records) if records else {}
    text = _page(plan, records, spent, apart, list(drawn))
    write_atomically(plan.out / TABLES, text.encode())
    write_atomically(plan.out / "tables.csv", _scores_csv(plan, records, spent[0]).encode())
    write_atomically(plan.out / "differences.csv", _differences_csv(apart).encode())
    for name, svg in drawn.items():
        write_atomically(plan.out / "figures" / f"{name}.svg", svg.encode())
    first = [run_of_record(plan, cell, record) for cell, record in records.items() if cell.seed == plan.seeds[0]]
    folders = [folder for folder in first if (folder / "examples.npz").is_file()]
    # A report of some models never takes the place of one of all.
    if folders and (len(folders) == len(first) or not (plan.out / REPORT).exists()):
        report(folders, out=plan.out / REPORT, clips=CLIPS_SHOWN, figures=False)


def _page(
    plan: Plan, records: Records, spent: tuple[list[Hours], list[str]], apart: list[Difference], figures: Sequence[str]
) -> str:
    parts = [f"# {plan.name}", plan.about, _regime(plan, records)]
    if records:
        parts += ["## Scores", _table(score_rows(plan, records)), _score_legend(plan, records)]
        parts += ["## Cost", _table(expense_rows(plan, records)), _cost_legend(plan, records)]
        if apart:
            parts += ["## Paired differences", _table(difference_rows(plan, apart)), _reading(apart)]
        for score in PER_CLIP:
            parts += [f"## {score_label(records, score)} per lead time", _table(lead_rows(plan, records, score))]
        parts += ["## Curves", *(f"![{name}](figures/{name}.svg)" for name in figures)]
        parts += ["## Machine hours", _table(hour_rows(spent[0])), _hour_legend(spent[1])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _regime(plan: Plan, records: Records) -> str:
    told = ", ".join(f"{name} {value}" for name, value in plan.training.items())
    total = len(plan.cells())
    data = ", ".join(f"{name} {value}" for name, value in plan.data_options.items())
    lines = [f"Data: {plan.data} ({data}).", f"Training: {told}; seeds {', '.join(map(str, plan.seeds))}."]
    if records:
        first = next(iter(records.values()))["evaluation"]
        lines.append(f"Tested on {first['clips']:,} clips of the {first['split']} split.")
        lines.append(f"{len(records)} of {total} cells are done.")
    else:
        lines.append(f"None of {total} cells is done.")
    return " ".join(lines) + f" Command: `{plan.command}`."


def _score_legend(plan: Plan, records: Records) -> str:
    said = ["Mean ± standard deviation over seeds. Which of these differ, the paired differences below say."]
    notes = next(iter(records.values()))["evaluation"]["notes"]
    return " ".join([*said, *_not_ours(plan), *notes])


def _cost_legend(plan: Plan, records: Records) -> str:
    batches = sorted({record["cost"]["batch"] for record in records.values()})
    said = [
        "MACs are of one forecast, context included. Memory is counted, not measured: what the forward pass keeps for "
        "backward, and all tensors at the peak of a training step with weights, gradients and Adam's moments, for "
        f"batches of {' or '.join(map(str, batches))} clips in 32-bit numbers. Times are mean ± standard deviation "
        "over seeds, of training the median over the log, on the machines that log.csv names, whatever else ran there."
    ]
    return " ".join([*said, *(_not_ours(plan) if PUBLISHED_COSTS.keys() & plan.published.values.keys() else [])])


def _not_ours(plan: Plan) -> list[str]:
    return [f"Columns “paper” hold numbers of {plan.published.source}, not ours."] if plan.published.values else []


def _hour_legend(short: Sequence[str]) -> str:
    said = [
        "Hours of processes by the logs, validations included: two cells side by side for an hour make two. Cells that "
        "were taken from another study count with its log."
    ]
    if short:
        said.append(
            f"Of {', '.join(short)} the log lacks a sitting, as a process that is killed writes no row: the seconds of "
            "training in the record are counted."
        )
    return " ".join(said)


def _reading(apart: list[Difference]) -> str:
    said = [
        "Model minus the one it stands against, on the same test clips after trainings of the same seeds; the "
        "intervals are the wider ones of replicates that draw clips and seeds anew and of Student's t over seeds. "
        "“cannot tell”: the interval crosses zero, or there is one seed, and no rank is claimed."
    ]
    fewest = min(one.seeds for one in apart)
    if fewest == 1:
        said.append("With one seed the interval is over clips alone: another training may say otherwise.")
    elif fewest < 5:
        said.append(f"{fewest} seeds say little about how much trainings vary, so the intervals are wide.")
    return " ".join(said)


def _scores_csv(plan: Plan, records: Records, hours: Sequence[Hours]) -> str:
    rows: list[Sequence[Any]] = [[*CSV_COLUMNS, *FACTS]]
    empty = [""] * len(FACTS)
    spent = {one.model: f"{one.total:.4f}" for one in hours}
    for label, own in by_model(plan, records).items():
        cost, seconds = own[0]["cost"], [f"{found.mean:.4g}" for found in clip_seconds(own)]
        counts = [cost[name] for name in ("parameters", "macs", "batch", "saved_bytes", "peak_bytes")]
        facts = [len(own), own[0]["training"]["clips"], *counts, *seconds, spent.get(label, "")]
        for score in scores_of(records):
            for lead, values in _by_lead([record["forecast"] for record in own], score):
                rows.append(["ours", label, score, lead, *_plain(spread(values)), *facts])
    for name, found in baselines_of(records).items():
        for score in scores_of(records):
            for lead, values in _by_lead([found], score):
                rows.append(["ours", name, score, lead, *_plain(spread(values)), *empty])
    for score, printed in plan.published.values.items():
        for label, value in printed.items():
            rows.append([f"paper: {plan.published.source}", label, score, "mean", value, "", *empty])
    return _csv(rows)


def _by_lead(found: Sequence[Mapping[str, Any]], score: str) -> list[tuple[Any, list[float | None]]]:
    """Return the values over seeds of each lead time, and of all together as "mean"."""
    each = [scores["per_lead"].get(score) for scores in found]
    known = [values for values in each if values]
    leads = [(lead, list(values)) for lead, values in enumerate(zip(*known, strict=True), 1)]
    return [*leads, ("mean", [scores["mean"].get(score) for scores in found])]


def _differences_csv(apart: list[Difference]) -> str:
    return _csv([[*Difference._fields, "differs"], *([*one, one.differs] for one in apart)])


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(rows)
    return content.getvalue()


def _plain(found: Spread) -> list[Any]:
    return ["" if math.isnan(value) else value for value in found]


def _table(rows: Rows) -> str:
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])
