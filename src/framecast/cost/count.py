"""Count what a model costs: parameters, multiply-accumulates of a roll-out, and memory of a training step.

``model_cost`` is the one answer that ``framecast cost``, evaluations, reports and studies give. Memory is counted as
``framecast.cost.memory`` says. Convolutions and matrix products are counted by torch's own counter on tensors without
memory, so a 180x180 roll-out is counted in moments. What that counter does not see is counted by formula:

    attention of N queries to M keys of width d    2 N M d
    reading a map at a place between its pixels    4 per value read
    attention to a window of K x K pixels          2 K² C per pixel

so the result depends neither on how an operation is cut into pieces nor on what is computed again in backward.
Gates, activations, pooling and biases are not counted, as in the literature.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from framecast.cost.memory import StepMemory, count_step
from framecast.errors import OptionError, check_count
from framecast.models.forecaster import Forecaster, Recompute, create_model, fitting_options
from framecast.registry import Training

aten = torch.ops.aten


class Operations(NamedTuple):
    """What a roll-out of one clip takes, context included.

    Attributes:
        parameters: numbers that training changes.
        macs: multiply-accumulates.
    """

    parameters: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        parameters: numbers that training changes.
        macs: multiply-accumulates of a roll-out of one clip, context included.
        batch: clips of the training step whose memory is counted.
        memory: that of a training step, for any batch.
    """

    parameters: int
    macs: int
    batch: int
    memory: StepMemory = field(repr=False, compare=False)

    @property
    def saved_bytes(self) -> int:
        """Bytes that the forward pass of a training step keeps for the backward pass."""
        return self.memory.saved(self.batch)

    @property
    def peak_bytes(self) -> int:
        """Training memory: bytes of all tensors at the peak of a training step.

        They are weights, gradients and the moments of Adam, the clips, and all results that are alive at that moment.
        """
        return self.memory.peak(self.batch)

    def to_dict(self) -> dict[str, int]:
        """Return all numbers by name."""
        names = ("parameters", "macs", "batch", "saved_bytes", "peak_bytes")
        return {name: getattr(self, name) for name in names}


# torch counts a multiply-accumulate as two operations, so the formulas here do too.
def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _reading(*_: Any, out_shape: Sequence[int], **__: Any) -> int:
    return 2 * 4 * math.prod(out_shape)


def _window(query: Sequence[int], key: Sequence[int], value: Sequence[int], window: int, *_: Any, **__: Any) -> int:
    return 2 * math.prod(query) * 2 * window**2


def _formulas() -> dict[Any, Any]:
    import framecast.cells.attention  # noqa: F401  # registers the operation counted below

    return {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten.grid_sampler_2d: _reading,
        torch.ops.framecast.local_attention: _window,
    }


def count_operations(model: Forecaster, shape: Sequence[int], context: int) -> Operations:
    """Count the operations of a roll-out of one clip.

    Args:
        model: a forecaster; put it on the "meta" device to count without computing.
        shape: (T, C, H, W) of the clip, context and horizon together.
        context: number of past frames.

    Raises:
        ValueError: a shape or context the model cannot take.
    """
    frames, horizon = shape[0], shape[0] - context
    device = next(model.parameters()).device
    clip = torch.empty(1, frames, *shape[1:], device=device)
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    with torch.no_grad(), counter:
        model.rollout(clip, context, horizon, rows=model.blank_rows(clip))
    parameters = sum(p.numel() for p in model.parameters())
    return Operations(parameters, counter.get_total_flops() // 2)


def create_for_shape(name: str, shape: Sequence[int], context: int, options: Mapping[str, Any]) -> Forecaster:
    """Create a model by name for clips of a shape (T, C, H, W).

    Args:
        name: a model's name or alias.
        shape: (T, C, H, W) of the clip.
        context: number of past frames.
        options: the model's options; channels, and for one-shot models the lengths and size, follow the shape.

    Raises:
        UnknownNameError: no such model or option.
        ValueError: an impossible shape, context or option.
    """
    if len(shape) != 4 or min(shape) < 1 or not 0 < context < shape[0]:
        raise OptionError(
            f"shape is {tuple(shape)} and context {context}: give frames, channels, height, width, all at least 1, and "
            "a context below the number of frames"
        )
    return create_model(name, **fitting_options(name, shape, context) | dict(options))


def operations(name: str, shape: Sequence[int], context: int, **options: Any) -> Operations:
    """Count the operations of a model by name, without computing a forecast.

    Args:
        name: a model's name or alias.
        shape: (T, C, H, W) of the clip.
        context: number of past frames.
        options: the model's options; channels, and for one-shot models the lengths and size, follow the shape.

    Raises:
        UnknownNameError: no such model or option.
        OptionError: a shape or context the model cannot take.
    """
    return count_operations(create_for_shape(name, shape, context, options).eval().to("meta"), shape, context)


def count_memory(
    name: str, shape: Sequence[int], context: int, recompute: Recompute = "none", **options: Any
) -> StepMemory:
    """Count the memory of a training step of a model by name, by its own recipe.

    Args:
        name: a model's name or alias.
        shape: (T, C, H, W) of the clip.
        context: number of past frames.
        recompute: see ``Forecaster.rollout``.
        options: the model's options; channels, and for one-shot models the lengths and size, follow the shape.

    Raises:
        UnknownNameError: no such model or option.
        OptionError: a shape, context or ``recompute`` the model cannot take.
    """
    model = create_for_shape(name, shape, context, options)
    return count_step(model, model.recipe(), shape, context, recompute)


def model_cost(
    model: Forecaster,
    recipe: Training,
    shape: Sequence[int],
    context: int,
    *,
    batch: int = 1,
    recompute: Recompute = "none",
) -> Cost:
    """Count what a model costs, without computing anything.

    Args:
        model: any forecaster; it is not changed.
        recipe: how it is trained; loss, sampling and penalty count.
        shape: (T, C, H, W) of a clip, context and horizon together.
        context: number of past frames.
        batch: clips of a training step.
        recompute: see ``Forecaster.rollout``.

    Raises:
        OptionError: a shape, context, batch or ``recompute`` the model cannot take.
    """
    check_count("batch", batch)
    ghost = copy.deepcopy(model).eval().to("meta")
    memory = count_step(model, recipe, shape, context, recompute)
    return Cost(*count_operations(ghost, shape, context), batch, memory)


def cost(
    name: str,
    shape: Sequence[int],
    context: int | None = None,
    *,
    batch: int = 1,
    recompute: Recompute = "none",
    **options: Any,
) -> Cost:
    """Count what a model costs by name: parameters, multiply-accumulates, memory of a training step.

    Args:
        name: a model's name or alias.
        shape: (T, C, H, W) of a clip, context and horizon together.
        context: number of past frames; None takes half of the clip.
        batch: clips of a training step.
        recompute: "none", "lean" or the steps of a segment, see ``Forecaster.rollout``.
        options: the model's options; channels, and for one-shot models the lengths and size, follow the shape.

    Raises:
        UnknownNameError: no such model or option.
        OptionError: a shape, context, batch or ``recompute`` the model cannot take.
    """
    past = shape[0] // 2 if context is None else context
    model = create_for_shape(name, shape, past, options)
    return model_cost(model, model.recipe(), shape, past, batch=batch, recompute=recompute)
