"""Rows of a table of costs: what a row holds, its ratios to ConvLSTM, and its forms as CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from framecast.analysis.memory import shown_bytes
from framecast.boundary import reading
from framecast.errors import DataError

REFERENCE = "convlstm"


class Row(NamedTuple):
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


def _ratios(row: Row, rows: Sequence[Row]) -> list[float | None]:
    reference = next((r for r in rows if r.key() == (row.data, REFERENCE, *row.key()[2:])), None)
    pairs = [(getattr(row, field), getattr(reference, field, None)) for field in RATIOS]
    return [own / other if own and other else None for own, other in pairs]


def rows_csv(rows: Sequence[Row]) -> str:
    """Return rows as CSV, ratios included; what is unknown is empty."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow([*Row._fields, *(name.replace(" ", "_") for name in RATIOS.values())])
    writer.writerows([*row, *_ratios(row, rows)] for row in rows)
    return content.getvalue()


def read_rows(path: Path) -> list[Row]:
    """Read rows that ``rows_csv`` wrote.

    Raises:
        DataError: the file holds something else.
    """
    other = "is not a table of costs of this version"
    with reading(path, other, "choose another file"), path.open(newline="") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    if header[: len(Row._fields)] != list(Row._fields):
        raise DataError(f"{path} {other}: choose another file")
    with reading(path, other, "choose another file"):
        return [_row(line) for line in lines]


def _row(line: Sequence[str]) -> Row:
    """Return the row that a line of the CSV stands for."""
    texts = dict(zip(Row._fields, line, strict=False))
    values: dict[str, Any] = {field: None if not text and field != "how" else text for field, text in texts.items()}
    for field, text in values.items():
        if field in ("step", "forecast") and text:
            values[field] = float(text)
        elif field not in ("data", "model", "torch", "how") and text:
            values[field] = int(text)
    return Row(**values)


def rows_markdown(rows: Sequence[Row]) -> str:
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
