"""SIGKILL: a training that is killed at any time goes on bit for bit, as if it had not been."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import framecast as fc
from framecast.files import LEFTOVERS
from framecast.training import run_folder
from framecast.training.run_folder import RunFolder
from torture.promise import Figure, Promise
from torture.runs import PATIENCE, STEPS, TRAIN, differences, finish, kill, printed, start

# A model with dropout and running means; R1 has the one with scheduled sampling.
SIMVP = {"context": 2, "horizon": 2, "hid_S": 4, "hid_T": 8, "N_S": 2, "N_T": 3, "mlp_ratio": 2.0, "drop": 0.2}
DATA = {"size": 16, "context": 2, "horizon": 2, "clips": 60}
# A state is saved after every seventh batch only, and every batch logged.
SELDOM = [*TRAIN, "--save_every", "7", "--log_every", "1"]


def random_kills(folder: Path, times: int) -> Figure:
    """Kill the command line after random batches, half of the runs with two worker processes, and compare the ends.

    States are saved every few batches, so most kills lose some. Every third resumed run is killed as well.
    """
    rng, held, broken, torn, done, again = np.random.default_rng(7), 0, [], 0, [], 0
    for trial in range(times):
        workers = str(2 * ((trial + 1) % 2))
        options, reference = [*SELDOM, "--workers", workers], folder / f"whole-{workers}"
        if not reference.exists():
            code = finish(reference, options)
            assert code == 0, printed(reference)
        out, wrong = folder / f"run-{trial}", list[str]()
        resume = ["train", "--resume", "--accelerator", "cpu", "--threads", "1", "--progress", "false",
                  "--workers", workers]  # fmt: skip
        starts = [options, resume] if trial % 3 == 2 else [options]
        last = STEPS if len(starts) == 1 else STEPS // 2
        for arguments in starts:
            process, known = start(out, arguments), _batches(out)
            batch = int(rng.integers(known, last))
            _wait_for_row(out, batch, process)
            time.sleep(rng.uniform(0, 0.03))
            wrong += [] if kill(process.pid) else ["it had ended before the kill"]
            process.wait()
            torn += bool(list(out.rglob(LEFTOVERS)))
            done.append(_batches(out))
            last = STEPS
        again += len(starts) - 1
        code = finish(out, resume)
        wrong += [f"exit code {code}: {printed(out)[-2000:]}"] if code else differences(reference, out)
        wrong += [f"left over: {name}" for name in out.rglob(LEFTOVERS)]
        held += not wrong
        broken += [f"trial {trial}, workers {workers}, killed after batch {done[-1]}: {wrong}"] if wrong else []
    note = f"killed after batch {', '.join(map(str, sorted(done)))}; {again} resumed runs killed too; {torn} in a write"
    return Figure(held, times, note, tuple(broken))


def _batches(out: Path) -> int:
    """Return how many batches a run has logged."""
    log = out / "log/timing.csv"
    return max(0, len(log.read_text().splitlines()) - 1) if log.exists() else 0


def _wait_for_row(out: Path, batch: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a training has logged so many batches; from 0 on, that it has its folder."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not ((out / "config.yaml").exists() and _batches(out) >= batch):
        assert time.monotonic() < deadline, printed(out)
        time.sleep(0.001)


def every_step(folder: Path, times: int) -> Figure:
    """Resume a run of as many steps from each of its training states."""
    options: dict[str, Any] = {"steps": times, "batch": 4, "save_every": 1, "validate_every": max(2, 3 * times // 8),
                               "validate_clips": 4, "log_every": 3, "schedule": "one-cycle", "accelerator": "cpu",
                               "progress": False}  # fmt: skip
    broken: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "KEPT_CHECKPOINTS", 1000)
        whole = fc.train("simvp-v2", "moving-mnist", out=folder / "whole", model_options=SIMVP, data_options=DATA,
                         **options).path  # fmt: skip
        assert len(RunFolder(whole).saved_checkpoints()) == times
        for step in range(times):
            part = folder / "part"
            shutil.copytree(whole, part)
            for later in RunFolder(part).saved_checkpoints()[: times - step]:
                later.unlink()
            # Step 0 goes on from the initial weights, as the training states are all gone.
            fc.train(out=part, resume=True, progress=False, accelerator="cpu")
            wrong = differences(whole, part)
            broken += [f"from step {step}: {wrong}"] if wrong else []
            shutil.rmtree(part)
    return Figure(times - len(broken), times, "shuffling, dropout, batch normalisation, one-cycle", tuple(broken))


PROMISES = [
    Promise("R1", "`framecast train` SIGKILLed at a random time and resumed ends with the same weights, optimiser "
            "state and log, bit for bit", random_kills, long=20, short=1),
    Promise("R2", f"the same from every step of a run (of {STEPS} in the long form)", every_step, long=STEPS, short=4),
]  # fmt: skip
