"""Run a study: every trial that has no record is run in a process of its own, then the tables are written.

A process each, so that a trial that fails, or that the system kills for its memory, takes no other with it. To stop is
to interrupt the processes as Ctrl-C does: each saves the state of its training and continues from there next time.

Beside a trial's run folder ``seed0`` stand ``seed0.lock``, held while a process works on the trial, so that several
processes may share a study; and ``seed0.json``, the recipe it was started with and whether it is trained.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from framecast.api.data import data
from framecast.api.evaluate import evaluate
from framecast.api.train import train
from framecast.errors import (
    DataError,
    LockedError,
    OptionError,
    RunFolderError,
    TrialBusyError,
    check_count,
    check_number,
)
from framecast.files import locked, write_atomically
from framecast.studies.plan import StudyPlan, Trial, read_plan
from framecast.studies.records import Record, find_record, trial_cost, write_record
from framecast.studies.tables import TABLES, write_tables
from framecast.training.run_folder import RunFolder
from framecast.untrusted import reading

LOG_COLUMNS = ("command", "started", "trial", "outcome", "training_seconds", "evaluation_seconds", "threads", "machine",
               "python", "framecast", "torch", "lightning", "numpy")  # fmt: skip


def run_trial(plan: StudyPlan, trial: Trial, threads: int = 1) -> Record:
    """Train, score and record a trial, or return its record where it is done.

    Args:
        plan: the study.
        trial: the model and the seed.
        threads: threads of the processor.

    Raises:
        TrialBusyError: another process works on the trial.
        DataError: the run folder or the record is of another recipe than the study's.
        KeyboardInterrupt: Ctrl-C was pressed; the state of the training is saved.
    """
    with _exclusively(plan, trial):
        done = find_record(plan, trial)
        if done is not None:
            return done
        seconds = {"training": 0.0, "evaluation": 0.0}
        began, outcome = datetime.now(UTC), "failed"
        try:
            record = _run(plan, trial, threads, seconds)
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        finally:
            _log(plan, trial, began, outcome, seconds, threads)
    return record


def _run(plan: StudyPlan, trial: Trial, threads: int, seconds: dict[str, float]) -> Record:
    folder, options = plan.run_folder(trial), plan.training_of(trial)
    state = _state(plan, trial)
    process_options: dict[str, Any] = {"threads": threads, "progress": False}
    if not state["trained"]:
        if not RunFolder(folder).saved_checkpoints():
            # A run that was stopped before its first training state holds nothing to go on with.
            shutil.rmtree(folder, ignore_errors=True)
        with _timed(seconds, "training"):
            if folder.exists():
                train(out=folder, resume=True, **process_options)
            else:
                train(
                    trial.model.name, plan.data, out=folder, model_options=trial.model.options,
                    data_options=plan.data_options, **{**options, **process_options},
                )  # fmt: skip
        _write_state(plan, trial, {**state, "trained": True})
    with _timed(seconds, "evaluation"):
        results = evaluate(folder, **plan.evaluation, per_clip=True, bootstrap=0, examples=4, **process_options)
    spec = data(plan.data, **plan.data_options).spec
    costs = trial_cost(plan, trial, (spec.length, spec.channels, spec.height, spec.width), spec.context)
    return write_record(plan, trial, costs, results)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        seconds[stage] = time.monotonic() - began


def _sibling(plan: StudyPlan, trial: Trial, ending: str) -> Path:
    folder = plan.run_folder(trial)
    return folder.with_name(folder.name + ending)


def _state(plan: StudyPlan, trial: Trial) -> dict[str, Any]:
    """Return whether the run is trained, and write down the recipe of one that starts.

    Raises:
        DataError: the run was started with another recipe, or the file that says so is damaged.
    """
    path, recipe = _sibling(plan, trial, ".json"), plan.recipe(trial)
    if path.is_file() and plan.run_folder(trial).exists():
        with reading(path, remedy=f"delete it and {plan.run_folder(trial)} to begin again"):
            state: dict[str, Any] = json.loads(path.read_text())
            before, _ = state["recipe"], state["trained"]
        if before != recipe:
            raise DataError(
                f"{plan.run_folder(trial)} was started with another recipe than {plan.file} has now: delete the folder "
                "to begin again, or restore the file"
            )
        return state
    state = {"recipe": recipe, "trained": False}
    _write_state(plan, trial, state)
    return state


def _write_state(plan: StudyPlan, trial: Trial, state: dict[str, Any]) -> None:
    write_atomically(_sibling(plan, trial, ".json"), json.dumps(state, indent=1).encode())


@contextmanager
def _exclusively(plan: StudyPlan, trial: Trial) -> Iterator[None]:
    """Hold the trial's lock, which the system frees when the process ends, however it ends."""
    try:
        with locked(_sibling(plan, trial, ".lock")):
            yield
    except LockedError as error:
        raise TrialBusyError(f"another process works on {trial}: {error}") from error


