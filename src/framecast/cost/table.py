"""A table of costs of many models at several shapes, with ratios to ConvLSTM, row by row and resumable.

A row is measured if the step is expected to fit into the machine's free memory and the time allowed. Otherwise, or if
measuring fails, it is only counted; each row says which. Rows are stored in a CSV as they are made, and rows that are
there already are not made again.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from framecast.cost.count import cost
from framecast.cost.fit import CAUTION, free_memory, heap_limit
from framecast.cost.measure import STEPS, measure_base, measure_step
from framecast.cost.memory import shown_bytes
from framecast.cost.paper import PAPER_SHAPES
from framecast.errors import DataError, MeasurementError, OptionError, UnknownNameError
from framecast.files import write_atomically
from framecast.registry import canonical_name, list_models, model_entry, paper_name
from framecast.untrusted import reading

REFERENCE = "convlstm"


class CostRow(NamedTuple):
    """One row. Bytes and seconds are of a batch; what could not be found is None.

    Attributes:
        data, model, frames, channels, height, width, context, batch, threads, torch: what the row is of.
        parameters: numbers that training changes.
        macs: multiply-accumulates of a forecast of the batch.
        saved: bytes kept for backward, counted.
        counted: bytes of all tensors at the peak of a step, counted.
        process: bytes of the process at its peak, measured.
        base: bytes of it before the model was made.
        step: seconds of a training step, measured.
        forecast: seconds of a forecast, measured.
        how: "measured", or why not.
    """

    data: str
    model: str
    frames: int
    channels: int
    height: int
    width: int
    context: int
    batch: int
    threads: int
    torch: str
    parameters: int | None
    macs: int | None
    saved: int | None
    counted: int | None
    process: int | None
    base: int | None
    step: float | None
    forecast: float | None
    how: str

    def key(self) -> tuple[str, ...]:
        """Return what the row is of."""
        return tuple(map(str, self[:10]))


RATIOS = {"macs": "MACs ratio", "counted": "memory ratio", "step": "step ratio"}


def _ratios(row: CostRow, rows: Sequence[CostRow]) -> list[float | None]:
    reference = next((r for r in rows if r.key() == (row.data, REFERENCE, *row.key()[2:])), None)
    pairs = [(getattr(row, field), getattr(reference, field, None)) for field in RATIOS]
    return [value / other if value and other else None for value, other in pairs]


def rows_csv(rows: Sequence[CostRow]) -> str:
    """Return rows as CSV, ratios included; what is unknown is empty."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow([*CostRow._fields, *(name.replace(" ", "_") for name in RATIOS.values())])
    writer.writerows([*row, *_ratios(row, rows)] for row in rows)
    return content.getvalue()


def read_rows(path: Path) -> list[CostRow]:
    """Read rows that ``rows_csv`` wrote.

    Raises:
        DataError: the file holds something else.
    """
    other = "is not a table of costs of this version"
    with reading(path, other, "choose another file"), path.open(newline="") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    if header[: len(CostRow._fields)] != list(CostRow._fields):
        raise DataError(f"{path} {other}: choose another file")
    with reading(path, other, "choose another file"):
        return [_row(line) for line in lines]


def _row(line: Sequence[str]) -> CostRow:
    """Return the row that a line of the CSV stands for."""
    texts = dict(zip(CostRow._fields, line, strict=False))
    values: dict[str, Any] = {field: None if not text and field != "how" else text for field, text in texts.items()}
    for field, text in values.items():
        if field in ("step", "forecast") and text:
            values[field] = float(text)
        elif field not in ("data", "model", "torch", "how") and text:
            values[field] = int(text)
    return CostRow(**values)


def rows_markdown(rows: Sequence[CostRow]) -> str:
    """Return rows as Markdown, a table for each block of clips."""
    head = ["model", "Params", "MACs", "saved", "tensors", "process", "s/step", "s/forecast", *RATIOS.values(), "how"]
    lines: list[str] = []
    for i, row in enumerate(rows):
        if not i or rows[i - 1].data != row.data or rows[i - 1].context != row.context:
            size = " x ".join(map(str, row[2:6]))
            title = f"### {row.data}: {size}, context {row.context}, batch {row.batch}"
            lines += ["", f"{title}, {row.threads} threads, torch {row.torch}", ""]
            lines += [f"| {' | '.join(head)} |", f"|---{'|---:' * (len(head) - 2)}|---|"]
        counts = [_scaled(row.parameters, 1e6, "M"), _scaled(row.macs, 1e9, "G")]
        sizes = ["–" if size is None else shown_bytes(size) for size in (row.saved, row.counted, row.process)]
        times = ["–" if value is None else f"{value:.3g}" for value in (row.step, row.forecast)]
        ratios = ["–" if value is None else f"{value:.2f}" for value in _ratios(row, rows)]
        lines.append(f"| {' | '.join([row.model, *counts, *sizes, *times, *ratios, row.how])} |")
    return "\n".join(lines[1:]) + "\n"


