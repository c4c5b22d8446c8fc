"""Flipped bits and cut files: none is loaded as something it was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from framecast.errors import WeightsError
from framecast.training.callbacks import CheckedCheckpoints
from framecast.weights.saving import load_weights
from torture.faults import small_run
from torture.promise import Figure, Promise
from torture.runs import unequal


def weights(path: Path) -> Any:
    """Return all that a weights file says."""
    model, header = load_weights(path)
    return {"tensors": dict(model.state_dict()), "header": header}


def damaged(folder: Path, times: int, part: str, mutate: Callable[[bytearray, Any], None]) -> Figure:
    """Load a damaged file so many times: only our error that names the file, or the very same content, will do."""
    rng, run = np.random.default_rng(11), small_run(folder / "run")
    load: Callable[[Path], Any] = weights if part == "weights" else CheckedCheckpoints().load_checkpoint
    path = run.weights if part == "weights" else run.saved_checkpoints()[0]
    original, good = path.read_bytes(), load(path)
    broken: list[str] = []
    sums = harmless = 0
    for trial in range(times):
        content = bytearray(original)
        mutate(content, rng)
        path.write_bytes(content)
        try:
            loaded = load(path)
        except WeightsError as error:
            if str(path) not in str(error):
                broken.append(f"trial {trial}: the file is not named: {error}")
            sums += "has sha256" in str(error) and "should have" in str(error)
        except Exception as error:
            broken.append(f"trial {trial}: {type(error).__name__}: {error}")
        else:
            harmless += 1
            if unequal(loaded, good, "content"):
                broken.append(f"trial {trial} was loaded, and is not what was saved")
    note = f"{sums} errors name both checksums, {times - sums - harmless - len(broken)} say what else is wrong"
    note += f", {harmless} loaded with the very same content" if harmless else ""
    return Figure(times - len(broken), times, note, tuple(broken))


def flip(content: bytearray, rng: Any) -> None:
    """Flip one bit."""
    content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))


def cut(content: bytearray, rng: Any) -> None:
    """Cut off an end."""
    del content[int(rng.integers(len(content))) :]


PROMISES = [
    Promise("R4", "Weights with a flipped bit are an error that names the file",
            lambda folder, times: damaged(folder, times, "weights", flip), long=1000, short=60),
    Promise("R4", "Weights that are cut short are an error that names the file",
            lambda folder, times: damaged(folder, times, "weights", cut), long=200, short=20),
    Promise("R4", "A training state with a flipped bit is an error that names the file",
            lambda folder, times: damaged(folder, times, "state", flip), long=1000, short=60),
    Promise("R4", "A training state that is cut short is an error that names the file",
            lambda folder, times: damaged(folder, times, "state", cut), long=200, short=20),
]  # fmt: skip
