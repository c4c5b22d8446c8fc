"""Losses: values by hand, masks, and what edges cost."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framecast.training.losses import LOSSES


def test_losses_by_hand() -> None:
    forecast, truth = torch.zeros(2, 1, 1, 1, 2), torch.tensor([[0.5, 1.0], [0.0, 2.0]]).view(2, 1, 1, 1, 2)
    assert LOSSES["l1+l2"](forecast, truth, None) == (0.5 + 0.25 + 1 + 1 + 2 + 4) / 2
    assert LOSSES["mse"](forecast, truth, None) == (0.25 + 1 + 4) / 4


@given(st.integers(0, 999), st.integers(1, 20), st.integers(1, 20), st.floats(-1, 1, width=32))
def test_edges_cost_what_they_lack(seed: int, height: int, width: int, shift: float) -> None:
    truth = torch.rand(2, 3, 1, height, width, generator=torch.Generator().manual_seed(seed)).double()
    plain, edges = LOSSES["mse"], LOSSES["l2+edges"]
    frame = height * width
    moved, blurred = truth + shift, (truth + truth.mean((-2, -1), keepdim=True)) / 2
    torch.testing.assert_close(edges(moved, truth), plain(moved, truth) * frame)  # a level has no edges
    if frame > 1:
        assert edges(blurred, truth) > plain(blurred, truth) * frame


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_masked_values_change_nothing(name: str) -> None:
    forecast, truth = torch.rand(2, 3, 1, 4, 4), torch.rand(2, 3, 1, 4, 4)
    valid = torch.rand(2, 3, 1, 4, 4) > 0.5
    other = truth.where(valid, torch.tensor(float("nan")))
    assert torch.equal(LOSSES[name](forecast, truth, valid), LOSSES[name](forecast, other, valid))
    assert LOSSES[name](forecast, other, torch.zeros_like(valid)) == 0
    everything = LOSSES[name](forecast, truth, torch.ones_like(valid))
    torch.testing.assert_close(everything, LOSSES[name](forecast, truth, None))
