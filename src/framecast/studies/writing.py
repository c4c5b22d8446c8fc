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
from framecast.reporting.tables import UNDEFINED
from framecast.storage import write_atomically
from framecast.studies.comparing import Difference, Records, Spread, check_alike, differences, spread
from framecast.studies.figures import study_figures
from framecast.studies.plan import Plan
from framecast.studies.records import PER_CLIP, Record

TABLES = "tables.md"
CSV_COLUMNS = ("source", "model", "score", "lead", "mean", "deviation", "seeds", "clips_trained", "parameters",
               "macs", "training_seconds_per_clip")  # fmt: skip
Rows = list[list[str]]


def write_tables(plan: Plan, records: Records) -> None:
    """Write tables, figures and, where run folders are left, the report of the first seed.

    Args:
        plan: the study.
        records: of the cells that are done.

    Raises:
        DataError: two cells were tested on different clips.
    """
    check_alike(records)
    apart = [difference for score in PER_CLIP for difference in differences(plan, records, score)]
    drawn = study_figures(plan, records) if records else {}
    text = _page(plan, records, apart, list(drawn))
    write_atomically(plan.out / TABLES, text.encode())
    write_atomically(plan.out / "tables.csv", _scores_csv(plan, records).encode())
    write_atomically(plan.out / "differences.csv", _differences_csv(apart).encode())
    for name, svg in drawn.items():
        write_atomically(plan.out / "figures" / f"{name}.svg", svg.encode())
    first = (plan.run_folder(cell) for cell in records if cell.seed == plan.seeds[0])
    folders = [folder for folder in first if (folder / "examples.npz").is_file()]
    if folders:
        report(folders, out=plan.out / "report.html")


def _page(plan: Plan, records: Records, apart: list[Difference], figures: Sequence[str]) -> str:
    parts = [f"# {plan.name}", plan.about, _regime(plan, records)]
    if records:
        parts += ["## Scores and cost", _table(_score_rows(plan, records)), _legend(plan, records)]
        if apart:
            parts += ["## Paired differences", _table(_difference_rows(plan, apart)), _reading(apart)]
        for score in PER_CLIP:
            parts += [f"## {_label(records, score)} per lead time", _table(_lead_rows(plan, records, score))]
        parts += ["## Curves", *(f"![{name}](figures/{name}.svg)" for name in figures)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _regime(plan: Plan, records: Records) -> str:
    told = ", ".join(f"{name} {value}" for name, value in plan.training.items())
    total = len(plan.cells())
    data = ", ".join(f"{name} {value}" for name, value in plan.data_options.items())
    lines = [f"Data: {plan.data} ({data}).", f"Training: {told}; seeds {', '.join(map(str, plan.seeds))}."]
    if records:
        first = next(iter(records.values()))["evaluation"]
        hours = sum(record["training"]["seconds"] for record in records.values()) / 3600
        lines.append(f"Tested on {first['clips']:,} clips of the {first['split']} split.")
        lines.append(f"{len(records)} of {total} cells are done, {hours:.1f} hours of training.")
    else:
        lines.append(f"None of {total} cells is done.")
    return " ".join(lines) + f" Command: `{plan.command}`."


def _score_rows(plan: Plan, records: Records) -> Rows:
    scores = _scores(records)
    paper = plan.published
    head = [
        "model",
        "seeds",
        "clips trained",
        "Params",
        "MACs",
        "training, ms a clip",
        *(_label(records, s) for s in scores),
    ]
    rows = [head + ([f"paper: {_label(records, paper.score)}"] if paper.values else [])]
    for label in plan.models:
        own = _of(records, label)
        if not own:
            continue
        cost, clips = own[0]["cost"], {record["training"]["clips"] for record in own}
        pace = spread([record["training"]["seconds_per_clip"] for record in own]).mean
        row = [label, str(len(own)), " to ".join(f"{n:,}" for n in sorted({min(clips), max(clips)})),
               f"{cost['parameters']:,}", f"{cost['macs'] / 1e9:.3g} G", f"{1000 * pace:.4g}"]  # fmt: skip
        row += [_shown(spread([record["forecast"]["mean"].get(score) for record in own])) for score in scores]
        rows.append(row + ([f"{paper.values[label]:g}" if label in paper.values else ""] if paper.values else []))
    for name, found in _baselines(records).items():
        cells = [_shown(Spread(math.nan if (v := found["mean"].get(s)) is None else v, math.nan)) for s in scores]
        rows.append([name, "", "", "", "", "", *cells, *([""] if paper.values else [])])
    return rows


def _legend(plan: Plan, records: Records) -> str:
    said = ["Mean ± standard deviation over seeds. MACs are of one forecast, context included. Training time is the "
            "median over the log, on the machines that log.csv names, whatever else ran there."]  # fmt: skip
    if plan.published.values:
        said.append(f"The column “paper” holds numbers of {plan.published.source}, not ours.")
    notes = next(iter(records.values()))["evaluation"]["notes"]
    return " ".join([*said, *notes])


def _difference_rows(plan: Plan, apart: list[Difference]) -> Rows:
    paper = plan.published
    rows = [["model", "against", "score", "difference", "95 % interval", "in %", "differs", "seeds", "clips"]]
    if paper.values:
        rows[0].append("paper: in %")
    for one in apart:
        row = [one.model, one.reference, one.score.upper(), f"{one.mean:+.4g}", f"{one.low:+.4g} to {one.high:+.4g}",
               _percent(one.mean, one.base), one.differs, str(one.seeds), f"{one.clips:,}"]  # fmt: skip
        if paper.values:
            there = one.score == paper.score and {one.model, one.reference} <= paper.values.keys()
            base = paper.values.get(one.reference, math.nan)
            row.append(_percent(paper.values[one.model] - base, base) if there else "")
        rows.append(row)
    return rows


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:+.1f} %" if whole else UNDEFINED


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


