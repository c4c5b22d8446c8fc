"""SimVP: blocks of frames, options that are refused, stochastic depth, and what the importer refuses."""

from __future__ import annotations

import pytest
import torch
from samples.models import small_model
from samples.one_shot import ONE_SHOT, Case

import framecast as fc
from framecast.errors import UnknownNameError, WeightsError
from framecast.models.simvp import GatedAttention

NAMES = ["simvp", "simvp-v2"]
both = pytest.mark.parametrize("name", NAMES)


def forecast(model: torch.nn.Module, past: torch.Tensor, horizon: int) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(past, horizon)


@both
def test_only_the_last_frames_of_the_past_count(name: str) -> None:
    model, past = small_model(name), torch.rand(2, 5, 1, 16, 16)
    assert torch.equal(forecast(model, past, 3), forecast(model, past[:, -3:], 3))
    with pytest.raises(ValueError, match=r"2 frames.*context=3.*at least 3.*context=2"):
        model(past[:, :2], 3)


@both
@pytest.mark.parametrize(("horizon", "block"), [(2, 2), (3, 3), (5, 3)])
def test_horizon_is_cut_or_rolled_in_blocks(name: str, horizon: int, block: int) -> None:
    model, past = small_model(name, horizon=horizon), torch.rand(2, 3, 1, 16, 16)
    assert model.block == block
    first = forecast(model, past, block)
    assert torch.equal(forecast(model, past, 1), first[:, :1])
    fed = torch.cat([past, first], 1)[:, -3:]
    expected = torch.cat([first, forecast(model, fed, block)], 1)
    assert torch.equal(forecast(model, past, 2 * block - 1), expected[:, :-1])


@both
@pytest.mark.parametrize("horizon", [2, 5])
def test_every_element_learns_whatever_the_horizon(name: str, horizon: int) -> None:
    model = small_model(name, horizon=horizon).double()
    clip = torch.rand(3, 3 + horizon, 1, 24, 24, dtype=torch.float64)
    rollout = model.rollout(clip, 3, horizon)
    assert rollout.first == 3
    (rollout.frames - clip[:, 3:]).square().mean().backward()
    largest = max(p.grad.abs().max() for p in model.parameters())
    assert all((p.grad.abs() > 1e-10 * largest).all() for p in model.parameters())


