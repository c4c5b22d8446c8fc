"""Memory that does not suffice: a message that helps, an exit code, and no traceback."""

from __future__ import annotations

import resource
from pathlib import Path

from framecast.cli import OUT_OF_MEMORY
from torture.promise import Figure, Promise
from torture.runs import TRAIN, ended, printed, start

# What torch and its libraries map before a model is made takes some GB of addresses, though little memory.
ADDRESSES = 6 * 2**30
# Batch, size, hidden channels: the very first map of features takes more.
CASES = (("32", "512", "256"), ("3", "2048", "128"), ("1", "2048", "512"))


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
        wanted = ["out of memory: tried convlstm with batch " + batch, f"4x1x{size}x{size}", "--recompute lean"]
        wanted += ["--accumulate"] if batch != "1" else []
        if code != OUT_OF_MEMORY or "Traceback" in said or not all(words in said for words in wanted):
            broken.append(f"exit code {code}: {said}")
    return Figure(times - len(broken), times, f"exit code {OUT_OF_MEMORY}", tuple(broken))


PROMISES = [
    Promise("R8", "Out of memory is a message that says what was tried and what needs less, and an exit code",
            out_of_memory, long=len(CASES), short=1),
]  # fmt: skip
