"""The record of a study's trial: a small file with all that the tables need, so the run folder may be deleted.

It has the recipe, the cost, the learning curve, the scores per lead time, and two scores of every test clip, rounded to
six digits, for paired differences. A trial that has a record is done. A record of another recipe than the study's is
refused, never overwritten.

Cost is counted for model and training, timed by the evaluation, and hours come from the logs. Counting needs no trained
model, so a record written before a count existed gets it added. A count is of 32-bit numbers on a processor, whatever
the trial was trained on.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from framecast.api.train import options_in_training
from framecast.cost.count import create_for_shape, model_cost
from framecast.data.clips import ClipSpec
from framecast.data.scaling import DbzPixel
from framecast.errors import DataError
from framecast.files import read_sealed, sealed_json, write_atomically
from framecast.registry import RAIN_RATE
from framecast.studies.plan import StudyPlan, Trial, read_plan
from framecast.training.options import training_options
from framecast.training.run_folder import RunFolder
from framecast.untrusted import reading

Record = dict[str, Any]
Records = dict[Trial, Record]
PER_CLIP = ("mse", "ssim")
NEEDED = ("recipe", "cost", "training", "curve", "forecast", "baselines", "evaluation")


def find_record(plan: StudyPlan, trial: Trial) -> Record | None:
    """Return the record of a trial, the study's own or one of equal recipe in a study of ``also``; None if not done.

    Raises:
        DataError: a record is damaged or was made with another recipe.
    """
    result_file, recipe = plan.result_file(trial), plan.recipe(trial)
    if result_file.is_file():
        record = _read(result_file)
        if record["recipe"] != recipe:
            raise DataError(
                f"{result_file} was made with {_differences(record['recipe'], recipe)} in {plan.file}: "
                "restore the file, or give the study another name and folder"
            )
        return record
    for folder in plan.also:
        other = read_plan(folder)
        for path in sorted((other.out / "results").glob(f"*-seed{trial.seed}.json")):
            record = _read(path)
            if record["recipe"] == recipe:
                return record
    return None


def run_of_record(plan: StudyPlan, trial: Trial, record: Record) -> Path:
    """Return the run folder a record is of, in this study or in one of ``also``; it may be gone."""
    if not plan.result_file(trial).is_file():
        for folder in plan.also:
            other = read_plan(folder)
            if other.name == record["study"]:
                return other.out / "runs" / str(record["model"]) / f"seed{record['seed']}"
    return plan.run_folder(trial)


def _read(path: Path) -> Record:
    with reading(path, "is not a record of a study's trial", "restore it, or delete it to run the trial"):
        record: Record = read_sealed(path)
        if missing := [name for name in NEEDED if name not in record]:
            raise KeyError(", ".join(missing))
    return record


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say what two recipes differ in."""
    lines = []
    for key in now:
        if isinstance(now[key], dict):
            names = sorted(before[key].keys() | now[key].keys())
            lines += [
                f"{key}.{name}={before[key].get(name)} and stands as {now[key].get(name)}"
                for name in names
                if before[key].get(name) != now[key].get(name)
            ]
        elif before[key] != now[key]:
            lines.append(f"{key}={before[key]} and stands as {now[key]}")
    return ", ".join(lines)


