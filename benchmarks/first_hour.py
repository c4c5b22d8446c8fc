"""The first hour of two newcomers: every command they type, what they read, and how long each takes.

A student forecasts films, pictures and arrays of six axis orders with the weights that come along, then with a model of
their own; a researcher takes a cell from outside the repository through training, scores, a study and a report. The
script stops at the first command that fails.

Run: python benchmarks/first_hour.py [--fresh]     --fresh installs the repository into a new environment first
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

import framecast as fc

ROOT = Path(__file__).parent.parent
DIGITS = {"clips": 60}
ORDERS = ["thw", "tchw", "thwc", "nthw", "ntchw", "nthwc"]
SMALL = "--model_options.hidden 4 --model_options.layers 2 --steps 30 --batch 2"
LENGTHS = "--data_options.context {} --data_options.horizon {}"
OF_DIGITS = f"--data moving-mnist --data_options.size 32 --data_options.clips 60 {LENGTHS.format(5, 5)}"
CELL = """
import torch
from torch import nn
import framecast as fc
from framecast.cells.cell import Cell, zeros


class Leaky(Cell):
    def __init__(self, channels, kernel):
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(channels, channels, kernel, padding="same")

    def init_state(self, x):
        return (zeros(x),)

    def forward(self, x, state, memory):
        h = 0.9 * state[0] + torch.tanh(self.conv(x))
        return h, (h,), memory


def column(channels, depth, *, kernel=3):
    return [Leaky(channels, kernel) for _ in range(depth)]


fc.register_cell("leaky", fc.CellEntry(column, "Leaky", "nobody", "none"))
"""
STUDY = """
name: leaky
data: moving-mnist
data_options: {size: 32, context: 5, horizon: 5, clips: 60}
training: {steps: 10, batch: 2, progress: false}
evaluation: {limit: 10}
seeds: [0, 1, 2]
model_options: {hidden: 4, layers: 2}
models: {ms-leaky: {}, ms-lstm: {}}
reference: ms-lstm
"""


def make_files(folder: Path) -> list[str]:
    """Write digits that move as a student may have them, and return the names."""
    import av

    clip = fc.data("moving-mnist", **DIGITS)["test"][0]["frames"].numpy()  # (20, 1, 64, 64)
    pixels = (255 * clip[:, 0]).astype(np.uint8)
    pictures = [Image.fromarray(frame) for frame in pixels]
    with av.open(str(folder / "film.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=25)
        stream.height = stream.width = 64
        for frame in pixels:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame[..., None].repeat(3, -1), format="rgb24")))
        film.mux(stream.encode())
    pictures[0].save(folder / "film.gif", save_all=True, append_images=pictures[1:], duration=40)
    for kind in ("png", "jpg"):
        (folder / kind).mkdir()
        for number, picture in enumerate(pictures):
            picture.save(folder / kind / f"{number}.{kind}")
    arrays = {"thw": clip[:, 0], "tchw": clip, "thwc": np.moveaxis(clip, 1, -1), "nthw": clip[None, :, 0].repeat(3, 0),
              "ntchw": clip[None].repeat(3, 0), "nthwc": np.moveaxis(clip[None].repeat(3, 0), 2, -1)}  # fmt: skip
    for order in ORDERS:
        np.save(folder / f"{order}.npy", arrays[order])
    with h5py.File(folder / "film.h5", "w") as file:
        file["frames"] = pixels
    return ["film.mp4", "film.gif", "png", "jpg", *(f"{order}.npy" for order in ORDERS), "film.h5"]


class Newcomer:
    """Types commands in a folder, reads all of what they say, and looks at the clock."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python, self.folder, self.began = python, folder, time.monotonic()

    def types(self, line: str, *, fails: bool = False) -> None:
        """Run a command line of framecast and print it, what it says and the seconds; end where it fails."""
        began = time.monotonic()
        words = [str(self.python), "-m", "framecast", *line.split()]
        done = subprocess.run(words, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(f"\n$ framecast {line}    [{time.monotonic() - began:.1f} s]")
        for text in done.stdout.splitlines():
            print(f"  {text.rpartition(chr(13))[2]}")  # of a bar, what stands in the end
        if (done.returncode != 0) != fails:
            sys.exit(f"exit code {done.returncode}")


def fresh_environment(folder: Path) -> Path:
    """Install the repository into a new virtual environment and return its interpreter."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    constraints = ["-c", str(ROOT / "constraints.txt")]
    subprocess.run([python, "-m", "pip", "install", "-q", *constraints, f"{ROOT}[all]"], check=True)
    print(f"installed into a new environment    [{time.monotonic() - began:.0f} s]")
    return python


def student(newcomer: Newcomer, files: list[str]) -> None:
    """Forecast everything with the weights that come along, then train."""
    newcomer.types("--help")
    newcomer.types("models")
    for file in files:
        newcomer.types(f"predict ms-lstm-moving-mnist {file} --out {file.replace('.', '-')}-forecast")
    newcomer.types("predict ms-lstm-moving-mnist film.mp4 --out film-mp4-forecast", fails=True)
    newcomer.types(f"data info film.mp4 {LENGTHS.format(2, 1)}")
    newcomer.types(f"train --modle ms-lstm --data film.mp4 --out own {SMALL}", fails=True)
    newcomer.types(f"train --model ms-lstm --data film.mp4 {LENGTHS.format(2, 1)} --out own {SMALL}")
    newcomer.types("predict own film.mp4 --horizon 5 --out own-forecast")


def researcher(newcomer: Newcomer) -> None:
    """Take a cell of one's own from training to a report."""
    newcomer.types(f"train --model ms-leaky {OF_DIGITS} --out leaky {SMALL}", fails=True)
    newcomer.types(f"train --import my_cell.py --model ms-leaky {OF_DIGITS} --out leaky {SMALL}")
    newcomer.types("evaluate leaky --import my_cell.py --limit 10")
    newcomer.types("cost ms-leaky --import my_cell.py --shape 10 1 32 32")
    newcomer.types("study study.yaml --import my_cell.py")
    newcomer.types("report leaky --out leaky.html")


def main() -> None:
    """Play both, and say how long all of it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fresh", action="store_true", help="install into a new environment first")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="framecast-first-hour-") as name:
        folder = Path(name)
        os.environ["FRAMECAST_CACHE"] = str(folder / "cache")
        newcomer = Newcomer(fresh_environment(folder) if options.fresh else Path(sys.executable), folder)
        (folder / "my_cell.py").write_text(CELL)
        (folder / "study.yaml").write_text(STUDY)
        student(newcomer, make_files(folder))
        researcher(newcomer)
        print(f"\nall of it    [{time.monotonic() - newcomer.began:.0f} s]")


if __name__ == "__main__":
    main()
