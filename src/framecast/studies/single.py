"""One cell of a study: trained into its run folder, or continued there, scored, and recorded.

Beside the run folder ``seed0`` stand ``seed0.lock``, held while a process works on the cell, so that several processes
may share a study; and ``seed0.json``, the recipe it was started with and the seconds each stage took.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from framecast.api import data, evaluate, train
from framecast.boundary import reading
from framecast.errors import DataError, HeldError, RunFolderError
from framecast.storage import held, write_atomically
from framecast.studies.costs import cell_cost
from framecast.studies.plan import Plan, StudyCell
from framecast.studies.records import Record, find_record, write_record
from framecast.training.run_folder import RunFolder

LOG_COLUMNS = ("command", "started", "cell", "outcome", "training_seconds", "evaluation_seconds", "threads", "machine",
               "python", "framecast", "torch", "lightning", "numpy")  # fmt: skip


class BusyError(RuntimeError):
    """Another process works on the cell."""


def run_cell(plan: Plan, cell: StudyCell, threads: int = 1) -> Record:
    """Train, score and record a cell, or return its record where it is done.

    Args:
        plan: the study.
        cell: the model and the seed.
        threads: threads of the processor.

    Raises:
        BusyError: another process works on the cell.
        DataError: the run folder or the record is of another recipe than the study's.
        KeyboardInterrupt: Ctrl-C was pressed; the state of the training is saved.
    """
    with _alone(plan, cell):
        done = find_record(plan, cell)
        if done is not None:
            return done
        spent = {"training": 0.0, "evaluation": 0.0}
        began, outcome = datetime.now(UTC), "failed"
        try:
            record = _run(plan, cell, threads, spent)
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        finally:
            _log(plan, cell, began, outcome, spent, threads)
    return record


def _run(plan: Plan, cell: StudyCell, threads: int, spent: dict[str, float]) -> Record:
    folder, options = plan.run_folder(cell), plan.training_of(cell)
    state = _state(plan, cell)
    here: dict[str, Any] = {"threads": threads, "progress": False}
    if not state["trained"]:
        if not RunFolder(folder).saved_checkpoints():
            # A run that was stopped before its first training state holds nothing to go on with.
            shutil.rmtree(folder, ignore_errors=True)
        with _timed(spent, "training"):
            if folder.exists():
                train(out=folder, resume=True, **here)
            else:
                train(
                    cell.model.name, plan.data, out=folder, model_options=cell.model.options,
                    data_options=plan.data_options, **{**options, **here},
                )  # fmt: skip
        _write_state(plan, cell, {**state, "trained": True})
    with _timed(spent, "evaluation"):
        results = evaluate(folder, **plan.evaluation, per_clip=True, bootstrap=0, examples=4, **here)
    return write_record(plan, cell, cell_cost(plan, cell, data(plan.data, **plan.data_options).spec), results)


@contextmanager
def _timed(spent: dict[str, float], stage: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        spent[stage] = time.monotonic() - began


def _beside(plan: Plan, cell: StudyCell, ending: str) -> Path:
    folder = plan.run_folder(cell)
    return folder.with_name(folder.name + ending)


def _state(plan: Plan, cell: StudyCell) -> dict[str, Any]:
    """Return whether the run is trained, and write down the recipe of one that starts.

    Raises:
        DataError: the run was started with another recipe, or the file that says so is damaged.
    """
    path, recipe = _beside(plan, cell, ".json"), plan.recipe(cell)
    if path.is_file() and plan.run_folder(cell).exists():
        with reading(path, remedy=f"delete it and {plan.run_folder(cell)} to begin again"):
            state: dict[str, Any] = json.loads(path.read_text())
            before, _ = state["recipe"], state["trained"]
        if before != recipe:
            raise DataError(
                f"{plan.run_folder(cell)} was started with another recipe than {plan.file} has now: delete the folder "
                "to begin again, or restore the file"
            )
        return state
    state = {"recipe": recipe, "trained": False}
    _write_state(plan, cell, state)
    return state


def _write_state(plan: Plan, cell: StudyCell, state: dict[str, Any]) -> None:
    write_atomically(_beside(plan, cell, ".json"), json.dumps(state, indent=1).encode())


@contextmanager
def _alone(plan: Plan, cell: StudyCell) -> Iterator[None]:
    """Hold the cell's lock, which the system frees when the process ends, however it ends."""
    try:
        with held(_beside(plan, cell, ".lock")):
            yield
    except HeldError as error:
        raise BusyError(f"another process works on {cell}: {error}") from error


def _log(plan: Plan, cell: StudyCell, began: datetime, outcome: str, spent: dict[str, float], threads: int) -> None:
    """Add a row to the study's log."""
    versions: dict[str, str] = {}
    with suppress(RunFolderError):  # a cell may fail for this very file; the row is written all the same
        versions = RunFolder(plan.run_folder(cell)).read_provenance().get("versions", {})
    command = f"{plan.command} --cell {cell.model.label} {cell.seed} --threads {threads}"
    facts = {
        "command": command,
        "started": began.isoformat(timespec="seconds"),
        "cell": str(cell),
        "outcome": outcome,
        "training_seconds": f"{spent['training']:.1f}",
        "evaluation_seconds": f"{spent['evaluation']:.1f}",
        "threads": threads,
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        **versions,
    }
    path = plan.out / "log.csv"
    # Cells that end at the same time must not both begin the file.
    with suppress(FileExistsError), path.open("x", newline="") as log:
        csv.writer(log, lineterminator="\n").writerow(LOG_COLUMNS)
    with path.open("a", newline="") as log:
        csv.writer(log, lineterminator="\n").writerow([facts.get(column, "") for column in LOG_COLUMNS])
