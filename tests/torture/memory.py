"""Memory that does not suffice: a message that helps, an exit code, and no traceback."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

from framecast.cli import OUT_OF_MEMORY
from torture.promise import Figure, Promise
from torture.ranks import GONE_WITHIN
from torture.runs import TORCHRUN, TRAIN, ended, printed, start, staying, torchrun_this

# What torch and its libraries map before a model is made takes some GB of addresses, though little memory.
ADDRESSES = 6 * 2**30
# What two processes take to begin, on a busy machine.
STARTING = 60
# Batch, size, hidden channels: the very first map of features takes more.
CASES = (("32", "512", "256"), ("3", "512", "1024"), ("1", "512", "1536"))


def out_of_memory(folder: Path, times: int) -> Figure:
    """Train what does not fit, in a process with a limit."""
    broken = []
    for trial in range(times):
        batch, size, hidden = CASES[trial]
        out = folder / str(trial)
        options = [*TRAIN, "--batch", batch, "--data_options.size", size, "--model_options.hidden", hidden]
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, before[1]))
        try:
            process = start(out, options)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        code, said = ended(process), printed(out)
        wanted = ["out of memory: tried convlstm with batch " + batch, f"4x1x{size}x{size}", "--recompute lean",
                  "What fits: by count, "]  # fmt: skip
        wanted += ["--accumulate"] if batch != "1" else []
        if code != OUT_OF_MEMORY or "Traceback" in said or not all(words in said for words in wanted):
            broken.append(f"exit code {code}: {said}")
    return Figure(times - len(broken), times, f"exit code {OUT_OF_MEMORY}", tuple(broken))


def in_one_rank(folder: Path, times: int) -> Figure:
    """Let one of two processes run out of memory; both must be gone in time, whoever started them."""
    broken, slowest = [], 0.0
    for trial in range(times):
        out, began = folder / str(trial), time.monotonic()
        hungry, launcher = str((1 + trial // 2) % 2), TORCHRUN if trial % 2 == 0 else []
        code = torchrun_this(__file__, out, hungry, launcher=launcher)
        left = staying(out, GONE_WITHIN)
        took, said = time.monotonic() - began, printed(out)
        slowest = max(slowest, took)
        wrong = [] if code else ["exit code 0"]
        wrong += [] if "out of memory: tried convlstm with batch 4" in said else ["no message"]
        wrong += [f"still there: {left}"] if left else []
        if wrong or took > GONE_WITHIN + STARTING:
            broken.append(f"trial {trial}, {took:.0f} s: {wrong}: {said[-2000:]}")
    return Figure(times - len(broken), times, f"the slowest {slowest:.0f} s after its start", tuple(broken))


def hungry_rank(out: Path, hungry: int) -> None:
    """Train in two processes of which one asks for more memory than there is."""
    import lightning
    import torch

    from torture.finite import trained

    class Hungry(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 2 and trainer.global_rank == hungry:
                torch.empty(2**60)

    trained(out / "run", Hungry(), 0, devices=2)  # type: ignore[arg-type]


PROMISES = [
    Promise("R8", f"One of two processes out of memory: both are gone within {GONE_WITHIN} s, with a message",
            in_one_rank, long=4, short=0),
    Promise("R8", "Out of memory is a message that says what was tried, what needs less and what fits, and an "
            "exit code",
            out_of_memory, long=len(CASES), short=1),
]  # fmt: skip

if __name__ == "__main__":
    hungry_rank(Path(sys.argv[1]), int(sys.argv[2]))
