"""Forecasts of full radar maps on a processor: seconds and memory of 765x700 pixels, 4 -> 12 and 4 -> 24 frames.

Each line is a process of its own, so that the peak of memory is its own. Memory is what the process held at most,
beside what it held once the model was made.

Run: python benchmarks/full_maps.py [--threads 2] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        forecast(options.one[0], int(options.one[1]), options.threads, options.rounds)
        return
    print(f"{HEIGHT}x{WIDTH}, {options.threads} threads | seconds | GB beside the model")
    for model in MODELS:
        for horizon in HORIZONS:
            command = [sys.executable, __file__, "--threads", str(options.threads), "--rounds", str(options.rounds),
                       "--one", model, str(horizon)]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            seconds = statistics.median(found["seconds"])
            print(f"{model}, {CONTEXT} -> {horizon} | {seconds:.1f} | {found['bytes'] / 1e9:.2f}", flush=True)


if __name__ == "__main__":
    main()
