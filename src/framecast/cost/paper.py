"""The MS-LSTM paper's figures of cost beside ours: its formulas, its published convention and its memory model.

**Formulas** of one step of one unit, input and output of C channels and of size H x W, without biases:

                     parameters     FLOPs                 memory
    convolution      K² C²          K² B C² H W           B C H W
    ConvLSTM unit    8 K² C²        8 K² B C² H W         16 B C H W
    MK-LSTM unit     308 C²         308 B C² H W          32 B C H W

A "FLOP" is a multiply-accumulate, and memory is the number of values that convolutions, activations and element-wise
products put out (a sum takes none). 8 convolutions, 5 activations and 3 products make 16. MK-LSTM has 8 convolutions of
kernel 3 and 8 of kernel 5, one of each on its memories and one 1x1 over both, hence 9 (9 + 25) + 2 = 308; and 19
convolutions, 8 activations and 5 products, hence 32. Our copy of the paper has lost the formulas printed in its Tables
1 and 2; these follow from its text, which has the counts 8 and 16, and from its Equation 3.

**Published convention.** The released code counts with a profiler that sees modules only: multiply-accumulates of
convolutions (dead ones included where they run), 11 operations per up-sampled value, a transposed convolution at its
output's size, 3 N - 1 per row of a softmax module; attention products, gates and pooling count nothing. Parameters
include those that never get a gradient.

**Memory of training.** M: parameters; 3 M: gradient and Adam's moments; V_l: outputs of unit l.

    paper      M + 3 M + 2 Σ_t Σ_l V_l

The paper's 2 V stands for outputs and their gradients. A roll-out keeps less: what an activation has read is not
needed again, a sum keeps nothing, and gradients live for a moment each; docs/analyses.md has the numbers.

Reference: Ma et al., MS-LSTM, Applied Soft Computing 147, 2023, doi:10.1016/j.asoc.2023.110731, sections 3.2 and 4.3,
Tables 3, 7 and 10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import nn

from framecast.cells.cms_lstm import BANDS
from framecast.cells.convlstm import ConvLSTM
from framecast.cells.mk_lstm import MKLSTM
from framecast.cells.motionrnn import FLOWS
from framecast.cost.count import Operations, operations
from framecast.errors import check_count
from framecast.models.forecaster import Forecaster
from framecast.models.recurrent import RecurrentForecaster
from framecast.models.stack import pyramid_scales
from framecast.registry import model_entry
from framecast.reporting.results import text_table


class Complexity(NamedTuple):
    """What one step of one unit costs.

    Attributes:
        parameters: weights.
        macs: multiply-accumulates, the paper's FLOPs.
        values: numbers put out in the forward pass, the paper's memory.
    """

    parameters: int
    macs: int
    values: int


def _of(weights: int, maps: int, channels: int, height: int, width: int, batch: int) -> Complexity:
    for name, value in {"channels": channels, "height": height, "width": width, "batch": batch}.items():
        check_count(name, value)
    weights *= channels**2
    return Complexity(weights, weights * batch * height * width, maps * batch * channels * height * width)


def convolution_complexity(kernel: int, channels: int, height: int, width: int, batch: int = 1) -> Complexity:
    """Return K² C², K² B C² H W and B C H W: the cost of one convolution.

    Raises:
        ValueError: a number below one.
    """
    check_count("kernel", kernel)
    return _of(kernel**2, 1, channels, height, width, batch)


def convlstm_complexity(kernel: int, channels: int, height: int, width: int, batch: int = 1) -> Complexity:
    """Return 8 K² C², 8 K² B C² H W and 16 B C H W: the cost of one ConvLSTM unit.

    Raises:
        ValueError: a number below one.
    """
    check_count("kernel", kernel)
    return _of(8 * kernel**2, 16, channels, height, width, batch)


def mklstm_complexity(channels: int, height: int, width: int, batch: int = 1) -> Complexity:
    """Return 308 C², 308 B C² H W and 32 B C H W: the cost of one MK-LSTM unit of kernels 3 and 5.

    Raises:
        ValueError: a number below one.
    """
    return _of(9 * (3**2 + 5**2) + 2, 32, channels, height, width, batch)


def _convlstm(channels: int, kernel: int, layer: int, depth: int, height: int, width: int) -> tuple[int, int]:
    """Return parameters and multiply-accumulates of one layer's step at height x width, as published."""
    del layer, depth
    weights = 8 * channels**2 * kernel**2
    return weights + 8 * channels, weights * height * width