def _log(plan: StudyPlan, trial: Trial, began: datetime, outcome: str, seconds: dict[str, float], threads: int) -> None:
    """Add a row to the study's log."""
    versions: dict[str, str] = {}
    with suppress(RunFolderError):  # a trial may fail for this very file; the row is written all the same
        versions = RunFolder(plan.run_folder(trial)).read_provenance().get("versions", {})
    command = f"{plan.command} --trial {trial.model.label} {trial.seed} --threads {threads}"
    facts = {
        "command": command,
        "started": began.isoformat(timespec="seconds"),
        "trial": str(trial),
        "outcome": outcome,
        "training_seconds": f"{seconds['training']:.1f}",
        "evaluation_seconds": f"{seconds['evaluation']:.1f}",
        "threads": threads,
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        **versions,
    }
    path = plan.out / "log.csv"
    # Trials that end at the same time must not both begin the file.
    with suppress(FileExistsError), path.open("x", newline="") as log:
        csv.writer(log, lineterminator="\n").writerow(LOG_COLUMNS)
    with path.open("a", newline="") as log:
        csv.writer(log, lineterminator="\n").writerow([facts.get(column, "") for column in LOG_COLUMNS])


log = logging.getLogger(__name__)
POLL_SECONDS = 0.2
BUSY = 3


class Outcome(NamedTuple):
    """How far a study is.

    Attributes:
        tables: the file of tables; None where a single trial was run.
        done: names of the trials that have a record.
        remaining: names of those that have none yet.
        failed: trial -> why it failed.
    """

    tables: Path | None
    done: list[str]
    remaining: list[str]
    failed: dict[str, str]


