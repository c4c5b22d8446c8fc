"""Receptive fields: the theory against gradients, hand-computed sides, and the statements of the paper."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from samples.models import CONTEXT, RECURRENT, SMALL_ONE_SHOT, small_model

import framecast as fc
from framecast import cli
from framecast.models.forecaster import Forecaster
from framecast.probes.receptive_field import (
    central_support,
    effective_side,
    measure_gradients,
    reach,
    receptive_fields,
)
from framecast.probes.support import trace_supports

# Cells made of convolutions, whose reach does not depend on the data. TrajGRU and MotionRNN read where a flow points.
CONVOLUTIONAL = ["convlstm", "mk-lstm", "predrnn", "predrnn-v2", "predrnn++", "mim", "modernn"]
ABLATION = ["convlstm", "sms-lstm", "tms-lstm", "ms-lstm"]


def positive_copy(model: Forecaster, seed: int = 0) -> Forecaster:
    """Return a copy in float64 with random weights above zero, in which no two paths to a pixel cancel.

    Each kernel is scaled to average what it reads, so that no gate saturates however deep the model.
    """
    twin = copy.deepcopy(model).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in twin.parameters():
            draw = 0.5 + torch.rand(weight.shape, generator=generator, dtype=weight.dtype)
            weight.copy_(draw / max(1, weight[0].numel()) if weight.ndim > 1 else 0.1 * draw)
    return twin


def fields(name: str, layers: int = 6, steps: int = 1, size: int = 256, **options: int) -> dict[str, tuple[int, ...]]:
    model = small_model(name, hidden=4, layers=layers, **options)
    return {field.layer: field.sides for field in receptive_fields(model, (size, size), steps)}


def both(name: str, size: int, steps: int, clips: int, **options: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Predicted and measured rows, then columns, of every layer of a model with weights above zero."""
    model = small_model(name, **options).eval()
    predicted = trace_supports(model, (size, size + 8), steps)
    frames = torch.rand(clips, steps, 1, size, size + 8, dtype=torch.float64)
    measured = measure_gradients(positive_copy(model), frames)
    pairs = []
    for layer, support in predicted.items():
        rows, columns = central_support(support)
        pairs += [(rows, (measured[layer] > 0).any(2)), (columns, (measured[layer] > 0).any(1))]
    return pairs


@pytest.mark.parametrize("pyramid", ["", "ms-"])
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_what_is_measured_is_what_was_predicted(name: str, pyramid: str) -> None:
    steps = 3
    for predicted, measured in both(pyramid + name, 32, steps, clips=4, hidden=4, layers=4 if pyramid else 2):
        # The first step starts from states of zeros, which hide the paths that multiply them.
        assert torch.equal(predicted[: steps - 1], measured[: steps - 1])


# CMS-LSTM takes square frames only, and has a test of its own below.
@pytest.mark.parametrize("name", [name for name in fc.list_models() if "cms" not in name])
def test_nothing_is_seen_outside_the_prediction(name: str) -> None:
    one_shot = name not in RECURRENT
    if name == "earthformer":
        model = small_model(name, size=(16, 24), **{k: v for k, v in SMALL_ONE_SHOT[name].items() if k != "size"})
        predicted = trace_supports(model.eval(), (16, 24), CONTEXT)
        assert all(support.rows.all() and support.columns.all() for support in predicted.values())
        return
    options = {} if one_shot else {"hidden": 4, "layers": 2}
    for predicted, measured in both(name, 16, CONTEXT if one_shot else 2, clips=2, **options):
        assert not (measured & ~predicted).any()
        assert measured.any()


@pytest.mark.parametrize("name", ["cms-lstm", "ms-cms-lstm"])
def test_attention_to_patches_sees_the_whole_frame(name: str) -> None:
    model = small_model(name, hidden=4, layers=2).eval()
    measured = measure_gradients(positive_copy(model), torch.rand(2, 1, 1, 16, 16, dtype=torch.float64))
    assert fields(name, layers=2, size=16)["layer0"] == (16,)
    assert (measured["layer0"] > 0).all()


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_plain_column_by_hand(kernel: int) -> None:
    found = fields("convlstm", steps=2, kernel=kernel)
    for layer in range(6):
        assert found[f"layer{layer}"] == (1 + (layer + 1) * (kernel - 1), 1 + (layer + 2) * (kernel - 1))
    assert found["embed"] == (1, 0)