def _trajgru(channels: int, kernel: int, layer: int, depth: int, height: int, width: int) -> tuple[int, int]:
    """Return parameters and multiply-accumulates of one layer's step at height x width, with ten links."""
    del layer, depth
    links = 10
    weights = (5 * kernel**2 + 3 * links) * channels**2 + 2 * links * channels * kernel**2
    return weights + 8 * channels + 2 * links, weights * height * width


def _predrnn(channels: int, kernel: int, layer: int, depth: int, height: int, width: int) -> tuple[int, int]:
    """Return parameters and multiply-accumulates of one layer's step at height x width, as published."""
    del layer, depth
    weights = (16 * kernel**2 + 2) * channels**2
    return weights + 17 * channels, weights * height * width


def _predrnn_v2(channels: int, kernel: int, layer: int, depth: int, height: int, width: int) -> tuple[int, int]:
    """Return the same for PredRNN-V2: one adapter, counted with the first layer, run twice in every layer."""
    parameters, macs = _predrnn(channels, kernel, layer, depth, height, width)
    adapter = channels**2 + channels if layer == 0 else 0
    return parameters + adapter, macs + 2 * channels**2 * height * width


def _predrnnpp(channels: int, kernel: int, layer: int, depth: int, height: int, width: int) -> tuple[int, int]:
    """Return parameters and multiply-accumulates of one layer's step at height x width, as published.

    Highway weights stand in every layer there and run in the second.
    """
    del depth
    cell, highway = (21 * kernel**2 + 3) * channels**2, 4 * kernel**2 * channels**2
    run = cell + highway if layer == 1 else cell
    return cell + highway + 13 * channels, run * height * width


def _mim(channels: int, kernel: int, layer: int, depth: int, height: int, width: int) -> tuple[int, int]:
    """Return parameters and multiply-accumulates of one layer's step at height x width, as published.

    The weights without effect are there, and run, in every layer.
    """
    del layer, depth
    weights = (33 * kernel**2 + 2) * channels**2
    return weights + 34 * channels, weights * height * width


