"""The arithmetic that gated cells share."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framecast.cells.gates import gated_update, tanh


def test_tanh_and_its_gradient() -> None:
    x = torch.linspace(-12, 12, 20_001, requires_grad=True)
    ours, theirs = tanh(x), torch.tanh(x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-7)
    (slope,), (exact,) = (torch.autograd.grad(y.sum(), x, retain_graph=True) for y in (ours, theirs))
    torch.testing.assert_close(slope, exact, rtol=0, atol=6e-7)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 0.0, 1e30])
def test_tanh_of_extremes(value: float) -> None:
    x = torch.tensor([value])
    torch.testing.assert_close(tanh(x), torch.tanh(x), rtol=0, atol=0, equal_nan=True)


def test_tanh_keeps_its_input() -> None:
    x = torch.ones(3)
    tanh(x)
    assert torch.equal(x, torch.ones(3))


@given(st.lists(st.floats(-20, 20), min_size=4, max_size=4))
def test_gated_update_stays_between_its_bounds(values: list[float]) -> None:
    memory, i, f, g = (torch.tensor([value]) for value in values)
    assert gated_update(memory, i, f, g).abs() <= memory.abs() + 1 + 1e-6
