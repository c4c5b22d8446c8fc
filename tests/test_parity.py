"""Our forecasters compute what the released models compute, to float32 rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import REFERENCE
from safetensors import safe_open
from safetensors.torch import load_file

import framecast as fc

TOLERANCE = 1e-5

RECURRENT = {
    "convlstm": ("convlstm", {}),
    "mk_lstm": ("tms-lstm", {}),
    "ms_convlstm": ("sms-lstm", {}),
    "ms_lstm": ("ms-lstm", {}),
    "ms_convlstm_wo_skip": ("ms-convlstm", {"skip": "none"}),
}


class Case:
    def __init__(self, file: str) -> None:
        path = Path(REFERENCE / f"{file}.safetensors")
        tensors = load_file(path)
        with safe_open(path, "pt") as handle:
            self.facts = handle.metadata()
        self.weights = {k: v for k, v in tensors.items() if k.startswith(("embed.", "rnns.", "fc."))}
        self.extra = {k.removeprefix("extra."): v for k, v in tensors.items() if k.startswith("extra.")}
        # The released code is time first, ours batch first.
        self.clip = tensors["input"].transpose(0, 1).contiguous()
        self.output = tensors["output"].transpose(0, 1)
        self.context, self.horizon = int(self.facts["in_len"]), int(self.facts["out_len"])
        name, options = RECURRENT[file]
        self.model = fc.import_weights(name, self.weights, **options).eval()


@pytest.fixture(scope="module", params=RECURRENT)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def close(ours: torch.Tensor, theirs: torch.Tensor, relative: bool = False) -> None:
    scale = theirs.abs().max().item() if relative else 1.0
    assert (ours - theirs).abs().max().item() <= TOLERANCE * scale


def test_rollout(case: Case) -> None:
    with torch.no_grad():
        rollout = case.model.rollout(case.clip, case.context, case.horizon)
    assert rollout.first == 1
    close(rollout.frames, case.output)


def test_forecast_is_the_end_of_the_rollout(case: Case) -> None:
    with torch.no_grad():
        close(case.model(case.clip[:, : case.context], case.horizon), case.output[:, case.context - 1 :])


def test_scheduled_sampling_rollout(case: Case) -> None:
    seen = torch.ones(case.clip.shape[0], case.context, dtype=torch.bool)
    truth = torch.cat([seen, case.extra["ss_mask"].T.bool()], 1)
    with torch.no_grad():
        close(
            case.model.rollout(case.clip, case.context, case.horizon, truth).frames,
            case.extra["output_ss"].transpose(0, 1),
        )


def test_loss(case: Case) -> None:
    with torch.no_grad():
        frames = case.model.rollout(case.clip, case.context, case.horizon).frames
    error = frames - case.clip[:, 1:]
    loss = (error.square() + error.abs()).sum((2, 3, 4)).mean()
    close(loss, case.extra["loss"].squeeze(), relative=True)


def test_gradients(case: Case) -> None:
    clip = case.clip.clone().requires_grad_()
    frames = case.model.rollout(clip, case.context, case.horizon, truth=None).frames
    frames.square().sum().mul(0.5).backward()
    close(clip.grad, case.extra["grad_input"].transpose(0, 1), relative=True)
    close(case.model.embed.weight.grad, case.extra["grad_embed_weight"], relative=True)
