"""PredRNN and its heirs: what their columns decide once, the decoupling penalty, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import framecast as fc
from framecast.cells import convlstm, mim, motionrnn, predrnn, predrnnpp
from framecast.cells.cell import Cell
from framecast.models.stack import Stack

ZIGZAG = ("predrnn", "predrnn-v2", "predrnn++", "mim", "motionrnn")


def kinds(cells: list[Cell]) -> list[str]:
    return [type(cell).__name__ for cell in cells]


def test_columns_decide_where_a_layer_stands() -> None:
    assert kinds(predrnnpp.column(4, 3)) == ["CausalLSTM", "GradientHighway", "CausalLSTM"]
    assert kinds(mim.column(4, 3)) == ["PredRNN", "MIM", "MIM"]
    cells = motionrnn.column(4, 3)
    assert kinds(cells) == ["MotionRNN", "MotionRNN", "MIM"]
    assert kinds([cell.layer for cell in cells[:2]]) == ["PredRNN", "MIM"]


@pytest.mark.parametrize("name", ["trajgru", *ZIGZAG])
def test_one_layer_is_enough(name: str) -> None:
    model = fc.create_model(name, hidden=4, layers=1)
    assert model(torch.rand(1, 2, 1, 8, 10), 2).isfinite().all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *((name, {"kernel": 2}, "kernel is 2.*use 1 or 3") for name in ("trajgru", *ZIGZAG)),
        ("trajgru", {"links": 0}, "links is 0"),
        ("motionrnn", {"hidden": 6}, "hidden is 6 .*multiple of 4: use 4 or 8"),
        ("ms-motionrnn", {"hidden": 2}, "hidden is 2 .*multiple of 4: use 4$"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fc.create_model(name, **{"hidden": 4, **options})


def test_a_stack_without_zigzag_memory_is_refused() -> None:
    stack = Stack([*convlstm.column(4, 1), *predrnn.column(4, 1)], (0, 0))
    x = torch.rand(1, 4, 8, 8)
    with pytest.raises(ValueError, match="zigzag memory"):
        stack(x, stack.init_state(x), stack.init_memory(x))


def test_the_output_gate_starts_with_all_its_biases() -> None:
    # Four convolutions feed it in the released code and two the other gates: the variance tells.
    spread = predrnn.PredRNN(800, kernel=1).gates.bias.detach().reshape(4, -1).var(1)
    torch.testing.assert_close(spread[3] / spread[:3].mean(), torch.tensor(2.0), rtol=0.15, atol=0)


def rollout(training: bool, **options: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    torch.manual_seed(1)
    model = fc.create_model("predrnn-v2", hidden=4, layers=2, **options).train(training)
    return model.rollout(torch.rand(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), 3, 2)[::2]


def test_the_penalty_is_a_matter_of_training() -> None:
    frames, penalty = rollout(True)
    assert penalty is not None
    assert ((penalty > 0) & (penalty < 2 * 4)).all()
    same, nothing = rollout(False)
    assert torch.equal(frames, same)
    assert nothing is not None
    assert torch.equal(nothing, torch.zeros(2))
    assert rollout(True, decoupling=False)[1] is None


def test_the_penalty_is_an_average_over_steps() -> None:
    (cell,) = predrnn.column_v2(4, 1)
    x = torch.rand(3, 2, 4, 8, 8)
    state, memory, each = cell.init_state(x[0]), cell.init_memory(x[0]), []
    for frame in x:
        before = (*state[:2], *cell.init_state(frame)[2:])
        each.append(cell.penalty(cell(frame, before, memory)[1]))
        _, state, memory = cell(frame, state, memory)
    torch.testing.assert_close(cell.penalty(state), torch.stack(each).mean(0))


def test_the_penalty_of_equal_updates_is_one_a_channel() -> None:
    (cell,) = predrnn.column_v2(4, 1)
    with torch.no_grad():
        for index in (0, 2):  # the input gate and the candidate of both memories, from x alone
            half, rows = cell.gates.weight[:, :4], slice(4 * index, 4 * index + 4)
            cell.zigzag.weight[rows, :4] = half[rows]
            cell.zigzag.bias[rows] = cell.gates.bias[rows]
    x = torch.rand(2, 4, 8, 8)
    _, state, _ = cell(x, cell.init_state(x), cell.init_memory(x))
    torch.testing.assert_close(cell.penalty(state), torch.full((2,), 4.0))


def test_one_adapter_for_all_layers() -> None:
    model = fc.create_model("predrnn-v2", hidden=4, layers=3)
    assert [name for name, _ in model.named_parameters() if "adapter" in name] == [
        "stack.cells.0.adapter.weight",
        "stack.cells.0.adapter.bias",
    ]
    bare, plain = fc.create_model("predrnn-v2", decoupling=False), fc.create_model("predrnn")
    assert list(bare.state_dict()) == list(plain.state_dict())
