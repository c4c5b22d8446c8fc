"""SIGKILL: a training that is killed at any time goes on bit for bit, as if it had not been."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import framecast as fc
from framecast.storage import LEFTOVERS
from framecast.training import run_folder
from framecast.training.run_folder import RunFolder
from torture.promise import Figure, Promise
from torture.runs import STEPS, TRAIN, differences, finish, kill, printed, start

# A model with dropout and running means; R1 has the one with scheduled sampling.
SIMVP = {"context": 2, "horizon": 2, "hid_S": 4, "hid_T": 8, "N_S": 2, "N_T": 3, "mlp_ratio": 2.0, "drop": 0.2}
DATA = {"size": 16, "context": 2, "horizon": 2, "clips": 60}


def random_kills(folder: Path, times: int) -> Figure:
    """Kill the command line at random times, half of the runs with two worker processes, and compare the ends."""
    rng, held, broken, torn, done = np.random.default_rng(7), 0, [], 0, []
    whole: dict[int, tuple[Path, float]] = {}
    for trial in range(times):
        workers = 2 * ((trial + 1) % 2)
        options = [*TRAIN, "--workers", str(workers)]
        if workers not in whole:
            out = folder / f"whole-{workers}"
            process, began = start(out, options), 0.0
            while process.poll() is None:
                if not began and (out / "config.yaml").exists():
                    began = time.monotonic()
                time.sleep(0.01)
            assert process.returncode == 0, printed(out)
            whole[workers] = out, time.monotonic() - began
        reference, lasts = whole[workers]
        out, process = folder / f"run-{trial}", None
        process = start(out, options)
        while not (out / "config.yaml").exists() and process.poll() is None:
            time.sleep(0.001)
        # From just after the run began to just before its end.
        time.sleep(rng.uniform(0, 0.9) * lasts)
        hit = kill(process.pid)
        process.wait()
        torn += bool(list(out.rglob(LEFTOVERS)))
        states = RunFolder(out).saved_checkpoints()
        done.append(int(states[0].stem.split("-")[1]) if states else 0)
        code = finish(out, ["train", "--resume", "--accelerator", "cpu", "--threads", "1", "--progress", "false",
                            "--workers", str(workers)])  # fmt: skip
        wrong = [f"exit code {code}: {printed(out)[-2000:]}"] if code else differences(reference, out)
        wrong += [] if hit else ["it had ended before the kill"]
        wrong += [f"left over: {name}" for name in out.rglob(LEFTOVERS)]
        held += not wrong
        broken += [f"trial {trial}, workers {workers}, killed after batch {done[-1]}: {wrong}"] if wrong else []
    note = f"killed after batch {', '.join(map(str, sorted(done)))}; {torn} in the middle of a write"
    return Figure(held, times, note, tuple(broken))


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