def study(
    file: str | Path,
    *,
    only: Sequence[str] = (),
    jobs: int = 1,
    threads: int | None = None,
    minutes: float | None = None,
    tables: bool = False,
    trial: Sequence[str] | None = None,
) -> Outcome:
    """Run what is left of a study, and write its tables from all results present.

    Args:
        file: the study's YAML file, see ``framecast.studies.plan``; or the folder that holds it as study.yaml.
        only: labels of the models to run; none for all. The tables hold all models all the same.
        jobs: trials to run at a time.
        threads: threads of the processor for each trial; None shares the cores among the jobs.
        minutes: start no trial after so many minutes and interrupt the running ones, which are continued next time.
        tables: run nothing, only write the tables.
        trial: a label and a seed, to run this one trial in this process and write no tables, as for an array of jobs.

    Returns:
        How far the study is; a failed trial does not stop the others.

    Raises:
        RunNotFoundError: there is no such file.
        UnknownNameError: a key, model or option that does not exist.
        ValueError: the file says something impossible.
        DataError: a result is damaged or was made with another recipe.
        TrialBusyError: another process works on the one ``trial``.
        KeyboardInterrupt: Ctrl-C was pressed; all states are saved.
    """
    plan = read_plan(file)
    check_count("jobs", jobs)
    if minutes is not None:
        check_number("minutes", minutes, least=0)
    share = threads or max(1, (os.cpu_count() or 1) // jobs)
    check_count("threads", share)
    failed: dict[str, str] = {}
    if trial is not None:
        one = plan.trial(*_one(trial))
        run_trial(plan, one, share)
        return Outcome(None, [str(one)], [], failed)
    remaining = [one for one in plan.trials(only) if find_record(plan, one) is None]
    if remaining and not tables:
        data(plan.data, **plan.data_options)  # data that is not there fails every trial alike: say so at once
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        failed = _TrialRunner(plan, jobs, share, deadline).work(remaining)
    return _outcome(plan, failed)


def _one(trial: Sequence[str]) -> tuple[str, int]:
    label, *rest = trial
    if len(rest) != 1 or not str(rest[0]).isdecimal():
        raise OptionError(
            f"trial is {' '.join(map(str, trial))!r} and must be a model's label and a seed, e.g. ms-lstm 0"
        )
    return label, int(rest[0])


def _outcome(plan: StudyPlan, failed: dict[str, str]) -> Outcome:
    records = {one: find_record(plan, one) for one in plan.trials()}
    present = {one: record for one, record in records.items() if record is not None}
    write_tables(plan, present)
    done = [str(one) for one in present]
    return Outcome(plan.out / TABLES, done, [str(one) for one in records if str(one) not in done], failed)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Hear Ctrl-C, and a kill like it, also where a shell put us in the background, which deafens us and our cells."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _TrialRunner:
    """Runs trials, some at a time, each in a process."""

    def __init__(self, plan: StudyPlan, jobs: int, threads: int, deadline: float | None) -> None:
        self.plan, self.jobs, self.threads, self.deadline = plan, jobs, threads, deadline
        self.running: dict[Trial, subprocess.Popen[bytes]] = {}
        self.failed: dict[str, str] = {}
        self.stopping = False

    def work(self, trials: list[Trial]) -> dict[str, str]:
        """Run all trials and return why those that failed did."""
        with _interruptible():
            self._work(list(trials))
        return self.failed

    def _work(self, waiting: list[Trial]) -> None:
        try:
            while self.running or (waiting and not self._late()):
                while waiting and len(self.running) < self.jobs and not self._late():
                    self._start(waiting.pop(0))
                if self._late():
                    self._stop()
                self._collect()
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            self._stop()
            for process in self.running.values():
                process.wait()
            raise KeyboardInterrupt(f"stopped; go on with framecast study {self.plan.file}") from None

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _start(self, trial: Trial) -> None:
        arguments = [str(self.plan.file), "--trial", trial.model.label, str(trial.seed), "--threads", str(self.threads)]
        log_path = self._log_path(trial)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("wb") as file:
            # A session of its own: Ctrl-C reaches the trial once, through us.
            self.running[trial] = subprocess.Popen(
                [sys.executable, "-m", "framecast", "study", *arguments],
                stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": str(self.threads)},
            )  # fmt: skip

    def _stop(self) -> None:
        if not self.stopping:
            self.stopping = True
            for process in self.running.values():
                process.send_signal(signal.SIGINT)

    def _collect(self) -> None:
        """Tell of the trials that have ended."""
        for trial, process in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[trial]
            if code == 0:
                log.warning("%s: done", trial)
            elif code == BUSY:
                log.warning("%s: left to the process that works on it", trial)
            elif self.stopping and code in (130, -signal.SIGINT):
                log.warning("%s: interrupted, to be continued", trial)
            else:
                lines = self._log_path(trial).read_text(errors="replace").strip().splitlines()
                self.failed[str(trial)] = lines[-1] if lines else f"ended with code {code}"
                log.warning("%s: failed: %s (all it said: %s)", trial, self.failed[str(trial)], self._log_path(trial))

    def _log_path(self, trial: Trial) -> Path:
        folder = self.plan.run_folder(trial)
        return folder.with_name(f"{folder.name}.log")


__all__ = ["BUSY", "Outcome", "study"]