@both
def test_true_frames_between_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"truth=None.*sampling='none'"):
        small_model(name).rollout(torch.rand(1, 6, 1, 16, 16), 3, 3, torch.ones(1, 5, dtype=torch.bool))


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("simvp", {"hid_S": 7}, "hid_S is 7.*even.*use 8"),
        ("simvp", {"hid_S": 2}, "hid_S is 2.*at least 4.*use 4"),
        ("simvp", {"hid_T": 30}, "hid_T is 30.*16: use 32"),
        ("simvp", {"groups": 3, "hid_T": 48, "hid_S": 8, "context": 2, "horizon": 2}, "groups is 3.*16.*use [24]"),
        ("simvp", {"groups": 0}, "groups is 0"),
        ("simvp", {"incep_ker": (3, 4)}, "kernel is 4.*3 or 5"),
        ("simvp", {"incep_ker": ()}, "incep_ker is empty"),
        ("simvp", {"N_T": 1}, "N_T is 1.*at least 2"),
        ("simvp", {"N_S": 3, "form": "openstl"}, "N_S is 3.*even.*use 4"),
        ("simvp", {"form": "offical"}, "Did you mean 'official'"),
        ("simvp-v2", {"N_S": 3}, "N_S is 3.*even.*use 4"),
        ("simvp-v2", {"spatio_kernel_enc": 4}, "kernel is 4.*3 or 5"),
        ("simvp-v2", {"mlp_ratio": 0.0}, "mlp_ratio is 0.0"),
        ("simvp-v2", {"drop_path": 1.0}, "drop_path is 1.0.*below 1"),
        ("simvp-v2", {"drop": -0.1}, "drop is -0.1.*at least 0"),
        ("simvp-v2", {"context": 0}, "context is 0"),
        ("simvp-v2", {"out_channels": 0}, "out_channels is 0"),
    ],
)
def test_bad_options_are_refused(name: str, option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model(name, **option)


@pytest.mark.parametrize("N_S", [1, 2, 3, 5])
def test_official_form_takes_any_number_of_layers(N_S: int) -> None:
    model = small_model("simvp", N_S=N_S)
    assert model.multiple == 2 ** (N_S // 2)
    assert forecast(model, torch.rand(1, 3, 1, 9, 14), 3).shape == (1, 3, 1, 9, 14)


def test_stochastic_depth_leaves_samples_out_and_keeps_the_mean() -> None:
    block = GatedAttention(4, 4, mlp_ratio=1.0, drop=0.0, drop_path=0.25)
    updates = block._sometimes(torch.ones(4000, 1, 1, 1)).flatten()
    assert set(updates.tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert updates.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(block.eval()._sometimes(updates), updates)


def test_stochastic_depth_rises_from_zero() -> None:
    model = small_model("simvp-v2", N_T=5, drop_path=0.2)
    assert [block.drop_path for block in model.translator] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_dropout_acts_in_training_only() -> None:
    model, past = small_model("simvp-v2", drop=0.5), torch.rand(1, 3, 1, 16, 16)
    with torch.no_grad():
        model.train()
        assert not torch.equal(model(past, 3), model(past, 3))
        model.eval()
        assert torch.equal(model(past, 3), model(past, 3))


@pytest.mark.parametrize("file", ["simvp_official", "simvp_openstl_incepu", "simvp_openstl_gsta"])
def test_tensors_alone_are_enough(file: str) -> None:
    case = Case(file)
    name, source = ONE_SHOT[file][:2]
    lightning = {f"model.{key}": tensor for key, tensor in case.weights.items()}
    model = fc.import_weights(name, lightning, source=source)
    assert torch.equal(forecast(model, case.past, 5), forecast(case.imported(), case.past, 5))


def test_import_takes_what_matters_in_training_from_the_config() -> None:
    model = Case("simvp_openstl_gsta").imported(drop_path=0.3)
    assert model.translator[-1].drop_path == 0.3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"hid_S": 16}, WeightsError, "config says hid_S=16 and the tensors 8"),
        ({"in_shape": [7, 1, 16, 16]}, WeightsError, "config says context=7 and the tensors 5"),
        ({"model_type": "IncepU"}, WeightsError, "model_type='IncepU'"),
        ({"drop_paths": 0.1}, UnknownNameError, "drop_paths.*Did you mean 'drop_path'"),
    ],
)
def test_import_refuses_a_config_that_does_not_fit(change: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Case("simvp_openstl_gsta").imported(**change)


def test_import_names_missing_and_unknown_tensors() -> None:
    weights = Case("simvp_official").weights
    with pytest.raises(WeightsError, match=r"'hid\.extra'"):
        fc.import_weights("simvp", {**weights, "hid.extra": torch.ones(1)}, source="simvp")
    with pytest.raises(WeightsError, match=r"lack"):
        fc.import_weights("simvp", {k: v for k, v in weights.items() if "readout" not in k}, source="simvp")
    with pytest.raises(WeightsError, match=r"1 missing, first 'decoder\.0\.norm\.bias'"):
        fc.import_weights(
            "simvp", {k: v for k, v in weights.items() if k != "dec.dec.0.conv.norm.bias"}, source="simvp"
        )
    with pytest.raises(WeightsError, match=r"'hid\.dec\.0\.conv1\.bias'.*SimVPv2"):
        fc.import_weights("simvp-v2", weights, source="openstl")
    with pytest.raises(UnknownNameError, match="simvp-v2"):
        fc.import_weights("convlstm", weights, source="openstl")
