"""A table of costs of many models at several shapes, with ratios to ConvLSTM, row by row and resumable.

A row is measured if the step is expected to fit into the machine's free memory and the time allowed, and counted only
where it is not, or where measuring failed; each row says which. Rows are kept in a CSV as they come, and those that
are there already are not made again.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from framecast.analysis.cost_rows import REFERENCE, Row, read_rows, rows_csv, rows_markdown
from framecast.analysis.counting import cost
from framecast.analysis.fitting_memory import heap_limit
from framecast.analysis.measuring import STEPS, MeasuringError, measure_base, measure_step
from framecast.analysis.memory import count_memory, shown_bytes
from framecast.errors import UnknownNameError
from framecast.registry import list_models, model_entry, paper_name
from framecast.storage import write_atomically

# The data sets of the MS-LSTM paper: clips (T, C, H, W) and context.
PAPER_SHAPES = {
    "moving-mnist": ((20, 1, 64, 64), 10),
    "taxibj": ((8, 2, 32, 32), 4),
    "kth": ((20, 1, 128, 128), 10),
    "german-radar": ((8, 1, 180, 180), 4),
}
# How much more than its tensors a process may take, at worst: factors up to 1.9 were seen.
CAUTION = 2.5
# A training step is a forward pass and a backward pass of twice its operations.
STEP_PASSES = 3
# How the note of a row begins that was not measured.
COUNTED = "counted"


class Clips(NamedTuple):
    """One block of the table: the clips that models are trained on.

    Attributes:
        label: name of a data set, or the shape.
        shape: (T, C, H, W).
        context: past frames.
    """

    label: str
    shape: tuple[int, ...]
    context: int


def read_clips(text: str) -> Clips:
    """Return the clips that "moving-mnist" or another of the paper's data sets, "T,C,H,W" or "T,C,H,W:CONTEXT" means.

    Without a context, half of the frames are past.

    Raises:
        UnknownNameError: it is neither a shape nor the name of such a data set.
        ValueError: an impossible shape or context.
    """
    name = text.lower().replace("_", "-")
    if name in PAPER_SHAPES:
        return Clips(name, *PAPER_SHAPES[name])
    numbers, _, past = text.partition(":")
    try:
        shape = tuple(int(number) for number in numbers.split(","))
        context = int(past) if past else shape[0] // 2
    except ValueError:
        raise UnknownNameError("shape T,C,H,W or T,C,H,W:CONTEXT, and no data set", text, PAPER_SHAPES) from None
    if len(shape) != 4 or min(shape) < 1 or not 0 < context < shape[0]:
        raise ValueError(f"the shape {text!r} cannot be: write T,C,H,W or T,C,H,W:CONTEXT, e.g. 8,1,32,32:4")
    return Clips(numbers, shape, context)


def make_cost_table(
    shapes: Sequence[str],
    *,
    models: Sequence[str] | None = None,
    batch: int = 1,
    seconds: float = 300.0,
    threads: int | None = None,
    out: str | Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> str:
    """Make a table of costs and return it as Markdown.

    Args:
        shapes: of clips, see ``read_clips``.
        models: names; None takes all.
        batch: clips of a training step.
        seconds: allowed for measuring a row.
        threads: threads of the processor; None leaves torch's choice.
        out: a .csv to keep the rows in, or an .md to write the table to, whose rows are kept in a .csv beside it;
            rows found there are not made again.
        tell: is told about each row.

    Raises:
        UnknownNameError: no such model or data set.
        ValueError: an impossible shape, another kind of file, or a CSV of something else.
        OSError: the file cannot be written.
    """
    blocks = [read_clips(shape) for shape in shapes]
    names = [paper_name(model_entry(name).name) for name in (models or list_models())]
    # Ratios need it first, and it is the reference even where it was not asked for.
    names = [REFERENCE, *(name for name in names if name != REFERENCE)]
    target = None if out is None else Path(out)
    if target is not None and target.suffix not in (".csv", ".md"):
        raise ValueError(f"the table cannot be written to {target}: name a file .csv or .md")
    kept = target.with_suffix(".csv") if target is not None else None
    rows = read_rows(kept) if kept is not None and kept.exists() else []
    made = _Maker(batch, seconds, threads or torch.get_num_threads())
    table = []
    for clips in blocks:
        for name in names:
            key = made.key(clips, name)
            before = next((row for row in rows if row.key() == tuple(map(str, key))), None)
            row = before
            if row is None or row.how.startswith(COUNTED):
                # What was only counted may be measured with more time or memory.
                start = time.monotonic()
                row = made.row(clips, name)
                rows = [other for other in rows if other is not before] + [row]
                tell(f"{clips.label} {name}: {row.how} ({time.monotonic() - start:.0f} s)")
                if kept is not None:
                    write_atomically(kept, rows_csv(rows).encode())
            table.append(row)
    text = rows_markdown(table)
    if target is not None and target.suffix == ".md":
        write_atomically(target, text.encode())
    return text


class _Maker:
    """Makes rows, and knows what the machine can do."""

    def __init__(self, batch: int, seconds: float, threads: int) -> None:
        self.batch, self.seconds, self.threads = batch, seconds, threads
        self.base = 0
        self.rate = 0.0

    def key(self, clips: Clips, name: str) -> tuple[Any, ...]:
        return (clips.label, name, *clips.shape, clips.context, self.batch, self.threads, torch.__version__)

    def row(self, clips: Clips, name: str) -> Row:
        """Count, and measure where it is expected to fit."""
        key = self.key(clips, name)
        try:
            counted = cost(name, clips.shape, clips.context)
            memory = count_memory(name, clips.shape, clips.context)
        except ValueError as error:
            return Row._make([*key, *[None] * 8, f"impossible: {error}"])
        macs = counted.macs * self.batch
        found = [counted.parameters, macs, memory.saved(self.batch), memory.peak(self.batch)]
        self.base = self.base or measure_base()
        self.rate = self.rate or convolution_rate(self.threads)
        needed = self.base + memory.peak(self.batch, CAUTION, heap_limit())
        if needed > free_memory():
            return Row._make([*key, *found, *[None] * 4, f"{COUNTED}: may need {shown_bytes(needed)}"])
        expected = STEPS * (STEP_PASSES + 1) * macs / self.rate
        if expected > self.seconds:
            return Row._make([*key, *found, *[None] * 4, f"{COUNTED}: measuring would take {expected:,.0f} s"])
        try:
            measured = measure_step(
                name, clips.shape, clips.context, batch=self.batch, threads=self.threads, seconds=self.seconds
            )
        except MeasuringError as error:
            return Row._make([*key, *found, *[None] * 4, f"{COUNTED}: measuring {error}"])
        return Row._make([*key, *found, measured.peak, measured.base, measured.step, measured.forecast, "measured"])


def free_memory() -> int:
    """Return the bytes that the machine could give to a new process."""
    known = Path("/proc/meminfo")
    if known.exists():
        lines = dict(line.split(":", 1) for line in known.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def convolution_rate(threads: int) -> float:
    """Return the multiply-accumulates per second of a convolution like those of the cells, measured."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    maps, weights = torch.rand(1, 64, 64, 64), torch.rand(128, 64, 3, 3)
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        torch.nn.functional.conv2d(maps, weights, padding=1)
        taken.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    return math.prod((128, 64, 9, 64 * 64)) / min(taken)
