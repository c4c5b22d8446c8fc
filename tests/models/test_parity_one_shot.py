"""One-shot models compute what the released ones compute, to the noise of float32."""

from __future__ import annotations

import pytest
import torch
from samples.one_shot import ONE_SHOT, Case

pytestmark = pytest.mark.filterwarnings("ignore::framecast.weights.importing.UnusedWeightsWarning")


@pytest.fixture(scope="module", params=ONE_SHOT)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_forecast(case: Case) -> None:
    with torch.no_grad():
        forecast = case.imported().double()(case.past.double(), case.output.shape[1])
    error = (forecast - case.output).abs().max().item()
    assert error <= 10 * case.facts["max_abs_f32_vs_f64"]


@pytest.mark.gpu
def test_forecast_on_a_gpu(case: Case) -> None:
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        forecast = case.imported().cuda()(case.past.cuda(), case.output.shape[1]).cpu()
    # Both sides carry float32 noise of the same size.
    assert (forecast - case.output).abs().max().item() <= max(1e-5, 20 * case.facts["max_abs_f32_vs_f64"])


def test_gradient(case: Case) -> None:
    # In float64, so that what is left is the float32 noise of the file, the same on every processor.
    model, past = case.imported().double(), case.past.double().requires_grad_()
    (model(past, case.output.shape[1]) * case.probe).sum().backward()
    error = (past.grad - case.gradient).abs().max() / case.gradient.abs().max()
    assert error.item() <= 1e-5
