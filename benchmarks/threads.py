"""How threads should wait: a training on an idle machine, and beside programs that take one or all processors.

Each figure is a process of its own: ten steps of MS-LSTM, 4 clips of 32x32, 4 -> 4, after one to warm up. "spinning" is
the default of torch's OpenMP, whose threads spin for long while they wait; framecast has them sleep sooner.

Run: python benchmarks/threads.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import framecast as fc  # before torch, which reads once how its threads are to wait

STEPS = 10
LIMIT = 900
WAYS = {
    "framecast's default": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "spinning": {"GOMP_SPINCOUNT": "30000000000"},
    "sleeping at once": {"OMP_WAIT_POLICY": "passive"},
}


def train() -> None:
    """Print the milliseconds of a step."""
    import torch

    from framecast.compute.placement import arrange

    model = fc.create_model("ms-lstm")
    arrange(model, "auto", torch.device("cpu"))
    clip = torch.rand(4, 8, 1, 32, 32)

    def step() -> None:
        error = model.rollout(clip, 4, 4).frames - clip[:, 1:]
        model.zero_grad()
        error.square().sum().backward()

    step()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    print(f"{1000 * (time.perf_counter() - began) / STEPS:.0f}")


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """Run programs beside that never wait."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
    try:
        yield
    finally:
        for program in running:
            program.kill()
            program.wait()


def main() -> None:
    cores = os.cpu_count() or 1
    loads = (0, 1, cores)
    print("ms a step | " + " | ".join(f"beside {load}" for load in loads))
    for way, environment in WAYS.items():
        row = []
        for load in loads:
            with busy(load):
                try:
                    done = subprocess.run(
                        [sys.executable, __file__, "train"], env=os.environ | environment, capture_output=True,
                        text=True, timeout=LIMIT, check=True,
                    )  # fmt: skip
                    row.append(done.stdout.split()[-1])
                except subprocess.TimeoutExpired:
                    row.append(f"more than {1000 * LIMIT // (STEPS + 1)}")
        print(f"{way} | " + " | ".join(row), flush=True)


if __name__ == "__main__":
    train() if sys.argv[1:] == ["train"] else main()
