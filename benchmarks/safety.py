"""What safety costs: a save with its flush and checksum, and the look for NaN and infinity at every step.

Prints

- the seconds to save a training state of 21 MB, flushed to disk and with its checksum (target: at most 0.2 s);
- the share of training time that saving takes at the default interval, one save and one file of weights an epoch of
  Moving MNIST with MS-LSTM 6x32 (target: at most 2 %);
- the share of a training step of MS-LSTM 6x32, batch 4, that the look for non-finite numbers takes (target: at most
  1 %). It is timed on its own, on the same weights, as the difference of two runs would drown in their noise.

Run: python benchmarks/safety.py [--steps 2] [--repeats 20]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

import framecast as fc
from framecast.training.callbacks import CheckedCheckpoints
from framecast.training.nonfinite import NonFiniteGuard
from framecast.weights.saving import save_weights

CONTEXT, HORIZON, BATCH, SIZE, CLIPS = 10, 10, 4, 64, 9_500
MEGABYTES = 21


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median of the seconds that ``work`` takes, after one time that is not counted."""
    work()
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def say(what: str, value: str, target: str, met: bool) -> bool:
    print(f"{what:<66} {value:>10}   target {target:<8} {'met' if met else 'MISSED'}", flush=True)
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = fc.create_model("ms-lstm", hidden=32, layers=6).train()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    clip = torch.rand(BATCH, CONTEXT + HORIZON, 1, SIZE, SIZE)

    def step() -> None:
        rollout = model.rollout(clip, CONTEXT, HORIZON)
        loss = (rollout.frames - clip[:, 1:]).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    seconds_per_step = median_seconds(step, options.steps)
    guard = NonFiniteGuard("raise", 1, 1)
    trainer: Any = SimpleNamespace(precision="32-true")
    module: Any = model
    loss, batch = torch.ones(()), {"index": torch.arange(BATCH)}

    def look() -> None:
        guard.on_train_batch_start(trainer, module, batch, 0)
        guard.on_before_backward(trainer, module, loss)
        guard.on_before_optimizer_step(trainer, module, optimizer)

    looking = median_seconds(look, 10 * options.repeats)
    with tempfile.TemporaryDirectory(prefix="framecast-safety-") as name:
        path, checkpoints = Path(name) / "state.ckpt", CheckedCheckpoints()
        numbers = {"numbers": torch.rand(MEGABYTES * 10**6 // 4)}
        one = median_seconds(lambda: checkpoints.save_checkpoint(numbers, path), options.repeats)
        state = {"weights": model.state_dict(), "optimizer": optimizer.state_dict()}
        saving = median_seconds(lambda: checkpoints.save_checkpoint(state, path), options.repeats)
        saving += median_seconds(lambda: save_weights(model, Path(name) / "weights.safetensors"), options.repeats)
    share = saving / (CLIPS // BATCH * seconds_per_step)
    print(f"a step takes {seconds_per_step:.2f} s, the look {looking * 1000:.2f} ms, state and weights {saving:.3f} s")
    good = [
        say(f"saving a state of {MEGABYTES} MB, s", f"{one:.3f}", "<= 0.2", one <= 0.2),
        say("saving once an epoch, share of training", f"{share:.5%}", "<= 2 %", share <= 0.02),
        say("looking for NaN and infinity, share of a step", f"{looking / seconds_per_step:.3%}", "<= 1 %",
            looking <= 0.01 * seconds_per_step),
    ]  # fmt: skip
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
