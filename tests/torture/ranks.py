"""Several processes: one that is lost takes the others along in time, and a restart goes on bit for bit."""

from __future__ import annotations

import signal
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

import framecast as fc
from framecast.cli import INTERRUPTED
from framecast.training.loop import training_loaders
from framecast.training.options import TrainingOptions
from framecast.training.order import ShuffledBatches
from torture.promise import Figure, Promise
from torture.runs import (
    PATIENCE,
    STEPS,
    TORCHRUN,
    TRAIN,
    differences,
    ended,
    finish,
    kill,
    printed,
    running,
    start,
    staying,
    wait_for_batch,
)

GONE_WITHIN, NOTICED_WITHIN = 60, 30
RESTARTS = [*TORCHRUN, "--max-restarts", "3"]
# The one command of the first start and of every restart.
AGAIN = [*TRAIN, "--resume"]


def workers(out: Path) -> list[int]:
    """Return the numbers of the processes that train, without torchrun's own, oldest first."""
    return sorted(number for number, words in running(out).items() if "torch.distributed.run" not in words)


def undisturbed(folder: Path) -> Path:
    """Train in two processes that nobody disturbs, and return the run folder."""
    out = folder / "whole"
    code = finish(out, AGAIN, TORCHRUN)
    assert code == 0, printed(out)
    return out


def restarts(folder: Path, times: int) -> Figure:
    """Kill one of two processes at a random step, let torchrun start both again, and compare the ends."""
    rng, whole, broken, steps = np.random.default_rng(9), undisturbed(folder), [], []
    for trial in range(times):
        out, steps = folder / f"run-{trial}", [*steps, int(rng.integers(1, STEPS - 10))]
        process = start(out, AGAIN, RESTARTS)
        wait_for_batch(out, steps[-1], process)
        two = workers(out)
        hit = len(two) == 2 and kill(two[trial % 2])
        code = ended(process)
        wrong = [f"exit code {code}: {printed(out)[-3000:]}"] if code else differences(whole, out)
        wrong += [] if hit else [f"there were {len(two)} processes to kill one of"]
        broken += [f"killed after step {steps[-1]}: {wrong}"] if wrong else []
    note = f"killed after step {', '.join(map(str, steps))}"
    return Figure(times - len(broken), times, note, tuple(broken))


def all_gone(folder: Path, times: int) -> Figure:
    """Kill one of two processes; the others, with those that prepare clips, must be gone in time."""
    broken, slowest = [], 0.0
    for trial in range(times):
        out, launcher = folder / f"run-{trial}", TORCHRUN if trial % 2 else []
        options = [*TRAIN, "--devices", "2", "--workers", "1", "--steps", "100000"]
        process = start(out, options, launcher)
        wait_for_batch(out, 3, process)
        first = process.pid if not launcher else workers(out)[0]
        others = [number for number in _trainers(out) if number != first]
        victim = first if trial // 2 % 2 else others[0]
        kill(victim)
        began = time.monotonic()
        while process.poll() is None or running(out):
            if time.monotonic() - began > GONE_WITHIN:
                broken.append(f"trial {trial}: still there: {running(out)}: {printed(out)[-2000:]}")
                for number in running(out):
                    kill(number)
                process.wait()
                break
            time.sleep(0.1)
        slowest = max(slowest, time.monotonic() - began)
    return Figure(times - len(broken), times, f"the slowest after {slowest:.0f} s", tuple(broken))


def _trainers(out: Path) -> list[int]:
    """Return the numbers of the processes that train, without those that prepare clips for them."""
    everyone = workers(out)
    parents = {number: _parent(number) for number in everyone}
    # Those that prepare clips were forked from a trainer; a second trainer has an environment of its own.
    return [number for number in everyone if parents[number] not in everyone or _has_rank(number, parents[number])]


def _parent(number: int) -> int:
    try:
        return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _has_rank(number: int, parent: int) -> bool:
    environments = [Path(f"/proc/{one}/environ").read_bytes() for one in (number, parent)]
    return environments[0] != environments[1]


