"""Faults while a file is written: killed, out of space, interrupted, at any byte and at any step of the way."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import framecast as fc
from framecast import files as storage
from framecast.errors import WeightsError
from framecast.files import LEFTOVERS
from framecast.registry import Training
from framecast.training.callbacks import CheckedCheckpoints, Checkpointer, newest_checkpoint
from framecast.training.nonfinite import NonFiniteGuard
from framecast.training.order import ShuffledBatches
from framecast.training.run_folder import KEPT_CHECKPOINTS, RunFolder
from framecast.training.task import ForecastTask
from framecast.weights.saving import load_weights, save_weights
from torture.promise import Figure, Promise
from torture.runs import unequal

DATA: dict[str, Any] = {"size": 16, "context": 2, "horizon": 2, "clips": 60}
MODEL: dict[str, Any] = {"hidden": 4, "layers": 2}
CONTENTS: dict[str, Callable[[], BaseException]] = {
    "no space": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "exception": lambda: RuntimeError("injected"),
    "Ctrl-C": KeyboardInterrupt,
}
# What follows the last byte: the flush to disk, the rename, the flush of the folder.
STAGES = ("fsync", "replace", "folder")


class FaultyFile(io.FileIO):
    """A file that takes so many bytes, then calls ``fault``."""

    def __init__(self, handle: int, limit: int, fault: Callable[[], None]) -> None:
        super().__init__(handle, "wb")
        self.limit, self.fault = limit, fault

    def writelines(self, parts: Any) -> None:
        for part in parts:
            self.limit -= super().write(memoryview(part)[: self.limit])
            if self.limit <= 0:
                self.fault()


@contextlib.contextmanager
def faulty(place: int | str, fault: Callable[[], None]) -> Iterator[None]:
    """Let the next write fail after that many bytes, or before that stage."""

    def failing(*arguments: Any) -> None:
        fault()

    with pytest.MonkeyPatch.context() as patch:
        if isinstance(place, int):
            patch.setattr(storage.os, "fdopen", lambda handle, mode: FaultyFile(handle, place, fault))
        elif place == "fsync":
            patch.setattr(storage.os, "fsync", failing)
        elif place == "replace":
            patch.setattr(storage.Path, "replace", failing)
        else:
            patch.setattr(storage, "_sync_folder", failing)
        yield


def attempt(write: Callable[[], None], place: int | str, kind: str) -> bool:
    """Write with a fault of that kind, SIGKILL in a process of its own; return whether the write came back whole."""
    if kind == "SIGKILL":
        child = os.fork()
        if not child:
            with faulty(place, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                write()
            os._exit(0)
        return os.waitpid(child, 0)[1] == 0

    def fault() -> None:
        raise CONTENTS[kind]()

    try:
        with faulty(place, fault):
            write()
    except (OSError, RuntimeError, KeyboardInterrupt):
        return False
    return True


def small_run(folder: Path) -> RunFolder:
    """Train a few batches, and return the run, which has two training states."""
    run = fc.train("convlstm", "moving-mnist", out=folder, model_options=MODEL, data_options=DATA, steps=3, batch=4,
                   save_every=1, validate_clips=4, accelerator="cpu", progress=False)  # fmt: skip
    return RunFolder(run.path)


def faults(folder: Path, times: int) -> Figure:
    """Fail while a training state and while weights are written; both must read as the old or the new ones."""
    rng, run, checkpoints = np.random.default_rng(3), small_run(folder / "run"), CheckedCheckpoints()
    previous, older = run.saved_checkpoints()
    state = checkpoints.load_checkpoint(previous)
    newest, size = run.checkpoint(1000), previous.stat().st_size
    forecaster = load_weights(run.weights)[0]
    old_weights, weights_size = run.weights.read_bytes(), run.weights.stat().st_size
    run.weights.chmod(0o640)
    broken: list[str] = []
    new = 0
    for trial in range(times):
        kind = ["SIGKILL", *CONTENTS][trial % 4]
        # One in five after the last byte.
        late = trial % 5 == 4
        places = [STAGES[trial % 3] if late else int(rng.integers(0, length)) for length in (size, weights_size)]
        attempt(partial(checkpoints.save_checkpoint, {**state, "trial": trial}, newest), places[0], kind)
        attempt(partial(save_weights, forecaster, run.weights, trial=trial), places[1], kind)
        # What a start does: look for the newest state, clean up.
        found, problems = newest_checkpoint(run)
        run.remove_leftovers()
        expected = {previous: state, newest: {**state, "trial": trial}}
        wrong = [*problems]
        if found not in expected or unequal(checkpoints.load_checkpoint(found), expected[found], "state"):
            wrong.append(f"{found.name} is neither the old nor the new state")
        if not older.exists():
            wrong.append("an older state is gone")
        with contextlib.suppress(WeightsError):
            if run.weights.read_bytes() != old_weights and load_weights(run.weights)[1]["facts"] != {"trial": trial}:
                wrong.append("the weights are neither the old nor the new ones")
        try:
            load_weights(run.weights)
        except WeightsError as error:
            wrong.append(str(error))
        if run.weights.stat().st_mode & 0o777 != 0o640:
            wrong.append(f"the weights' mode is {run.weights.stat().st_mode & 0o777:o}")
        wrong += [f"left over: {name}" for name in run.path.rglob(LEFTOVERS)]
        new += found == newest
        broken += [f"{kind} at {places}: {wrong}"] if wrong else []
        newest.unlink(missing_ok=True)
        run.weights.write_bytes(old_weights)
    note = f"newest state {new} times, the one before {times - new} times; SIGKILL, no space, exception, Ctrl-C"
    return Figure(times - len(broken), times, note, tuple(broken))


def keeping(folder: Path, times: int) -> Figure:
    """Save so many states, and let validation be NaN, infinite, better and worse in turn."""
    run, data = small_run(folder / "run"), fc.data("moving-mnist", **DATA)
    for state in run.saved_checkpoints():
        state.unlink()
    run.weights.unlink()
    task = ForecastTask(load_model(), data.spec, Training(), seed=0, per_epoch=9, total=9)
    order, guard = ShuffledBatches(60, 4, 9, 0), NonFiniteGuard("raise", 1, 1)
    keeper = Checkpointer(run, order, guard, save_every=1, validate_every=1, accumulate=1, minutes=None, average=None)
    trainer = Stand()
    rng, best, broken = np.random.default_rng(0), np.inf, []
    for number in range(times):
        score = [np.nan, np.inf, float(rng.random())][number % 3]
        best = min(best, score) if np.isfinite(score) else best
        keeper.done = number + 1
        trainer.callback_metrics = dict.fromkeys(("validation_mse", "validation_cost"), torch.tensor(score))
        keeper.on_validation_end(trainer, task)  # type: ignore[arg-type]
        kept = [state.name for state in run.saved_checkpoints()]
        if kept != [run.checkpoint(k).name for k in range(number + 1, 0, -1)][:KEPT_CHECKPOINTS]:
            broken.append(f"after {number + 1} saves: {kept}")
        elif run.weights.exists() != (number >= 2):
            broken.append(f"after a score of {score}, weights exist: {run.weights.exists()}")
        elif number >= 2 and not np.isclose(load_weights(run.weights)[1]["facts"]["validation_mse"], best):
            broken.append(f"after a score of {score} the best is not {best}")
    note = f"{len(run.saved_checkpoints())} states and the best weights are left"
    return Figure(times - len(broken), times, note, tuple(broken))


def load_model() -> Any:
    """Return a small model."""
    return fc.create_model("convlstm", **MODEL)


class Stand:
    """What the keeper asks of a trainer, and no more."""

    is_global_zero = True

    class state:
        fn = "fit"

    callback_metrics: dict[str, torch.Tensor]

    def save_checkpoint(self, path: Path) -> None:
        CheckedCheckpoints().save_checkpoint({"state": 1}, path)


def falling_back(folder: Path, times: int) -> Figure:
    """Damage the newest state, then both, and resume: from the one before, or not at all and with an error."""
    rng, run, broken = np.random.default_rng(5), small_run(folder / "run"), []
    for trial in range(times):
        part = RunFolder(shutil.copytree(run.path, folder / f"part-{trial}"))
        states = part.saved_checkpoints()
        for damaged in range(1, 3):
            path = states[damaged - 1]
            content = bytearray(path.read_bytes())
            if rng.random() < 0.5:
                content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
            else:
                del content[int(rng.integers(len(content))) :]
            path.write_bytes(content)
            try:
                found, problems = newest_checkpoint(part)
            except WeightsError as error:
                named = all(str(state) in str(error) for state in states)
                broken += [] if damaged == 2 and named else [f"trial {trial}: {error}"]
            else:
                good = damaged == 1 and found == states[1] and str(states[0]) in " ".join(problems)
                broken += [] if good else [f"trial {trial}: {found} {problems}"]
        shutil.rmtree(part.path)
    return Figure(2 * times - len(broken), 2 * times, "", tuple(broken))


PROMISES = [
    Promise("R3", "A write that is killed, runs out of space or is interrupted at any byte leaves the newest or the "
            "previous training state and weights readable, file modes as they were, and nothing else after the next "
            "start", faults, long=50, short=12),
    Promise("R4", "Of two training states the newer one damaged, the other is taken, and the message names the "
            "damaged one; both damaged, an error names both", falling_back, long=20, short=3),
    Promise("R5", "After every save the last two states are there and the best weights; NaN and infinity are never the "
            "best", keeping, long=100, short=12),
]  # fmt: skip
