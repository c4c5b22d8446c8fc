"""An archive larger than one wants in memory: memory, speed against training, and the second opening.

Makes a Zarr of 20,000 frames of 180x180 in a temporary folder and one with 200,000 time stamps, and prints

- by how much memory grows while the archive is indexed and random windows are read (target: below 500 MB);
- windows read per second against what training of MS-LSTM 6x32 consumes on two cores (target: at least 5 times);
- the time to open an index of 200,000 time stamps the first and the second time (target: second below 2 s).

Run: python benchmarks/archive.py [--frames 20000] [--windows 2000] [--steps 2]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import zarr

import framecast as fc
from framecast.data.packing import Packing
from framecast.data.zarr_writer import FILL, ArchiveWriter, ConversionPlan, create_archive

SIZE, CONTEXT, HORIZON, BATCH = 180, 4, 4, 1
STAMPS = 200_000


def resident() -> float:
    """Return the resident memory of this process in MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def rain(rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth field of showers (1, H, W) in mm/h, three quarters of it dry, with a border without data."""
    coarse = torch.from_numpy(rng.gamma(0.3, 3.0, (1, 1, 12, 12)).astype(np.float32))
    field = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic")[0].clamp(min=0).numpy()
    field[field < np.quantile(field, 0.75)] = 0
    field[:, :8] = np.nan
    return field


def make_archive(path: Path, frames: int) -> None:
    times = 1_200_000_000 + np.arange(frames, dtype=np.int64) * 300
    times[frames // 2 :] += 86_400
    plan = ConversionPlan((1, SIZE, SIZE), "mm/h", Packing(0.01, 0.0, (FILL,)), times, frames, "benchmark")
    create_archive(path, plan)
    writer, rng = ArchiveWriter(path, plan), np.random.default_rng(0)
    fields = [rain(rng) for _ in range(32)]
    for number in range(frames):
        writer.write(number, np.roll(fields[number % 32], number, axis=2))


def make_stamps(path: Path) -> None:
    """Make an archive whose time axis lies in 2,000 chunks, as those have that grow day by day."""
    group = zarr.create_group(path, zarr_format=3)
    facts = {"units": "mm h-1", "scale_factor": 0.01, "_FillValue": FILL}
    rain = group.create_array("rainfall_rate", shape=(STAMPS, SIZE, SIZE), chunks=(1, SIZE, SIZE), dtype="uint16",
                              fill_value=FILL, dimension_names=("time", "y", "x"), attributes=facts)  # fmt: skip
    rain[7 * STAMPS // 20] = 0  # an archive without a single value is refused
    stamps = group.create_array("time", shape=(STAMPS,), chunks=(100,), dtype="int64", dimension_names=("time",),
                                attributes={"units": "seconds since 1970-01-01"})  # fmt: skip
    stamps[:] = 1_000_000_000 + np.arange(STAMPS) * 300


def training_consumes(steps: int) -> float:
    """Return the clips that training of MS-LSTM 6x32 consumes per second."""
    model = fc.create_model("ms-lstm", hidden=32, layers=6).train()
    optimizer = torch.optim.Adam(model.parameters())
    clip = torch.rand(BATCH, CONTEXT + HORIZON, 1, SIZE, SIZE)
    began = time.perf_counter()
    for step in range(steps + 1):
        if step == 1:
            began = time.perf_counter()
        rollout = model.rollout(clip, CONTEXT, HORIZON)
        loss = (rollout.frames - clip[:, 1:]).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return steps * BATCH / (time.perf_counter() - began)


def say(what: str, value: str, target: str, met: bool) -> bool:
    print(f"{what:<58} {value:>16}   target {target:<10} {'met' if met else 'MISSED'}", flush=True)
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--windows", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory(prefix="framecast-archive-") as name:
        folder = Path(name)
        os.environ["FRAMECAST_CACHE"] = str(folder / "cache")
        began = time.perf_counter()
        make_archive(folder / "rain.zarr", options.frames)
        took = time.perf_counter() - began
        disk = sum(file.stat().st_size for file in (folder / "rain.zarr").rglob("*") if file.is_file()) / 1e6
        whole = options.frames * SIZE * SIZE * 4 / 1e6
        print(f"{options.frames} frames of {SIZE}x{SIZE}: {disk:.0f} MB on disk, {whole:.0f} MB as float32, "
              f"made in {took:.0f} s")  # fmt: skip
        before = resident()
        data = fc.data(folder / "rain.zarr", context=CONTEXT, horizon=HORIZON)
        clips = data["train"]
        chosen = np.random.default_rng(1).integers(0, len(clips), options.windows)
        clips[0]
        began = time.perf_counter()
        for number in chosen:
            clips[int(number)]
        read = options.windows / (time.perf_counter() - began)
        good = [say("memory grown by indexing and reading, MB", f"{resident() - before:.0f}", "< 500",
                    resident() - before < 500)]  # fmt: skip
        consumed = training_consumes(options.steps)
        print(f"windows read per second, one process: {read:.0f}; consumed by training on two cores: {consumed:.2f}")
        good.append(say("reading against training", f"{read / consumed:.0f} times", ">= 5", read / consumed >= 5))
        make_stamps(folder / "stamps.zarr")
        took_to_open = []
        for _ in range(2):
            began = time.perf_counter()
            opened = fc.data(folder / "stamps.zarr", context=CONTEXT, horizon=HORIZON)
            took_to_open.append(time.perf_counter() - began)
        assert len(opened["train"]) > 0.69 * STAMPS
        print(f"opening {STAMPS} time stamps the first time: {took_to_open[0]:.2f} s")
        good.append(say("opening them the second time, s", f"{took_to_open[1]:.2f}", "< 2", took_to_open[1] < 2))
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