def test_a_pyramid_by_hand() -> None:
    # Kernel 3 reaches 2 pixels more at scale 0, 4 at scale 1, 8 at scale 2; a pooling adds 1, then 2.
    found = fields("sms-lstm")
    assert [found[f"layer{layer}"][0] for layer in range(3)] == [3, 3 + 1 + 4, 3 + 1 + 4 + 2 + 8]


def test_a_unit_of_two_kernels_by_hand() -> None:
    # Not 5: the output gate looks at the new memory through another 5x5 kernel.
    assert fields("tms-lstm")["layer0"] == (9,)
    assert fields("mk-lstm", layers=1, steps=3)["head"] == (9, 17, 25)


def test_the_window_of_attention_by_hand() -> None:
    # 30 taps, of which x̂ is read by the gates (3x3), and the new memory by the output gate (3x3).
    assert fields("preciplstm", layers=1, size=96)["layer0"] == (30 + 2 + 2 + 2,)


def test_the_statements_of_the_paper() -> None:
    """Section 4.3.2: an encoder of 7x7; pooling about doubles it; 5x5 kernels widen it further."""
    encoder = {name: fields(name)["layer2"][0] for name in ABLATION}
    assert encoder["convlstm"] == 7
    assert 2 < encoder["sms-lstm"] / encoder["convlstm"] < 2.6
    assert 2 < encoder["ms-lstm"] / encoder["tms-lstm"] < 2.6
    assert encoder["ms-lstm"] > 3 * encoder["sms-lstm"]
    assert encoder["tms-lstm"] > encoder["convlstm"]


def test_the_effective_fields_are_in_the_same_order() -> None:
    found = {
        row["model"]: row["effective"]
        for row in fc.analyse_receptive(ABLATION, size=64, clips=4, model_options={"hidden": 8})
        if row["layer"] == "layer2"
    }
    assert found["convlstm"] < found["sms-lstm"] < found["ms-lstm"]
    assert found["convlstm"] < found["tms-lstm"] < found["ms-lstm"]


def test_effective_sides_by_hand() -> None:
    gradient = torch.zeros(9, 9)
    assert effective_side(gradient) == 0
    gradient[2:6, 3:7] = 1
    gradient[0, 0] = 0.04
    assert effective_side(gradient) == 4
    gradient[0] = 0.05
    assert effective_side(gradient) == 5


def test_reach_counts_from_the_first_to_the_last() -> None:
    rows = torch.tensor([[False, True, False, True, False], [False] * 5])
    assert reach(rows, torch.zeros(2, 4, dtype=torch.bool)) == (3, 0)


def test_an_unknown_operation_counts_as_everything() -> None:
    class Flipped(torch.nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.flip(-1))

    model = small_model("convlstm", hidden=4, layers=2)
    assert fields("convlstm", layers=2, size=32)["layer1"] == (5,)
    flipped = Flipped(1, 4, 1)
    model.embed = flipped
    assert receptive_fields(model, (32, 32))[2].sides == (32,)


@pytest.mark.parametrize(("name", "size"), [("sms-lstm", 31), ("simvp", 31)])
def test_frames_that_would_be_padded(name: str, size: int) -> None:
    model = small_model(name)
    with pytest.raises(ValueError, match=f"{size}x{size} would be padded: take 32x32"):
        receptive_fields(model, (size, size), CONTEXT)
    with pytest.raises(ValueError, match="would be padded"):
        measure_gradients(model, torch.rand(1, CONTEXT, 1, size, size))


def test_figure_and_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["analyse", "receptive", "sms-lstm", "--size", "32", "--clips", "2", "--steps", "2", "--out"]
    assert cli.main([*arguments, str(tmp_path), "--model_options.layers", "2"]) == 0
    assert "layer1" in capsys.readouterr().out
    assert (tmp_path / "receptive-fields.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "receptive-fields.svg").read_text().startswith("<svg")
    with pytest.raises(ValueError, match="clips is 0"):
        fc.analyse_receptive(clips=0)
