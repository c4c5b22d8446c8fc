"""The paper's formulas of cost against what is counted, each deviation stated to the last number."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from samples.models import CONTEXT, HORIZON, small_model
from samples.native import use

import framecast as fc
from framecast import cli
from framecast.cost.count import count_memory, count_operations, model_cost
from framecast.cost.measure import Measured
from framecast.cost.paper import (
    PUBLISHED,
    convlstm_complexity,
    convolution_complexity,
    mklstm_complexity,
    paper_memory,
)
from framecast.models.forecaster import Forecaster
from framecast.registry import model_entry

C, H, W, B = 8, 16, 12, 3
FRAMES = CONTEXT + HORIZON
STEPS = FRAMES - 1
SHAPE = (FRAMES, 1, H, W)


def unit(name: str, **options: int) -> Forecaster:
    return small_model(name, hidden=C, layers=1, **options)


def embedding_and_head() -> tuple[int, int]:
    """Parameters and multiply-accumulates per pixel of what stands around the units of a model of one channel."""
    return 3 * C + 1, 2 * C


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_convolution(kernel: int) -> None:
    formula = convolution_complexity(kernel, C, H, W, B)
    layer = torch.nn.Conv2d(C, C, kernel, padding=kernel // 2, bias=False)
    assert formula.parameters == layer.weight.numel()
    assert formula.values == layer(torch.rand(B, C, H, W)).numel()
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        layer(torch.rand(B, C, H, W))
    assert formula.macs == counter.get_total_flops() // 2


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_convlstm_unit(kernel: int) -> None:
    formula, model = convlstm_complexity(kernel, C, H, W), unit("convlstm", kernel=kernel)
    counted, (parameters, macs) = count_operations(model, SHAPE, CONTEXT), embedding_and_head()
    # Ours has one bias for each gate, the released code two; the paper counts none. Multiply-accumulates are equal.
    assert counted.parameters - parameters == formula.parameters + 4 * C
    assert PUBLISHED["convlstm"](C, kernel, 0, 1, H, W) == (formula.parameters + 8 * C, formula.macs)
    assert counted.macs == STEPS * (formula.macs + macs * H * W)


def test_an_mklstm_unit() -> None:
    formula, model = mklstm_complexity(C, H, W), unit("mk-lstm")
    counted, (parameters, macs) = count_operations(model, SHAPE, CONTEXT), embedding_and_head()
    # 7 biases of gates and one of the projection; the released code has 19.
    assert counted.parameters - parameters == formula.parameters + 8 * C
    assert PUBLISHED["mk-lstm"](C, 3, 0, 1, H, W) == (formula.parameters + 19 * C, formula.macs)
    # The output gate's 3x3 kernel over x and h runs inside the 5x5 one: 2 · 9 C² fewer.
    assert counted.macs == STEPS * (formula.macs + (macs - 18 * C**2) * H * W)


def test_the_units_of_the_text() -> None:
    assert convlstm_complexity(3, 1, 1, 1) == (72, 72, 16)
    assert mklstm_complexity(1, 1, 1) == (308, 308, 32)
    assert convlstm_complexity(3, C, H, W, B).values == 16 * B * C * H * W


def test_batch_multiplies_work_and_memory_and_no_parameters() -> None:
    one, three = convlstm_complexity(3, C, H, W), convlstm_complexity(3, C, H, W, B)
    assert three == (one.parameters, B * one.macs, B * one.values)


@pytest.mark.parametrize("position", range(5))
def test_impossible_numbers(position: int) -> None:
    given = [3, C, H, W, B]
    given[position] = 0
    for formula, numbers in ((convolution_complexity, given), (convlstm_complexity, given)):
        with pytest.raises(ValueError, match="is 0 and must be"):
            formula(*numbers)
    if position:
        with pytest.raises(ValueError, match="is 0 and must be"):
            mklstm_complexity(*given[1:])


@pytest.fixture(autouse=True)
def _torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "torch")  # native gates keep what goes into them, and not what comes out


def kept_in_fact(model: Forecaster, shape: tuple[int, ...], batch: int = 1) -> int:
    """Bytes of the storages that autograd saves in a roll-out that is really computed, parameters apart."""
    kept: dict[int, torch.UntypedStorage] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # The result is held, or its storage's address could be given to another.
        frames = model.train().rollout(torch.rand(batch, *shape), CONTEXT, HORIZON).frames
    assert frames.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def fed(batch: int) -> int:
    """Values of the frames that the embedding keeps: the clip, and each forecast that is fed back."""
    return batch * (FRAMES + STEPS - CONTEXT) * H * W


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("batch", [1, B])
def test_what_a_convlstm_keeps(layers: int, batch: int) -> None:
    model = small_model("convlstm", hidden=C, layers=layers)
    # [x, h], three gates, the candidate, c and tanh(c'): 8 C, not 2 · 16 C; the head keeps the last h.
    kept = batch * STEPS * (8 * layers + 1) * C * H * W + fed(batch)
    assert kept_in_fact(model, SHAPE, batch) == 4 * kept
    memory = paper_memory(model, SHAPE, batch)
    assert memory.outputs == 4 * STEPS * layers * convlstm_complexity(3, C, H, W, batch).values
    assert memory.total == 4 * memory.model + 2 * memory.outputs
    assert memory.optimizer == 3 * memory.model


def test_what_an_mklstm_keeps() -> None:
    # [x, h], c of both kernels, six gates and candidates, both c' side by side, the output gate, tanh: 14 C; and the
    # 5x5 kernels made of two, once; the head keeps h, and the last step both c'..
    kept = STEPS * 15 * C * H * W + 200 * C**2 + 2 * C * H * W + fed(1)
    assert kept_in_fact(unit("mk-lstm"), SHAPE) == 4 * kept


def test_pooling_cuts_memory_as_the_formulas_say() -> None:
    shape = (FRAMES, 1, 16, 16)
    plain, pyramid = (small_model(n, layers=6) for n in ("mk-lstm", "ms-lstm"))
    assert paper_memory(plain, shape).model == paper_memory(pyramid, shape).model
    assert paper_memory(pyramid, shape).outputs == 0.4375 * paper_memory(plain, shape).outputs
    plain_cost, pyramid_cost = (fc.cost(n, shape, CONTEXT, hidden=8, layers=6) for n in ("mk-lstm", "ms-lstm"))
    assert pyramid_cost.saved_bytes < plain_cost.saved_bytes


def test_cells_without_a_formula_have_no_outputs_by_it() -> None:
    memory = paper_memory(small_model("mim"), (FRAMES, 1, 16, 16))
    assert (memory.outputs, memory.total) == (None, None)


def test_a_model_stays_as_it_is() -> None:
    model = small_model("convlstm").eval()
    before = copy.deepcopy(model.state_dict())
    model_cost(model, model_entry("convlstm").training, (FRAMES, 1, 16, 16), CONTEXT)
    assert not model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_rows_and_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    rows = fc.analyse_complexity(["sms-lstm", "mim"], shape=(3, 1, 16, 16), context=2)
    sms, mim = rows
    assert sms["formula_parameters"] == 6 * 8 * 9 * 32**2
    assert sms["parameters"] - sms["formula_parameters"] == 6 * 4 * 32 + 3 * 32 + 1
    assert sms["macs"] - sms["formula_macs"] == 2 * 2 * 32 * 16 * 16
    assert mim["formula_macs"] is None
    assert mim["saved_bytes"] > sms["saved_bytes"]
    assert "measured_bytes" not in sms
    arguments = ["analyse", "complexity", "sms-lstm", "--shape", "[3, 1, 16, 16]", "--context", "2"]
    assert cli.main(arguments) == 0
    assert f"{sms['saved_bytes']:,}" in capsys.readouterr().out
    assert cli.main(["analyse", "complexity", "sms-lstn"]) == 1
    assert "Did you mean 'sms-lstm'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="batch is 0"):
        fc.analyse_complexity(batch=0)


def test_the_peak_counted_and_measured_beside_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def measured(name: str, *given: object, **options: object) -> Measured:
        asked.update(options, name=name, given=given)
        return Measured(base=3_000_000, peak=7_000_000, step=1.0, forecast=None)

    monkeypatch.setattr("framecast.api.analyse.measure_step", measured)
    shape, options = (3, 1, 16, 16), {"hidden": 4, "layers": 2}
    (row,) = fc.analyse_complexity(["sms-lstm"], shape=shape, context=2, batch=2, model_options=options, measure=True)
    assert row["peak_bytes"] == count_memory("sms-lstm", shape, 2, **options).peak(2)
    assert row["peak_bytes"] > row["model_bytes"] + row["optimizer_bytes"] + row["saved_bytes"] // 2
    assert row["measured_bytes"] == 4_000_000
    assert (asked["name"], asked["given"], asked["batch"]) == ("sms-lstm", (shape, 2), 2)
    assert options.items() <= asked["options"].items()
