"""Conduct a study: every cell that has no record is run in a process of its own, then the tables are written.

A process each, so that one that fails, or that the system kills for its memory, takes no other with it. To stop is to
interrupt the processes as Ctrl-C does: each saves the state of its training and goes on from there next time.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from framecast.api import data
from framecast.errors import check_count
from framecast.studies.plan import Plan, StudyCell, read_plan
from framecast.studies.records import find_record
from framecast.studies.single import BusyError, run_cell
from framecast.studies.writing import TABLES, write_tables

log = logging.getLogger(__name__)
POLL_SECONDS = 0.2
BUSY = 3


class Outcome(NamedTuple):
    """How far a study is.

    Attributes:
        tables: the file of tables; None where a single cell was run.
        done: names of the cells that have a record.
        left: names of those that have none yet.
        failed: cell -> why it failed.
    """

    tables: Path | None
    done: list[str]
    left: list[str]
    failed: dict[str, str]


def study(
    file: str | Path,
    *,
    only: Sequence[str] = (),
    jobs: int = 1,
    threads: int | None = None,
    minutes: float | None = None,
    tables: bool = False,
    cell: Sequence[str] | None = None,
) -> Outcome:
    """Run what is left of a study, and write its tables from all results present.

    Args:
        file: the study's YAML file, see ``framecast.studies.plan``; or the folder that holds it as study.yaml.
        only: labels of the models to run; none for all. The tables hold all models all the same.
        jobs: cells to run at a time.
        threads: threads of the processor for each cell; None shares the cores among the jobs.
        minutes: start no cell after so many minutes and interrupt the running ones, which are continued next time.
        tables: run nothing, only write the tables.
        cell: a label and a seed, to run this one cell in this process and write no tables, as for an array of jobs.

    Returns:
        How far the study is; a failed cell does not stop the others.

    Raises:
        FileNotFoundError: there is no such file.
        UnknownNameError: a key, model or option that does not exist.
        ValueError: the file says something impossible.
        DataError: a result is damaged or was made with another recipe.
        BusyError: another process works on the one ``cell``.
        KeyboardInterrupt: Ctrl-C was pressed; all states are saved.
    """
    plan = read_plan(file)
    check_count("jobs", jobs)
    if minutes is not None and minutes < 0:
        raise ValueError(f"minutes is {minutes} and must be at least 0")
    share = threads or max(1, (os.cpu_count() or 1) // jobs)
    check_count("threads", share)
    failed: dict[str, str] = {}
    if cell is not None:
        one = plan.cell(*_one(cell))
        run_cell(plan, one, share)
        return Outcome(None, [str(one)], [], failed)
    left = [one for one in plan.cells(only) if find_record(plan, one) is None]
    if left and not tables:
        data(plan.data, **plan.data_options)  # data that is not there fails every cell alike: say so at once
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        failed = _Crew(plan, jobs, share, deadline).work(left)
    return _outcome(plan, failed)


def _one(cell: Sequence[str]) -> tuple[str, int]:
    label, *rest = cell
    if len(rest) != 1 or not str(rest[0]).isdecimal():
        raise ValueError(f"cell is {' '.join(map(str, cell))!r} and must be a model's label and a seed, e.g. ms-lstm 0")
    return label, int(rest[0])


def _outcome(plan: Plan, failed: dict[str, str]) -> Outcome:
    records = {one: find_record(plan, one) for one in plan.cells()}
    present = {one: record for one, record in records.items() if record is not None}
    write_tables(plan, present)
    done = [str(one) for one in present]
    return Outcome(plan.out / TABLES, done, [str(one) for one in records if str(one) not in done], failed)


@contextmanager
def _heard() -> Iterator[None]:
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


class _Crew:
    """Runs cells, some at a time, each in a process."""

    def __init__(self, plan: Plan, jobs: int, threads: int, deadline: float | None) -> None:
        self.plan, self.jobs, self.threads, self.deadline = plan, jobs, threads, deadline
        self.running: dict[StudyCell, subprocess.Popen[bytes]] = {}
        self.failed: dict[str, str] = {}
        self.stopping = False

    def work(self, cells: list[StudyCell]) -> dict[str, str]:
        """Run all cells and return why those that failed did."""
        with _heard():
            self._work(list(cells))
        return self.failed

    def _work(self, waiting: list[StudyCell]) -> None:
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

    def _start(self, cell: StudyCell) -> None:
        arguments = [str(self.plan.file), "--cell", cell.model.label, str(cell.seed), "--threads", str(self.threads)]
        said = self._said(cell)
        said.parent.mkdir(parents=True, exist_ok=True)
        with said.open("wb") as file:
            # A session of its own: Ctrl-C reaches the cell once, through us.
            self.running[cell] = subprocess.Popen(
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
        """Tell of the cells that have ended."""
        for cell, process in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[cell]
            if code == 0:
                log.warning("%s: done", cell)
            elif code == BUSY:
                log.warning("%s: left to the process that works on it", cell)
            elif self.stopping and code in (130, -signal.SIGINT):
                log.warning("%s: interrupted, to be continued", cell)
            else:
                lines = self._said(cell).read_text(errors="replace").strip().splitlines()
                self.failed[str(cell)] = lines[-1] if lines else f"ended with code {code}"
                log.warning("%s: failed: %s (all it said: %s)", cell, self.failed[str(cell)], self._said(cell))

    def _said(self, cell: StudyCell) -> Path:
        folder = self.plan.run_folder(cell)
        return folder.with_name(f"{folder.name}.log")


__all__ = ["BUSY", "BusyError", "Outcome", "study"]