def _motionrnn(channels: int, kernel: int, layer: int, depth: int, height: int, width: int) -> tuple[int, int]:
    """Return parameters and multiply-accumulates of one layer's step at height x width, as published.

    MotionGRU is counted in the last layer too, and its transposed convolution at output positions.
    """
    parameters, macs = _mim(channels, kernel, layer, depth, height, width)
    quarter, flow = channels // 4, 2 * FLOWS
    encode, mask, decode = 4 * channels * quarter, FLOWS * quarter, FLOWS * quarter**2
    gates, enlarge, fuse = 3 * flow * (quarter + flow), 16 * quarter * channels, 2 * channels**2
    biases = quarter + 3 * flow + FLOWS + quarter + 2 * channels
    small = (encode + gates + mask + decode) * (height // 2) * (width // 2)
    large = (enlarge + fuse) * height * width
    return parameters + encode + gates + mask + decode + enlarge + fuse + biases, macs + small + large


def _mk_lstm(channels: int, kernel: int, layer: int, depth: int, height: int, width: int) -> tuple[int, int]:
    """Return parameters and multiply-accumulates of one layer's step at height x width, as published."""
    del kernel, layer, depth
    weights = (9 * (9 + 25) + 2) * channels**2
    return weights + 19 * channels, weights * height * width


def _preciplstm(channels: int, kernel: int, layer: int, depth: int, height: int, width: int) -> tuple[int, int]:
    """Return parameters and multiply-accumulates of one layer's step at height x width, as published.

    The released counter does not see the attention itself, only its convolutions.
    """
    del layer, depth
    weights = (31 * kernel**2 + 7) * channels**2
    return weights + 32 * channels, weights * height * width


def _cms_lstm(channels: int, kernel: int, layer: int, depth: int, height: int, width: int) -> tuple[int, int]:
    """Return parameters and multiply-accumulates of one layer's step at height x width, as published.

    The parameters include the keys' biases. The released counter takes 3N - 1 for the softmax of a row of N
    and nothing for the two products with the attention's weights, which cost far more.
    """
    del layer, depth
    parameters = (19 * kernel**2 + 11) * channels**2 + 27 * channels
    convolutions = (25 * kernel**2 + 20) * channels**2 * height * width
    tokens = [(bands**2, 2 * (height // bands) * (width // bands)) for bands in BANDS]
    return parameters, convolutions + sum(patches * n * (3 * n - 1) for patches, n in tokens)


def _modernn(channels: int, kernel: int, layer: int, depth: int, height: int, width: int) -> tuple[int, int]:
    """Return parameters and multiply-accumulates of one layer's step at height x width, as published.

    The released code applies the three kernels of h in three rounds and those of x in two, one by one.
    """
    del layer, depth
    gates, mean = 8 * kernel**2 * channels**2, (9 + 25 + 49) * channels**2
    return gates + 2 * mean + 14 * channels, (gates + 5 * mean) * height * width


PUBLISHED: dict[str, Callable[[int, int, int, int, int, int], tuple[int, int]]] = {
    "convlstm": _convlstm,
    "trajgru": _trajgru,
    "predrnn": _predrnn,
    "predrnn-v2": _predrnn_v2,
    "predrnn++": _predrnnpp,
    "mim": _mim,
    "motionrnn": _motionrnn,
    "mk-lstm": _mk_lstm,
    "preciplstm": _preciplstm,
    "cms-lstm": _cms_lstm,
    "modernn": _modernn,
}
"""Cell -> ``(channels, kernel, layer, depth, height, width)`` to the parameters and multiply-accumulates of one layer's
step at its resolution, as the released code and its operation counter have them (dead weights included)."""
UPSAMPLED = {"predrnn": 2, "predrnn-v2": 2, "predrnn++": 2, "mim": 2, "motionrnn": 2, "preciplstm": 2}
"""How many maps the released pyramid of a cell up-samples where the scale changes; 1 for all others."""
UPSAMPLING_OPERATIONS = 11


def published_cost(
    name: str, shape: Sequence[int], context: int, *, hidden: int = 32, kernel: int = 3, layers: int = 6
) -> Operations | None:
    """Return the cost of a recurrent model as the released counter has it; None for models it was not used on.

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
    if entry.cell_name not in PUBLISHED:
        return None
    frames, channels, height, width = shape
    published = PUBLISHED[entry.cell_name]
    scales = pyramid_scales(layers) if entry.pyramid else (0,) * layers
    cells = [published(hidden, kernel, i, layers, height >> s, width >> s) for i, s in enumerate(scales)]
    upsampled = sum(hidden * (height >> s) * (width >> s) for before, s in pairwise(scales) if s < before)
    parameters = 2 * hidden * channels + hidden + channels + sum(p for p, _ in cells)
    macs = 2 * hidden * channels * height * width + sum(m for _, m in cells)
    macs += UPSAMPLING_OPERATIONS * UPSAMPLED.get(entry.cell_name, 1) * upsampled
    return Operations(parameters, (frames - 1) * macs)


class PaperRow(NamedTuple):
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

    def published(self) -> Operations:
        """Return our published-convention cost of this row."""
        published = published_cost(self.name, self.shape, self.context)
        assert published is not None
        return published

    def count_operations(self) -> Operations:
        """Return the true cost of our model of this row."""
        return operations(self.name, self.shape, self.context)


# The data sets of the MS-LSTM paper: clips (T, C, H, W) and context.
PAPER_SHAPES = {
    "moving-mnist": ((20, 1, 64, 64), 10),
    "taxibj": ((8, 1, 32, 32), 4),
    "kth": ((20, 1, 128, 128), 10),
    "german-radar": ((8, 1, 180, 180), 4),
}
PRINTED = {
    (3, "moving-mnist"): "convlstm 0.4 34.4, sms-lstm 0.4 15.1, tms-lstm 1.9 147.3, ms-lstm 1.9 64.5",
    (7, "taxibj"): "convlstm 0.4 3.2, trajgru 0.5 3.6, predrnn 0.9 6.4, predrnn++ 1.4 8.7, mim 1.8 13.2, "
    "motionrnn 1.9 13.5, cms-lstm 1.1 11.5, modernn 1.5 21.4, ms-lstm 1.9 5.9",
    (
        10,
        "german-radar",
    ): "convlstm 0.4 100.3, trajgru 0.5 112.4, predrnn 0.9 203.5, predrnn++ 1.4 275.9, "
    "mim 1.8 416.7, motionrnn 1.9 426.1, preciplstm 1.8 398.5, ms-lstm 1.9 260.6",
}

EXPLANATION = (
    "Table 10's MS-LSTM: 260.6 G is what frames of 212x212 give ({at_212:.1f} G), not 180x180 ({at_180:.1f} G); the "
    "printed memory fits 212x212 too. All other rows are equal as printed."
)


def paper_rows() -> Iterator[PaperRow]:
    """Yield the rows of the paper's Tables 3, 7 and 10."""
    for (table, data), printed in PRINTED.items():
        shape, context = PAPER_SHAPES[data]
        for entry in printed.split(", "):
            name, parameters, macs = entry.split(" ")
            yield PaperRow(table, name, shape, context, parameters, macs)


def explanation() -> str:
    """Return why one cell of the paper's tables differs."""
    costs = {size: published_cost("ms-lstm", (8, 1, size, size), 4) for size in (180, 212)}
    at_180, at_212 = (operations_of.macs / 1e9 for operations_of in costs.values() if operations_of)
    return EXPLANATION.format(at_180=at_180, at_212=at_212)


def paper_text() -> str:
    """Return the paper's cost tables beside ours as text."""
    rows = [["table, model", "Params", "ours", "FLOPs", "ours", "", "true Params", "true MACs"]]
    for row in paper_rows():
        published, counted = row.published(), row.count_operations()
        printed = f"{published.parameters / 1e6:.1f}", f"{published.macs / 1e9:.1f}"
        same = "" if printed == (row.parameters, row.macs) else "differs"
        true = f"{counted.parameters:,}", f"{counted.macs / 1e9:.1f} G"
        parameters = [f"{row.parameters}M", f"{printed[0]}M"]
        rows.append([f"{row.table} {row.name}", *parameters, f"{row.macs}G", f"{printed[1]}G", same, *true])
    return f"{text_table(rows)}\n\n{explanation()}"


FLOAT = 4


class PaperMemory(NamedTuple):
    """The paper's model of what a training step keeps in memory, in bytes.

    Attributes:
        model: the parameters.
        optimizer: gradient and two moments of Adam, 3 x model.
        outputs: the outputs of all units at all steps; None for cells that the paper has no formula for.
        total: model + optimizer + 2 x outputs; None for other cells.
    """

    model: int
    optimizer: int
    outputs: int | None
    total: int | None


def paper_memory(model: Forecaster, shape: Sequence[int], batch: int = 1) -> PaperMemory:
    """Return what the paper's model of memory says of a training step.

    Args:
        model: any forecaster.
        shape: (T, C, H, W) of a clip.
        batch: clips of the step.
    """
    size = FLOAT * sum(p.numel() for p in model.parameters())
    outputs = _unit_outputs(model, shape, batch)
    return PaperMemory(size, 3 * size, outputs, None if outputs is None else 4 * size + 2 * outputs)


def _unit_outputs(model: Forecaster, shape: Sequence[int], batch: int) -> int | None:
    if not isinstance(model, RecurrentForecaster):
        return None
    units = [
        unit_complexity(cell, shape[2] >> scale, shape[3] >> scale, batch)
        for cell, scale in zip(model.stack.cells, model.stack.scales, strict=True)
    ]
    if None in units:
        return None
    return FLOAT * (shape[0] - 1) * sum(unit.values for unit in units if unit)


def unit_complexity(cell: nn.Module, height: int, width: int, batch: int = 1) -> Complexity | None:
    """Return the paper's cost of one step of a cell at height x width; None where it has no formula."""
    if isinstance(cell, ConvLSTM):
        return convlstm_complexity(cell.gates.kernel_size[0], cell.channels, height, width, batch)
    if isinstance(cell, MKLSTM):
        return mklstm_complexity(cell.channels, height, width, batch)
    return None
