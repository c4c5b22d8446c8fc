"""A small instance of every model, for tests that run over the whole registry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch

import framecast as fc
from framecast.models.forecaster import Forecaster
from framecast.registry import ONE_SHOT

CONTEXT, HORIZON = 3, 3
RECURRENT = [name for name in fc.list_models() if name not in ONE_SHOT]

# Options that make a one-shot model small; a new one needs an entry only if its defaults are large.
SMALL_ONE_SHOT: dict[str, dict[str, Any]] = {
    "earthformer": {"size": (16, 16), "base_units": 16, "encoder_depths": (1, 1), "decoder_depths": (1, 1)},
    "simvp": {"hid_S": 8, "hid_T": 32, "N_S": 2, "N_T": 2},
    "simvp-v2": {"hid_S": 8, "hid_T": 16, "N_S": 2, "N_T": 3, "mlp_ratio": 2.0},
}

# Models whose kernels reach beyond small frames: the side of frames on which every tap of them sees something.
REACH = {"simvp-v2": 24}


def small_model(name: str, **options: Any) -> Forecaster:
    """Create a small model with reproducible weights."""
    torch.manual_seed(1)
    if name in ONE_SHOT:
        chosen: dict[str, Any] = {"context": CONTEXT, "horizon": HORIZON, **SMALL_ONE_SHOT.get(name, {})}
    else:
        chosen = {"hidden": 8, "layers": 4}
    return fc.create_model(name, **{**chosen, **options})


def small_clip(batch: int = 2, height: int = 16, width: int = 16, channels: int = 1, seed: int = 0) -> torch.Tensor:
    """Draw a clip (B, CONTEXT + HORIZON, C, H, W) of numbers in [0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, CONTEXT + HORIZON, channels, height, width, generator=generator)


def pyramids_in_long_form(names: Iterable[str]) -> list[Any]:
    """Return names of models for a test that takes seconds each: pyramids of other columns only in its long form."""
    return [
        pytest.param(name, marks=pytest.mark.slow) if name.startswith("ms-") and name != "ms-lstm" else name
        for name in names
    ]
