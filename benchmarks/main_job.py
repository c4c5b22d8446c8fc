"""What the trainer, the clips and the evaluation cost beside the bare model, as ratios within one run.

Run: python benchmarks/main_job.py [--clips 4500]

1. trainer: seconds per step of ``framecast.train`` over those of a bare loop of forward, backward and optimiser on the
   same batches (MS-LSTM, 32x32, 5 -> 5), measured in turn.
2. clips: seconds to make a batch of clips at 64x64 over those of a training step of MS-LSTM 6x32 on it.
3. evaluation: growth of the process's peak memory while evaluating so many clips, the model loaded before.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import framecast as fc

STEPS, ROUNDS = 12, 5


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def bare_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, clip: torch.Tensor, context: int) -> None:
    rollout = model.rollout(clip, context, clip.shape[1] - context, torch.ones(len(clip), clip.shape[1] - 1) > 0)
    error = rollout.frames - clip[:, 1:]
    loss = (error.abs() + error.square()).sum((2, 3, 4)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def trainer() -> float:
    """Return the median ratio of a trainer's step to a bare one."""
    options = {"size": 32, "context": 5, "horizon": 5, "clips": 600}
    data = fc.data("moving-mnist", **options)
    clips = [torch.stack([data["train"][8 * i + j]["frames"] for j in range(8)]) for i in range(STEPS)]
    torch.manual_seed(0)
    model = fc.create_model("ms-lstm", hidden=16)
    optimizer = torch.optim.Adam(model.parameters(), 3e-4, fused=True)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            bare = [seconds(lambda clip=clip: bare_step(model, optimizer, clip, 5)) for clip in clips]
            out = Path(folder) / str(number)
            fc.train("ms-lstm", data, out=out, model_options={"hidden": 16}, steps=STEPS, batch=8, log_every=1,
                     validate_clips=1, progress=False)  # fmt: skip
            rows = (out / "log/timing.csv").read_text().splitlines()[2:]
            # The first step of either pays for warming up.
            ratios.append(statistics.median(float(row.split(",")[2]) for row in rows) / statistics.median(bare[1:]))
    return statistics.median(ratios)


def clips() -> float:
    """Return the ratio of making clips to training on them, at 64x64 and batch 4."""
    data = fc.data("moving-mnist")["train"]
    model = fc.create_model("ms-lstm")
    optimizer = torch.optim.Adam(model.parameters(), 3e-4, fused=True)
    batch = torch.stack([data[i]["frames"] for i in range(4)])
    bare_step(model, optimizer, batch, 10)
    step = statistics.median(seconds(lambda: bare_step(model, optimizer, batch, 10)) for _ in range(3))
    making = statistics.median(seconds(lambda: [data[i]["frames"] for i in range(4)]) for _ in range(50))
    return making / step


def evaluation(count: int) -> float:
    """Return the growth of peak memory in MB while evaluating."""
    options = {"size": 32, "context": 5, "horizon": 5, "clips": count * 10 // 3}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        fc.save_weights(fc.create_model("ms-lstm", hidden=16), weights)
        fc.evaluate(weights, data="moving-mnist", data_options=options, limit=16, progress=False)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fc.evaluate(weights, data="moving-mnist", data_options=options, limit=count, progress=False)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=4500)
    count = parser.parse_args().clips
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    # First, because a process's peak never falls again and training has a higher one.
    print(f"memory growth over {count} clips     {evaluation(count):.0f} MB (at most 1000)")
    print(f"trainer step / bare step           {trainer():.3f}   (at most 1.10)")
    print(f"making clips / training on them    {clips():.4f}  (at most 0.05)")


if __name__ == "__main__":
    main()
