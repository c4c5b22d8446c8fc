"""Forecasts of full radar maps on a processor: seconds and memory of 765x700 pixels, 4 -> 12 and 4 -> 24 frames.

Each line is a process of its own, so that the peak of memory is its own. Memory is what the process held at most,
beside what it held once the model was made.

Run: python benchmarks/bench.py --only "full maps"
One line of it: python benchmarks/full_maps.py MODEL HORIZON THREADS ROUNDS
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any

MODELS = ("sms-lstm", "ms-lstm")
HEIGHT, WIDTH, CONTEXT = 765, 700, 4
HORIZONS = (12, 24)


def forecast(model: str, horizon: int, threads: int, rounds: int) -> None:
    """Print seconds of the rounds and bytes at the peak of one forecast."""
    import torch

    import framecast as fc
    from framecast.compute.placement import place
    from framecast.cost.measure import process_memory

    torch.set_num_threads(threads)
    network = fc.create_model(model).eval()
    place(network, torch.device("cpu"))
    past, seconds = torch.rand(1, CONTEXT, 1, HEIGHT, WIDTH), []
    before = process_memory()[0]
    for _ in range(rounds):
        began = time.perf_counter()
        with torch.inference_mode():
            network(past, horizon)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": seconds, "bytes": process_memory()[1] - before}))


def run(threads: int, rounds: int = 3) -> list[dict[str, Any]]:
    """Return a row for each model and horizon: the median of the rounds."""
    rows = []
    for model in MODELS:
        for horizon in HORIZONS:
            print(f"full maps: {model}, {CONTEXT} -> {horizon}", file=sys.stderr, flush=True)
            command = [sys.executable, __file__, model, *map(str, (horizon, threads, rounds))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            seconds, memory = statistics.median(found["seconds"]), found["bytes"] / 1e9
            rows.append({"model": model, "frames": f"{CONTEXT} -> {horizon}", "seconds": seconds, "GB": memory})
    return rows


if __name__ == "__main__":
    model, *numbers = sys.argv[1:]
    forecast(model, *map(int, numbers))
