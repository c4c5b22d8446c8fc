"""Outputs of every layer at every time step, by forward hooks on the layers a forecaster names.

A layer that runs once a step is stacked over its calls; one that takes many frames in the batch is cut into them. So
all outputs have the same axes, whatever the model:

    (B, N, C, h, w)      N: steps of a recurrent model, frames of a one-shot one

A layer that holds all frames in its channels (SimVP's translator) has one step for each block it forecasts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from framecast.models.forecaster import Forecaster


@contextmanager
def watched(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Collect the output of each layer at every call while the context lasts; of several tensors the first."""
    calls: dict[str, list[Tensor]] = {name: [] for name in layers}

    def keep(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        calls[name].append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(partial(keep, name)) for name, layer in layers.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def record_layers(model: Forecaster, past: Tensor, horizon: int) -> dict[str, Tensor]:
    """Forecast and return the output of every layer at every step, from input to output.

    Args:
        model: any forecaster; it is left as it was, in training or evaluation mode.
        past: (B, T, C, H, W).
        horizon: frames to forecast.

    Returns:
        Layer -> (B, N, C, h, w), detached. Recurrent models take N = T + horizon - 1 steps, of which step t sees frame
        t; where frames are padded to the model's multiple, so are its maps.

    Raises:
        ValueError: a shape or ``horizon`` that the model cannot take.
    """
    with torch.no_grad(), watched(model.layers()) as calls:
        model(past, horizon)
    return {name: torch.cat([in_time(one, len(past)) for one in outputs], 1) for name, outputs in calls.items()}


def in_time(output: Tensor, batch: int) -> Tensor:
    """Return a layer's output of one call as (B, N, C, h, w)."""
    if output.ndim == 5:  # Earthformer works with channels last
        return output.permute(0, 1, 4, 2, 3)
    return output.reshape(batch, -1, *output.shape[1:])