def terminated(folder: Path, times: int) -> Figure:
    """Send SIGTERM to who started two processes; both must save and end, and a restart must end as if undisturbed."""
    rng, whole, broken, steps = np.random.default_rng(8), undisturbed(folder), [], []
    for trial in range(times):
        out, launcher = folder / f"run-{trial}", TORCHRUN if trial % 2 else []
        options = [*TRAIN, "--devices", "2", "--save_every", "1000"]
        process = start(out, options, launcher)
        log, step = out / "log/timing.csv", int(rng.integers(1, STEPS // 2))
        deadline = time.monotonic() + PATIENCE
        while not (log.exists() and len(log.read_text().splitlines()) > step // 3 + 1) and process.poll() is None:
            assert time.monotonic() < deadline, printed(out)
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        code, said = ended(process), printed(out)
        states = sorted((out / "checkpoints").glob("batch-*.ckpt"))
        steps.append(int(states[-1].stem.split("-")[1]) if states else 0)
        wrong = [] if launcher or code == INTERRUPTED else [f"exit code {code}"]
        wrong += [] if said.count("go on with --resume") == 1 and steps[-1] else [said]
        left = staying(out, GONE_WITHIN)
        wrong += [f"still there: {left}"] if left else []
        code = finish(out, ["train", "--resume", "--devices", "2", "--accelerator", "cpu", "--threads", "1",
                            "--progress", "false"], launcher)  # fmt: skip
        wrong += [f"exit code {code}: {printed(out)[-3000:]}"] if code else differences(whole, out)
        broken += [f"trial {trial}, after step {steps[-1]}: {wrong}"] if wrong else []
    note = f"saved after step {', '.join(map(str, steps))}; --devices 2 and torchrun in turn"
    return Figure(times - len(broken), times, note, tuple(broken))


def launcher_killed(folder: Path, times: int) -> Figure:
    """SIGKILL torchrun itself; its processes must save and end in time, and a restart must end as if undisturbed."""
    rng, whole, broken, slowest = np.random.default_rng(10), undisturbed(folder), [], 0.0
    for trial in range(times):
        out = folder / f"run-{trial}"
        process = start(out, AGAIN, TORCHRUN)
        wait_for_batch(out, int(rng.integers(1, STEPS // 2)), process)
        wrong = [] if kill(process.pid) else ["torchrun had ended before"]
        process.wait()
        began = time.monotonic()
        left = staying(out, NOTICED_WITHIN)
        slowest = max(slowest, time.monotonic() - began)
        wrong += [f"still there: {left}"] if left else []
        for number in left:
            kill(number)
        code = finish(out, AGAIN, TORCHRUN)
        wrong += [f"exit code {code}: {printed(out)[-3000:]}"] if code else differences(whole, out)
        broken += [f"trial {trial}: {wrong}"] if wrong else []
    return Figure(times - len(broken), times, f"the slowest after {slowest:.0f} s", tuple(broken))


def order(folder: Path, times: int) -> Figure:
    """Compare what clips a training is shown, in which order, with so many combinations of processes and workers."""
    del folder
    data, broken, expected = fc.data("moving-mnist", size=16, context=2, horizon=2, clips=60), [], None
    combinations = [(ranks, number) for number in (0, 2, 4) for ranks in (1, 2, 4)]
    # Short forms take a few that differ in both.
    chosen = [combinations[0], *combinations[:0:-1]][:times]
    for ranks, number in chosen:
        with warnings.catch_warnings():
            # More workers than this machine may have processors.
            warnings.simplefilter("ignore", UserWarning)
            shares = [_shown(data, rank, ranks, number) for rank in range(ranks)]
        together: list[Any] = []
        for batches in zip(*shares, strict=True):
            clips = [None] * sum(len(indices) for indices, _ in batches)
            for rank, (indices, frames) in enumerate(batches):
                clips[rank::ranks] = zip(indices, frames, strict=True)  # type: ignore[call-overload]
            together.append(clips)
        expected = expected or together
        same = all(
            a[0] == b[0] and torch.equal(a[1], b[1])
            for one, other in zip(expected, together, strict=True) for a, b in zip(one, other, strict=True)
        )  # fmt: skip
        broken += [] if same else [f"{ranks} processes, {number} workers"]
    return Figure(len(chosen) - len(broken), len(chosen), "clip numbers and pixels, two epochs", tuple(broken))


def _shown(data: Any, rank: int, ranks: int, number: int) -> list[tuple[list[int], torch.Tensor]]:
    """Return the clips that one process is shown in two epochs, and their numbers, batch by batch."""
    options = TrainingOptions(batch=8, workers=number, seed=3)
    batches = ShuffledBatches(len(data["train"]), 8, 8, 3, rank, ranks)
    train, _ = training_loaders(data, options, batches, pin=False)
    return [(batch["index"].tolist(), batch["frames"].clone()) for batch in train]


PROMISES = [
    Promise("R9", "One of two processes SIGKILLed, torchrun starts both again: the same end as undisturbed, bit for "
            "bit", restarts, long=5, short=0),
    Promise("R9", f"One of two processes SIGKILLed: all are gone within {GONE_WITHIN} s, whoever started them",
            all_gone, long=4, short=0),
    Promise("R9", "SIGTERM to two processes saves and ends both; the resumed run ends as if undisturbed", terminated,
            long=5, short=0),
    Promise("R9", f"torchrun itself SIGKILLed: its processes save and end within {NOTICED_WITHIN} s, and the resumed "
            "run ends as if undisturbed", launcher_killed, long=4, short=0),
    Promise("R10", "The same clips in the same order for 1, 2 and 4 processes and 0, 2 and 4 workers", order,
            long=9, short=3),
]  # fmt: skip
