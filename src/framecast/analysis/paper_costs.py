"""The published convention of costs, and the cost tables of the MS-LSTM paper beside ours.

The released code counts with a profiler that sees modules only: multiply-accumulates of convolutions (dead ones
included where they run), 11 operations per up-sampled value, a transposed convolution at its output's size, 3 N - 1 per
row of a softmax module; attention products, gates and pooling count nothing. Parameters include those that never get a
gradient. The formulas of each cell stand in its own file; here they are added up over a stack.

Reference: Ma et al., MS-LSTM, Applied Soft Computing 147, 2023, doi:10.1016/j.asoc.2023.110731, Tables 3, 7 and 10.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from framecast.analysis.counting import Cost, cost
from framecast.models.stack import pyramid_scales
from framecast.registry import model_entry, resolve
from framecast.reporting.tables import text_table

UPSAMPLING_OPERATIONS = 11


def published_cost(
    name: str, shape: Sequence[int], context: int, *, hidden: int = 32, kernel: int = 3, layers: int = 6
) -> Cost | None:
    """Return the cost of a recurrent model as its authors' counter has it; None for models it was not used on.

    Args:
        name: a model's name or alias.
        shape: (T, C, H, W) of the clip, context and horizon together.
        context: number of past frames; the released roll-out takes T - 1 steps whatever it is.
        hidden: channels of a layer.
        kernel: kernel size of the convolutions.
        layers: number of layers.

    Raises:
        UnknownNameError: no such model.
    """
    del context
    entry = model_entry(name)
    if entry.cell is None:
        return None
    frames, channels, height, width = shape
    published = resolve(entry.cell.published)
    scales = pyramid_scales(layers) if entry.name.startswith("ms-") else (0,) * layers
    cells = [published(hidden, kernel, i, layers, height >> s, width >> s) for i, s in enumerate(scales)]
    upsampled = sum(hidden * (height >> s) * (width >> s) for before, s in pairwise(scales) if s < before)
    parameters = 2 * hidden * channels + hidden + channels + sum(p for p, _ in cells)
    macs = 2 * hidden * channels * height * width + sum(m for _, m in cells)
    macs += UPSAMPLING_OPERATIONS * entry.cell.upsampled * upsampled
    return Cost(parameters, (frames - 1) * macs)


class Row(NamedTuple):
    """One row of a cost table of the paper: what it prints, and ours.

    Attributes:
        table: number of the table.
        name: our name of the model.
        shape: (T, C, H, W).
        context: past frames.
        parameters: as printed, in millions.
        macs: "FLOPs" as printed, in 10⁹ multiply-accumulates.
    """

    table: int
    name: str
    shape: tuple[int, int, int, int]
    context: int
    parameters: str
    macs: str

    def published(self) -> Cost:
        """Return our published-convention cost of this row."""
        found = published_cost(self.name, self.shape, self.context)
        assert found is not None
        return found

    def counted(self) -> Cost:
        """Return the true cost of our model of this row."""
        return cost(self.name, self.shape, self.context)


MNIST, TAXI, GERMANY = (20, 1, 64, 64), (8, 1, 32, 32), (8, 1, 180, 180)
PRINTED = {
    (3, MNIST, 10): "convlstm 0.4 34.4, sms-lstm 0.4 15.1, tms-lstm 1.9 147.3, ms-lstm 1.9 64.5",
    (7, TAXI, 4): "convlstm 0.4 3.2, trajgru 0.5 3.6, predrnn 0.9 6.4, predrnn++ 1.4 8.7, mim 1.8 13.2, "
    "motionrnn 1.9 13.5, cms-lstm 1.1 11.5, modernn 1.5 21.4, ms-lstm 1.9 5.9",
    (10, GERMANY, 4): "convlstm 0.4 100.3, trajgru 0.5 112.4, predrnn 0.9 203.5, predrnn++ 1.4 275.9, mim 1.8 416.7, "
    "motionrnn 1.9 426.1, preciplstm 1.8 398.5, ms-lstm 1.9 260.6",
}

EXPLANATION = (
    "Table 10's MS-LSTM: 260.6 G is what frames of 212x212 give ({at_212:.1f} G), not 180x180 ({at_180:.1f} G); the "
    "printed memory fits 212x212 too. All other rows are equal as printed."
)


def paper_rows() -> Iterator[Row]:
    """Yield the rows of the paper's Tables 3, 7 and 10."""
    for (table, shape, context), printed in PRINTED.items():
        for entry in printed.split(", "):
            name, parameters, macs = entry.split(" ")
            yield Row(table, name, shape, context, parameters, macs)


def explanation() -> str:
    """Return why one cell of the paper's tables differs."""
    costs = {size: published_cost("ms-lstm", (8, 1, size, size), 4) for size in (180, 212)}
    at_180, at_212 = (found.macs / 1e9 for found in costs.values() if found)
    return EXPLANATION.format(at_180=at_180, at_212=at_212)


def paper_text() -> str:
    """Return the paper's cost tables beside ours as text."""
    rows = [["table, model", "Params", "ours", "FLOPs", "ours", "", "true Params", "true MACs"]]
    for row in paper_rows():
        published, counted = row.published(), row.counted()
        ours = f"{published.parameters / 1e6:.1f}", f"{published.macs / 1e9:.1f}"
        same = "" if ours == (row.parameters, row.macs) else "differs"
        true = f"{counted.parameters:,}", f"{counted.macs / 1e9:.1f} G"
        rows.append([f"{row.table} {row.name}", f"{row.parameters}M", f"{ours[0]}M", f"{row.macs}G", f"{ours[1]}G",
                     same, *true])  # fmt: skip
    return f"{text_table(rows)}\n\n{explanation()}"
