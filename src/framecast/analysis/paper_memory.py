"""The memory of training: the paper's model of it beside the bytes that a roll-out keeps for its backward pass.

    paper      M + 3 M + 2 Σ_t Σ_l V_l      M: parameters; 3 M: gradient and Adam's moments; V_l: outputs of unit l
    measured   M + 3 M + bytes of all storages autograd saves

The paper's 2 V stands for outputs and their gradients. A roll-out keeps less: what an activation has read is not
needed again, a sum keeps nothing, and gradients live for a moment each; docs/analyses.md has the numbers.

Reference: Ma et al., MS-LSTM, Applied Soft Computing 147, 2023, doi:10.1016/j.asoc.2023.110731, section 4.3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from framecast.analysis.complexity import Complexity, convlstm_complexity, mklstm_complexity
from framecast.analysis.memory import without_values
from framecast.cells.convlstm import ConvLSTM
from framecast.cells.mklstm import MKLSTM
from framecast.models.forecaster import Forecaster
from framecast.models.recurrent import RecurrentForecaster

FLOAT = 4


class Memory(NamedTuple):
    """What the training of a batch keeps in memory, in bytes.

    Attributes:
        model: the parameters.
        optimizer: gradient and two moments of Adam, 3 x model.
        outputs: by the paper's formulas, the outputs of all units at all steps; None for other cells.
        paper: model + optimizer + 2 x outputs, the paper's sum; None for other cells.
        saved: measured, what a roll-out keeps for its backward pass, parameters apart.
    """

    model: int
    optimizer: int
    outputs: int | None
    paper: int | None
    saved: int


def training_memory(model: Forecaster, shape: Sequence[int], context: int, batch: int = 1) -> Memory:
    """Return what the paper's model of memory says of a training step, and what a roll-out keeps.

    Args:
        model: any forecaster; it is not changed and nothing is computed.
        shape: (T, C, H, W) of a clip.
        context: number of past frames.
        batch: clips of the step.

    Raises:
        ValueError: a shape or context the model cannot take.
    """
    size = FLOAT * sum(p.numel() for p in model.parameters())
    outputs = _unit_outputs(model, shape, batch)
    paper = None if outputs is None else size + 3 * size + 2 * outputs
    return Memory(size, 3 * size, outputs, paper, saved_bytes(model, shape, context, batch))


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


def saved_bytes(model: Forecaster, shape: Sequence[int], context: int, batch: int = 1) -> int:
    """Return the bytes that a training roll-out keeps for its backward pass, parameters apart.

    It counts the storages autograd saves, each once however many operations share it. What an operation makes and
    drops, the gradients, and what the allocator adds are not in it.

    Args:
        model: any forecaster; it is not changed and nothing is computed.
        shape: (T, C, H, W) of a clip.
        context: number of past frames.
        batch: clips of the step.

    Raises:
        ValueError: a shape or context the model cannot take.
    """
    mode = FakeTensorMode()
    ghost = without_values(model, mode).train()
    own = {p.untyped_storage()._cdata for p in ghost.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            # The storage is held too: a freed one's number would be given to another.
            kept[storage._cdata] = storage
        return tensor

    with torch.enable_grad(), mode, saved_tensors_hooks(keep, lambda tensor: tensor):
        ghost.rollout(torch.empty(batch, *shape), context, shape[0] - context)
    return sum(storage.nbytes() for storage in kept.values())