def _scaled(value: int | None, unit: float, name: str) -> str:
    return "–" if value is None else f"{value / unit:,.2f} {name}"


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
    name = canonical_name(text)
    if name in PAPER_SHAPES:
        return Clips(name, *PAPER_SHAPES[name])
    numbers, _, past = text.partition(":")
    try:
        shape = tuple(int(number) for number in numbers.split(","))
        context = int(past) if past else shape[0] // 2
    except ValueError:
        raise UnknownNameError("shape T,C,H,W or T,C,H,W:CONTEXT, and no data set", text, PAPER_SHAPES) from None
    if len(shape) != 4 or min(shape) < 1 or not 0 < context < shape[0]:
        raise OptionError(f"the shape {text!r} is not valid: write T,C,H,W or T,C,H,W:CONTEXT, e.g. 8,1,32,32:4")
    return Clips(numbers, shape, context)


def make_cost_table(
    shapes: Sequence[str],
    *,
    models: Sequence[str] | None = None,
    batch: int = 1,
    seconds: float = 300.0,
    threads: int | None = None,
    out: str | Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
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
        progress: called with a line of text for each row.

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
        raise OptionError(f"the table cannot be written to {target}: name a file .csv or .md")
    csv_path = target.with_suffix(".csv") if target is not None else None
    rows = read_rows(csv_path) if csv_path is not None and csv_path.exists() else []
    maker = _Maker(batch, seconds, threads or torch.get_num_threads())
    table = []
    for clips in blocks:
        for name in names:
            key = maker.key(clips, name)
            before = next((row for row in rows if row.key() == tuple(map(str, key))), None)
            row = before
            if row is None or row.how.startswith(COUNTED):
                # What was only counted may be measured with more time or memory.
                start = time.monotonic()
                row = maker.row(clips, name)
                rows = [other for other in rows if other is not before] + [row]
                progress(f"{clips.label} {name}: {row.how} ({time.monotonic() - start:.0f} s)")
                if csv_path is not None:
                    write_atomically(csv_path, rows_csv(rows).encode())
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

    def row(self, clips: Clips, name: str) -> CostRow:
        """Count, and measure where it is expected to fit."""
        key = self.key(clips, name)
        try:
            costs = cost(name, clips.shape, clips.context, batch=self.batch)
        except ValueError as error:
            return CostRow._make([*key, *[None] * 8, f"impossible: {error}"])
        macs = costs.macs * self.batch
        counts = [costs.parameters, macs, costs.saved_bytes, costs.peak_bytes]
        self.base = self.base or measure_base()
        self.rate = self.rate or convolution_rate(self.threads)
        needed = self.base + costs.memory.peak(self.batch, CAUTION, heap_limit())
        if needed > free_memory():
            return CostRow._make([*key, *counts, *[None] * 4, f"{COUNTED}: may need {shown_bytes(needed)}"])
        expected = STEPS * (STEP_PASSES + 1) * macs / self.rate
        if expected > self.seconds:
            return CostRow._make([*key, *counts, *[None] * 4, f"{COUNTED}: measuring would take {expected:,.0f} s"])
        try:
            measured = measure_step(
                name, clips.shape, clips.context, batch=self.batch, threads=self.threads, seconds=self.seconds
            )
        except MeasurementError as error:
            return CostRow._make([*key, *counts, *[None] * 4, f"{COUNTED}: measuring {error}"])
        return CostRow._make(
            [*key, *counts, measured.peak, measured.base, measured.step, measured.forecast, "measured"]
        )


def convolution_rate(threads: int) -> float:
    """Return the multiply-accumulates per second of a convolution like those of the cells, measured."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    maps, weights = torch.rand(1, 64, 64, 64), torch.rand(128, 64, 3, 3)
    durations = []
    for _ in range(5):
        start = time.perf_counter()
        torch.nn.functional.conv2d(maps, weights, padding=1)
        durations.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    return math.prod((128, 64, 9, 64 * 64)) / min(durations)
