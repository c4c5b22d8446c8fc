"""One-shot models compute what the released ones compute, to the noise of float32."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import REFERENCE
from safetensors import safe_open
from safetensors.torch import load_file

import framecast as fc
from framecast.models.forecaster import Forecaster

pytestmark = pytest.mark.filterwarnings("ignore::framecast.weights.importing.UnusedWeightsWarning")

# file: (name, source). The released model forecasts as many frames as its output holds.
ONE_SHOT = {
    "simvp_official": ("simvp", "simvp"),
    "simvp_official_ns2_taxibj": ("simvp", "simvp"),
    "simvp_openstl_incepu": ("simvp", "openstl"),
    "simvp_openstl_gsta": ("simvp-v2", "openstl"),
    "simvp_openstl_gsta_k5": ("simvp-v2", "openstl"),
}


class Case:
    def __init__(self, file: str) -> None:
        path = REFERENCE / f"{file}.safetensors"
        tensors = load_file(path)
        with safe_open(path, "pt") as handle:
            self.facts = json.loads(handle.metadata()["config"])
        self.weights = {k.removeprefix("param/"): v for k, v in tensors.items() if k.startswith("param/")}
        self.name, self.source = ONE_SHOT[file]
        order = [self.facts["layout"].split().index(axis) for axis in "BTCHW"]
        self.past, self.output, self.probe, self.gradient = (
            tensors[key].permute(order) for key in ("input", "output", "probe", "grad_input")
        )

    def imported(self, **config: object) -> Forecaster:
        model = fc.import_weights(self.name, self.weights, source=self.source, config=self.facts["kwargs"] | config)
        return model.eval()


@pytest.fixture(scope="module", params=ONE_SHOT)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_forecast(case: Case) -> None:
    with torch.no_grad():
        forecast = case.imported().double()(case.past.double(), case.output.shape[1])
    error = (forecast - case.output).abs().max().item()
    assert error <= 10 * case.facts["max_abs_f32_vs_f64"]


def test_gradient(case: Case) -> None:
    # In float64, so that what is left is the float32 noise of the file, the same on every processor.
    model, past = case.imported().double(), case.past.double().requires_grad_()
    (model(past, case.output.shape[1]) * case.probe).sum().backward()
    error = (past.grad - case.gradient).abs().max() / case.gradient.abs().max()
    assert error.item() <= 1e-5
