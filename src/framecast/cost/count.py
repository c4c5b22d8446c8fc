"""Count what a forecast costs: parameters and multiply-accumulates of one roll-out, sample by sample.

Convolutions and matrix products are counted by torch's own counter on tensors without memory, so a 180x180 roll-out is
counted in moments. What that counter does not see is counted by formula:

    attention of N queries to M keys of width d    2 N M d
    reading a map at a place between its pixels    4 per value read
    attention to a window of K x K pixels          2 K² C per pixel

so the result depends neither on how an operation is cut into pieces nor on what is computed again in backward.
Gates, activations, pooling and biases are not counted, as in the literature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from framecast.errors import OptionError
from framecast.models.forecaster import Forecaster, create_model
from framecast.registry import model_entry

aten = torch.ops.aten


class Cost(NamedTuple):
    """What one roll-out of one clip costs.

    Attributes:
        parameters: numbers that training changes.
        macs: multiply-accumulates.
    """

    parameters: int
    macs: int


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


def count_cost(model: Forecaster, shape: Sequence[int], context: int) -> Cost:
    """Count the cost of a roll-out of one clip.

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
        model.rollout(clip, context, horizon)
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, counter.get_total_flops() // 2)


def create_fitting(name: str, shape: Sequence[int], context: int, options: Mapping[str, Any]) -> Forecaster:
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
    known = model_entry(name).options()
    if len(shape) != 4 or min(shape) < 1 or not 0 < context < shape[0]:
        raise OptionError(
            f"shape is {tuple(shape)} and context {context}: give frames, channels, height, width, all at least 1, and "
            "a context below the number of frames"
        )
    fitting = {"in_channels": shape[1], "context": context, "horizon": shape[0] - context, "size": tuple(shape[2:])}
    return create_model(name, **{option: value for option, value in fitting.items() if option in known} | dict(options))


def cost(name: str, shape: Sequence[int], context: int, **options: Any) -> Cost:
    """Count the cost of a model by name, without computing a forecast.

    Args:
        name: a model's name or alias.
        shape: (T, C, H, W) of the clip.
        context: number of past frames.
        options: the model's options; channels, and for one-shot models the lengths and size, follow the shape.

    Raises:
        UnknownNameError: no such model or option.
        ValueError: a shape or context the model cannot take.
    """
    return count_cost(create_fitting(name, shape, context, options).eval().to("meta"), shape, context)