def _lead_rows(plan: Plan, records: Records, score: str) -> Rows:
    leads = range(next(iter(records.values()))["evaluation"]["horizon"])
    rows = [["model", *(str(lead + 1) for lead in leads)]]
    for label in plan.models:
        own = [record["forecast"]["per_lead"].get(score) for record in _of(records, label)]
        known = [values for values in own if values]
        if known:
            rows.append([label, *(_shown(spread([values[lead] for values in known])) for lead in leads)])
    for name, found in _baselines(records).items():
        values = found["per_lead"].get(score)
        if values:
            rows.append([name, *(_shown(spread([values[lead]])) for lead in leads)])
    return rows


def _scores_csv(plan: Plan, records: Records) -> str:
    rows: list[Sequence[Any]] = [CSV_COLUMNS]
    for label in plan.models:
        own = _of(records, label)
        for score in _scores(records) if own else ():
            training = spread([record["training"]["seconds_per_clip"] for record in own]).mean
            facts = [
                len(own),
                own[0]["training"]["clips"],
                own[0]["cost"]["parameters"],
                own[0]["cost"]["macs"],
                f"{training:.4g}",
            ]
            for lead, values in _by_lead([record["forecast"] for record in own], score):
                rows.append(["ours", label, score, lead, *_plain(spread(values)), *facts])
    for name, found in _baselines(records).items():
        for score in _scores(records):
            rows += [
                ["ours", name, score, lead, *_plain(spread(values)), "", "", "", "", ""]
                for lead, values in _by_lead([found], score)
            ]
    rows += [
        [f"paper: {plan.published.source}", label, plan.published.score, "mean", value, "", "", "", "", "", ""]
        for label, value in plan.published.values.items()
    ]
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


def _shown(found: Spread) -> str:
    if math.isnan(found.mean):
        return UNDEFINED
    return f"{found.mean:.4g}" + ("" if math.isnan(found.deviation) else f" ± {found.deviation:.2g}")


def _table(rows: Rows) -> str:
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])


def _of(records: Records, label: str) -> list[Record]:
    """Return the records of a model, one a seed."""
    return [record for cell, record in records.items() if cell.model.label == label]


def _baselines(records: Records) -> dict[str, Any]:
    """Return the scores of the baselines, which are the same in all records."""
    return next(iter(records.values()))["baselines"] if records else {}


def _scores(records: Records) -> list[str]:
    """Return the names of the main scores."""
    if not records:
        return []
    return [name for name, info in next(iter(records.values()))["evaluation"]["scores"].items() if _main(info)]


def _main(info: Any) -> bool:
    return bool(info["main"])


def _label(records: Records, score: str) -> str:
    info = next(iter(records.values()))["evaluation"]["scores"].get(score)
    return str(info["label"]) if info else score
