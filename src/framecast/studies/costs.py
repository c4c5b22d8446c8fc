"""What the cells of a study cost: counted for model and training, timed by the evaluation, and hours from the logs.

Counts do not need a trained model, so records that were written before one of them existed get it added. A count is of
32-bit numbers on a processor, whatever the cell was trained on.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from framecast.analysis.counting import count_cost, create_fitting
from framecast.analysis.memory import count_step
from framecast.api.running import options_in_training
from framecast.datasets.clip import ClipSpec
from framecast.registry import model_entry
from framecast.studies.comparing import Records
from framecast.studies.plan import Plan, StudyCell, read_plan
from framecast.studies.records import save_record
from framecast.training.options import training_options

SECONDS = 3600


class Hours(NamedTuple):
    """Machine hours of a model, over all sittings of its cells that a log has a row of.

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


def cell_cost(plan: Plan, cell: StudyCell, spec: ClipSpec) -> dict[str, Any]:
    """Return what a cell costs, counted: see ``_counted``.

    Args:
        plan: the study.
        cell: the model and the seed.
        spec: the facts of the study's clips.
    """
    return _counted(plan, cell, (spec.length, spec.channels, spec.height, spec.width), spec.context)


def _counted(plan: Plan, cell: StudyCell, shape: tuple[int, ...], context: int) -> dict[str, Any]:
    """Return parameters, multiply-accumulates of a forecast of a clip, and bytes of a training step of a batch.

    ``saved_bytes`` is what the forward pass keeps for backward, ``peak_bytes`` all tensors at the step's peak.
    """
    training = training_options(plan.training_of(cell))
    options = options_in_training(cell.model.name, cell.model.options, training)
    model = create_fitting(cell.model.name, shape, context, options).eval()
    memory = count_step(
        model, training.recipe(model_entry(cell.model.name).training), shape, context, training.recompute
    )
    counted = count_cost(model.to("meta"), shape, context)
    return {
        "parameters": counted.parameters,
        "macs": counted.macs,
        "shape": list(shape),
        "context": context,
        "batch": training.batch,
        "saved_bytes": memory.saved(training.batch),
        "peak_bytes": memory.peak(training.batch),
    }


def complete_costs(plan: Plan, records: Records) -> Records:
    """Return records with all counts of cost; the study's own that lacked one are written anew with it.

    Args:
        plan: the study.
        records: of the cells that are done.
    """
    made: dict[str, dict[str, Any]] = {}
    found: Records = {}
    for cell, record in records.items():
        cost, label = record["cost"], cell.model.label
        if "peak_bytes" not in cost:
            # Seeds of a model cost the same.
            made[label] = made.get(label) or _counted(plan, cell, tuple(cost["shape"]), cost["context"])
            record = {**record, "cost": {**made[label], **cost}}
            if plan.result_file(cell).is_file():
                save_record(plan, cell, record)
        found[cell] = record
    return found


def machine_hours(plan: Plan, records: Records) -> tuple[list[Hours], list[str]]:
    """Return the machine hours of each model, and the names of cells of which a log lacks a sitting.

    Hours are those of processes: two cells that run side by side for an hour make two. A process that was killed wrote
    no row; where the log has less training than the record, the record's seconds count.

    Args:
        plan: the study; its own log counts whole, those of the studies in ``also`` where a cell was taken from there.
        records: of the cells that are done.
    """
    own = _log(plan.out)
    others = {other.name: _log(other.out) for other in map(read_plan, plan.also)}
    found: dict[str, list[Hours]] = {label: [] for label in plan.models}
    short = []
    for cell in plan.cells():
        record, rows = records.get(cell), own.pop(str(cell), [])
        if record is not None and not plan.result_file(cell).is_file():
            rows = rows + others.get(record["study"], {}).get(f"{record['model']}-seed{record['seed']}", [])
        hours = _hours(cell.model.label, rows)
        trained = record["training"]["seconds"] / SECONDS if record is not None else 0.0
        if hours.training < trained:
            short.append(str(cell))
            hours = hours._replace(training=trained)
        if hours.total:
            found[cell.model.label].append(hours)
    gone = [_hours("", rows) for rows in own.values()]
    found |= {"cells the study no longer has": gone}
    return [add_hours(label, several) for label, several in found.items() if several], short


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
    """Return the rows of a study's log by cell."""
    path = folder / "log.csv"
    found: dict[str, list[dict[str, str]]] = {}
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["cell"], []).append(row)
    return found
