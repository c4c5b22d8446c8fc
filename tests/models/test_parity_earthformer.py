"""Our Earthformer computes what the released model computes, and its importer says what it leaves out."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from samples.paths import REFERENCE

import framecast as fc
from framecast.errors import UnknownNameError, WeightsError
from framecast.weights.importing import UnusedWeightsWarning

CASES = ("axial", "axial_global", "sevirlike", "swin_lg", "pad_ignore")


def read(case: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    path = Path(REFERENCE / f"earthformer_{case}.safetensors")
    with safe_open(path, "pt") as handle:
        return load_file(path), json.loads(handle.metadata()["config"])


def weights_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix("param/"): tensor for key, tensor in tensors.items() if key.startswith("param/")}


def import_case(case: str, **changes: Any) -> fc.Forecaster:
    tensors, facts = read(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedWeightsWarning)
        return fc.import_weights(
            "earthformer", weights_of(tensors), source="earthformer", config={**facts["kwargs"], **changes}
        )


@pytest.mark.parametrize("case", CASES)
def test_output_and_gradient(case: str) -> None:
    """Ours in float64, so that what is left is the float32 noise of the file, the same on every processor."""
    tensors, facts = read(case)
    model = import_case(case).double().eval()
    # The released code is (B, T, H, W, C), ours (B, T, C, H, W).
    past = tensors["input"].permute(0, 1, 4, 2, 3).double().requires_grad_()
    output = model(past, tensors["output"].shape[1]).permute(0, 1, 3, 4, 2)
    noise = facts["max_abs_f32_vs_f64"]
    assert (output - tensors["output"]).abs().max() <= 10 * noise
    (output * tensors["probe"]).sum().backward()
    gradient, theirs = past.grad.permute(0, 1, 3, 4, 2), tensors["grad_input"]
    # Where the file's own float noise is larger than the tolerance, that noise decides: ten times for the forward pass,
    # and as much for the backward pass, which runs through as many operations.
    tolerance = max(1e-5, 20 * noise / tensors["output"].abs().max().item())
    assert (gradient - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_output_on_a_gpu(case: str) -> None:
    tensors, facts = read(case)
    model = import_case(case).cuda().eval()
    past = tensors["input"].permute(0, 1, 4, 2, 3).cuda()
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        output = model(past, tensors["output"].shape[1]).permute(0, 1, 3, 4, 2).cpu()
    # Both sides carry float32 noise of the same size.
    assert (output - tensors["output"]).abs().max() <= max(1e-5, 20 * facts["max_abs_f32_vs_f64"])


def test_what_has_no_effect_is_reported() -> None:
    tensors, facts = read("sevirlike")
    with pytest.warns(UnusedWeightsWarning) as caught:
        fc.import_weights("earthformer", weights_of(tensors), source="earthformer", config=facts["kwargs"])
    message = str(caught[0].message)
    # Four memory frames and three queries have offsets -3 … 2 of -6 … 6.
    assert "decoder.cross_blocks.0.0.attn_l.0.relative_position_bias_table[0:3, 9:13]" in message
    assert "encoder.blocks.1.0.attn_l.2.global_proj.weight" in message
    assert "encoder.blocks.0.0.attn_l.2.global_proj.weight" not in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"downsample": 3}, "downsample is 3 and only 2 is supported"),
        ({"norm_layer": "rms_norm"}, "norm_layer is 'rms_norm' and only 'layer_norm'"),
        ({"z_init_method": "ones"}, "z_init_method is 'ones' and only 'zeros' or 'last' or"),
        ({"dec_use_inter_ffn": False}, "dec_use_inter_ffn is False and only True"),
        ({"enc_attn_patterns": None}, "enc_attn_patterns is None and only patterns with a name"),
        ({"initial_downsample_scale": [1, 2, 2]}, r"initial_downsample_scale is \[1, 2, 2\] and only one number"),
    ],
)
def test_unsupported_arguments_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        import_case("axial", **change)


def test_wrong_weights_are_refused() -> None:
    tensors, facts = read("axial")
    weights, config = weights_of(tensors), facts["kwargs"]

    def attempt(weights: dict[str, torch.Tensor], config: dict[str, Any] | None, name: str = "earthformer") -> None:
        fc.import_weights(name, weights, source="earthformer", config=config)

    with pytest.raises(ValueError, match="needs config"):
        attempt(weights, None)
    with pytest.raises(UnknownNameError, match="Did you mean 'base_units'"):
        attempt(weights, {**config, "base_unit": 16})
    with pytest.raises(UnknownNameError, match="model of source 'earthformer'"):
        attempt(weights, config, "ms-lstm")
    with pytest.raises(WeightsError, match=r"lack 'dec_final_proj\.bias'"):
        attempt({key: tensor for key, tensor in weights.items() if key != "dec_final_proj.bias"}, config)
    with pytest.raises(WeightsError, match="hold 'extra', which"):
        attempt({**weights, "extra": torch.zeros(1)}, config)
    key = "decoder.self_blocks.0.0.attn_l.0.relative_position_bias_table"
    with pytest.raises(WeightsError, match="has 5 rows and config asks for 6"):
        attempt({**weights, key: weights[key][:5]}, config)
    with (
        pytest.warns(UnusedWeightsWarning),
        pytest.raises(WeightsError, match=r"'positions\.times' is \(3, 16\) in the file"),
    ):
        attempt({**weights, "enc_pos_embed.T_embed.weight": torch.zeros(3, 16)}, config)