def write_record(plan: StudyPlan, trial: Trial, cost: dict[str, Any], results: dict[str, Any]) -> Record:
    """Write the record of a trial whose run folder is trained and evaluated.

    Args:
        plan: the study.
        trial: the model and the seed.
        cost: what was counted, see ``framecast.studies.records``.
        results: what ``evaluate`` returned, with the scores of each clip.
    """
    folder, training = RunFolder(plan.run_folder(trial)), plan.training_of(trial)
    batch, timing = int(folder.read_config()["training"]["batch"]), _rows(folder.logs / "timing.csv")
    batches, clock = int(timing[-1]["batch"]) if timing else 0, _Clock(timing)
    curve = _rows(folder.logs / "validation.csv")
    forecast = results["forecasts"][results["model"]]
    record = {
        "study": plan.name,
        "model": trial.model.label,
        "seed": trial.seed,
        "recipe": plan.recipe(trial),
        "cost": cost,
        "training": {
            "batches": batches,
            "steps": batches // int(training.get("accumulate") or 1),
            "clips": batches * batch,
            "seconds": round(clock.at(batches), 1),
            "seconds_per_clip": float(f"{clock.pace / batch:.4g}"),
        },
        "curve": {
            "batch": [int(row["batch"]) for row in curve],
            "clips": [int(row["batch"]) * batch for row in curve],
            "seconds": [round(clock.at(int(row["batch"])), 1) for row in curve],
            "validation_mse": [_short(float(row["validation_mse"])) for row in curve],
        },
        "evaluation": {
            key: results[key]
            for key in ("data", "split", "clips", "fingerprint", "context", "horizon", "scores", "notes")
        }
        | {"seconds_per_clip": _short(results["seconds_per_clip"])},
        "forecast": {
            "mean": forecast["mean"],
            "per_lead": forecast["per_lead"],
            "per_clip": {
                name: [_short(value) for value in forecast["per_clip"][name]]
                for name in ("clip", *PER_CLIP)
                if name in forecast["per_clip"]
            },
        },
        "baselines": {
            name: {"mean": scores["mean"], "per_lead": scores["per_lead"]}
            for name, scores in results["forecasts"].items()
            if name != results["model"]
        },
        **{key: value for key, value in folder.read_provenance().items() if key != "fingerprint"},
    }
    save_record(plan, trial, record)
    return record


def save_record(plan: StudyPlan, trial: Trial, record: Record) -> None:
    """Write the file of a trial's record."""
    write_atomically(plan.result_file(trial), sealed_json(record) + b"\n")


class _Clock:
    """Seconds of training at a batch, over all sittings: each row of the log tells the pace since the row before."""

    def __init__(self, timing: list[dict[str, str]]) -> None:
        batches = np.array([0, *(int(row["batch"]) for row in timing)])
        paces = np.array([float(row["seconds_per_batch"]) for row in timing])
        self.batches, self.seconds = batches, np.concatenate([[0.0], np.cumsum(np.diff(batches) * paces)])
        # The median, as some rows hold a validation and others the hiccups of a shared machine.
        self.pace = float(np.median(paces)) if len(paces) else 0.0

    def at(self, batch: int) -> float:
        return float(np.interp(batch, self.batches, self.seconds))


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


SECONDS = 3600


class Hours(NamedTuple):
    """Machine hours of a model, over all sittings of its trials that a log has a row of.

    Attributes:
        model: label of the model.
        sittings: rows of the logs.
        training: hours of processes, validations included.
        evaluation: hours of processes.
        unfinished: hours of both in sittings that were interrupted or failed.
    """

    model: str
    sittings: int
    training: float
    evaluation: float
    unfinished: float

    @property
    def total(self) -> float:
        """Return hours of training and evaluation."""
        return self.training + self.evaluation


def trial_cost(plan: StudyPlan, trial: Trial, shape: Sequence[int], context: int) -> dict[str, Any]:
    """Return what a trial costs, counted with its own recipe and batch, and the clips and batch it was counted for.

    Args:
        plan: the study.
        trial: the model and the seed.
        shape: (T, C, H, W) of the study's clips.
        context: past frames of them.
    """
    training = training_options(plan.training_of(trial))
    options = options_in_training(trial.model.name, trial.model.options, training)
    model = create_for_shape(trial.model.name, shape, context, options)
    recipe = training.recipe(model.recipe())
    # Losses that weigh errors by rate ask for a scaling of rain, whichever; nothing else that is counted asks for one.
    length, channels, height, width = shape
    model.clips = ClipSpec(height, width, channels, context, length - context, RAIN_RATE, DbzPixel())
    costs = model_cost(model, recipe, shape, context, batch=training.batch, recompute=training.recompute).to_dict()
    order = ("parameters", "macs", "shape", "context", "batch", "saved_bytes", "peak_bytes")
    facts = {**costs, "shape": list(shape), "context": context}
    return {name: facts[name] for name in order}


