"""The stack: topology as data, and the published sizes of the paper's four ablation models."""

from __future__ import annotations

import pytest
import torch

import framecast as fc
from framecast.cells.convlstm import ConvLSTM
from framecast.models.stack import Stack, pyramid_scales


def test_scales_of_the_paper() -> None:
    assert pyramid_scales(6) == (0, 1, 2, 2, 1, 0)
    assert pyramid_scales(2) == (0, 0)
    for layers in (0, 1, 3, 5):
        with pytest.raises(ValueError, match="even number >= 2"):
            pyramid_scales(layers)


@pytest.mark.parametrize(
    ("name", "weights"),
    [("convlstm", 442_368), ("sms-lstm", 442_368), ("tms-lstm", 1_892_352), ("ms-lstm", 1_892_352)],
)
def test_convolution_weights_of_six_layers_of_32(name: str, weights: int) -> None:
    model = fc.create_model(name)
    assert sum(p.numel() for p in model.stack.parameters() if p.ndim == 4) == weights


def test_a_stack_is_a_cell_and_stacks_stack() -> None:
    torch.manual_seed(0)
    cells = [ConvLSTM(4) for _ in range(4)]
    nested = Stack([Stack(cells[:2], (0, 0)), Stack(cells[2:], (0, 0))], (0, 0))
    flat = Stack(cells, (0, 0, 0, 0))
    x = torch.rand(2, 4, 8, 8)
    h, state, _ = nested(x, nested.init_state(x), None)
    expected, other, _ = flat(x, flat.init_state(x), None)
    assert torch.equal(h, expected)
    assert all(torch.equal(a, b) for a, b in zip(state, other, strict=True))


def test_the_skip_matters_only_where_there_is_one() -> None:
    clip = torch.rand(1, 3, 1, 16, 16)
    forecasts = {}
    for skip in ("add", "none"):
        torch.manual_seed(0)
        forecasts[skip] = fc.create_model("ms-convlstm", hidden=4, skip=skip)(clip, 1)
    assert not torch.allclose(forecasts["add"], forecasts["none"])


@pytest.mark.parametrize(
    ("cells", "scales", "skip", "message"),
    [
        (2, (0,), "add", "one scale per cell"),
        (2, (0, 2), "add", "at most one"),
        (2, (1, 0), "add", "start at 0"),
        (2, (0, 0), "cat", "'add' or 'none'"),
    ],
)
def test_impossible_stacks(cells: int, scales: tuple[int, ...], skip: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stack([ConvLSTM(4) for _ in range(cells)], scales, skip)


def test_cells_of_two_widths() -> None:
    with pytest.raises(ValueError, match="one width"):
        Stack([ConvLSTM(4), ConvLSTM(8)], (0, 0))