def complete_costs(plan: StudyPlan, records: Records) -> Records:
    """Return records with all counts of cost; the study's own that lacked one are written anew with it.

    Args:
        plan: the study.
        records: of the trials that are done.
    """
    costs: dict[str, dict[str, Any]] = {}
    completed: Records = {}
    for trial, record in records.items():
        cost, label = record["cost"], trial.model.label
        if "peak_bytes" not in cost:
            # Seeds of a model cost the same.
            costs[label] = costs.get(label) or trial_cost(plan, trial, cost["shape"], cost["context"])
            record = {**record, "cost": {**costs[label], **cost}}
            if plan.result_file(trial).is_file():
                save_record(plan, trial, record)
        completed[trial] = record
    return completed


def machine_hours(plan: StudyPlan, records: Records) -> tuple[list[Hours], list[str]]:
    """Return the machine hours of each model, and the names of trials of which a log lacks a sitting.

    Hours are those of processes: two trials that run side by side for an hour make two. A process that was killed wrote
    no row; where the log has less training than the record, the record's seconds count.

    Args:
        plan: the study; its own log counts whole, those of the studies in ``also`` where a trial was taken from there.
        records: of the trials that are done.
    """
    sittings = _log(plan.out)
    other_logs = {other.name: _log(other.out) for other in map(read_plan, plan.also)}
    hours_by_model: dict[str, list[Hours]] = {label: [] for label in plan.models}
    short = []
    for trial in plan.trials():
        record, rows = records.get(trial), sittings.pop(str(trial), [])
        if record is not None and not plan.result_file(trial).is_file():
            rows = rows + other_logs.get(record["study"], {}).get(f"{record['model']}-seed{record['seed']}", [])
        hours = _hours(trial.model.label, rows)
        trained = record["training"]["seconds"] / SECONDS if record is not None else 0.0
        if hours.training < trained:
            short.append(str(trial))
            hours = hours._replace(training=trained)
        if hours.total:
            hours_by_model[trial.model.label].append(hours)
    orphans = [_hours("", rows) for rows in sittings.values()]
    hours_by_model |= {"trials the study no longer has": orphans}
    return [add_hours(label, several) for label, several in hours_by_model.items() if several], short


def add_hours(label: str, hours: Iterable[Hours]) -> Hours:
    """Return the sum of hours under a label."""
    return Hours(label, *(sum(column) for column in zip(*(one[1:] for one in hours), strict=True)))


def _hours(label: str, rows: list[dict[str, str]]) -> Hours:
    def total(column: str, *outcomes: str) -> float:
        return sum(float(row[column]) for row in rows if not outcomes or row["outcome"] in outcomes) / SECONDS

    stages = ("training_seconds", "evaluation_seconds")
    unfinished = sum(total(stage, "interrupted", "failed") for stage in stages)
    return Hours(label, len(rows), total(stages[0]), total(stages[1]), unfinished)


def _log(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Return the rows of a study's log by trial.

    Raises:
        DataError: the log has no column ``trial``.
    """
    path = folder / "log.csv"
    rows_of: dict[str, list[dict[str, str]]] = {}
    if path.is_file():
        with path.open(newline="") as file:
            log = csv.DictReader(file)
            if "trial" not in (log.fieldnames or ()):
                raise DataError(f"{path} has no column 'trial': name the column of labels such as ms-lstm-seed0 so")
            for row in log:
                rows_of.setdefault(row["trial"], []).append(row)
    return rows_of
