"""Our forecasters compute what the released models compute, to float32 rounding."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from samples.paths import REFERENCE

import framecast as fc
from framecast.registry import model_entry
from framecast.weights.importing import UnusedWeightsWarning

pytestmark = pytest.mark.usefixtures("either_way")
TOLERANCE = 1e-5

RECURRENT = {
    "convlstm": ("convlstm", {}),
    "mk_lstm": ("tms-lstm", {}),
    "ms_convlstm": ("sms-lstm", {}),
    "ms_lstm": ("ms-lstm", {}),
    "ms_convlstm_wo_skip": ("ms-convlstm", {"skip": "none"}),
    "trajgru": ("trajgru", {}),
    "predrnn": ("predrnn", {}),
    "predrnn_v2": ("predrnn-v2", {}),
    "predrnn_plus2": ("predrnn++", {}),
    "mim": ("mim", {}),
    "motionrnn": ("motionrnn", {}),
    "ms_trajgru": ("ms-trajgru", {}),
    "ms_predrnn": ("ms-predrnn", {}),
    "ms_predrnn_v2": ("ms-predrnn-v2", {}),
    "ms_predrnn_plus2": ("ms-predrnn++", {}),
    "preciplstm": ("preciplstm", {}),
    "cms_lstm": ("cms-lstm", {}),
    "modernn": ("modernn", {}),
    "ms_preciplstm": ("ms-preciplstm", {}),
    "ms_cms_lstm": ("ms-cms-lstm", {}),
    "ms_modernn": ("ms-modernn", {}),
}

# The released code mixes the samples of a batch: only its outputs for one sample at a time compare.
MIXED = ("motionrnn",)
# Kinks of the warp amplify rounding: ten times the recorded noise, and 1 % for gradients.
KINKED = ("trajgru", "ms_trajgru")
DECOUPLED = ("predrnn_v2", "ms_predrnn_v2")
# How many tensors, or slices of one, have no effect in the released model.
WITHOUT_EFFECT = {"predrnn_plus2": 20, "ms_predrnn_plus2": 20, "mim": 34, "motionrnn": 50}

unmixed = pytest.mark.parametrize("case", [file for file in RECURRENT if file not in MIXED], indirect=True)
decoupled = pytest.mark.parametrize("case", DECOUPLED, indirect=True)


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
        self.output = self.extra.get("output_per_sample", tensors["output"]).transpose(0, 1)
        self.context, self.horizon = int(self.facts["in_len"]), int(self.facts["out_len"])
        noise = 10 * float(self.facts["fp64_max_abs_diff"]) if file in KINKED else 0.0
        self.tolerance = max(TOLERANCE, noise)
        self.gradient_tolerance = 1e-2 if file in KINKED else TOLERANCE
        self.name, options = RECURRENT[file]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnusedWeightsWarning)  # the released models carry dead weights
            self.model = fc.import_weights(self.name, self.weights, **options).eval()


@pytest.fixture(scope="module", params=RECURRENT)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def close(ours: torch.Tensor, theirs: torch.Tensor, relative: bool = False, tolerance: float = TOLERANCE) -> None:
    scale = theirs.abs().max().item() if relative else 1.0
    assert (ours - theirs).abs().max().item() <= tolerance * scale


def test_rollout(case: Case) -> None:
    with torch.no_grad():
        rollout = case.model.rollout(case.clip, case.context, case.horizon)
    assert rollout.first == 1
    close(rollout.frames, case.output, tolerance=case.tolerance)


@pytest.mark.gpu
def test_rollout_on_a_gpu(case: Case) -> None:
    model = copy.deepcopy(case.model).cuda()
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        rollout = model.rollout(case.clip.cuda(), case.context, case.horizon)
    close(rollout.frames.cpu(), case.output, tolerance=case.tolerance)


def test_forecast_is_the_end_of_the_rollout(case: Case) -> None:
    with torch.no_grad():
        forecast = case.model(case.clip[:, : case.context], case.horizon)
    close(forecast, case.output[:, case.context - 1 :], tolerance=case.tolerance)


@unmixed
def test_scheduled_sampling_rollout(case: Case) -> None:
    seen = torch.ones(case.clip.shape[0], case.context, dtype=torch.bool)
    truth = torch.cat([seen, case.extra["ss_mask"].T.bool()], 1)
    with torch.no_grad():
        frames = case.model.rollout(case.clip, case.context, case.horizon, truth).frames
    close(frames, case.extra["output_ss"].transpose(0, 1), tolerance=case.tolerance)


@decoupled
def test_reverse_scheduled_sampling_rollout(case: Case) -> None:
    first = torch.ones(case.clip.shape[0], 1, dtype=torch.bool)
    truth = torch.cat([first, case.extra["rss_mask"].T.bool()], 1)
    with torch.no_grad():
        frames = case.model.rollout(case.clip, case.context, case.horizon, truth).frames
    close(frames, case.extra["output_rss"].transpose(0, 1))


@decoupled
def test_decoupling_penalty(case: Case) -> None:
    model = copy.deepcopy(case.model).train()
    with torch.no_grad():
        penalty = model.rollout(case.clip, case.context, case.horizon).penalty
    # Theirs is (steps, layers, samples, channels).
    close(penalty, case.extra["decouple"].sum((1, 3)).mean(0), relative=True)


@unmixed
def test_loss(case: Case) -> None:
    model = copy.deepcopy(case.model).train()
    with torch.no_grad():
        rollout = model.rollout(case.clip, case.context, case.horizon)
    error = rollout.frames - case.clip[:, 1:]
    loss = (error.square() + error.abs()).sum((2, 3, 4)).mean()
    if rollout.penalty is not None:
        loss = loss + model_entry(case.name).training.penalty_weight * rollout.penalty.mean()
    close(loss, case.extra["loss"].squeeze(), relative=True)


@unmixed
def test_gradients(case: Case) -> None:
    # In float64, since float32 noise can turn the near-tie of a max-pool and move a gradient to a neighbour.
    model = copy.deepcopy(case.model).double()
    clip = case.clip.double().requires_grad_()
    model.rollout(clip, case.context, case.horizon).frames.square().sum().mul(0.5).backward()
    theirs = case.extra["grad_input"].transpose(0, 1)
    close(clip.grad, theirs, relative=True, tolerance=case.gradient_tolerance)
    theirs = case.extra["grad_embed_weight"]
    close(model.embed.weight.grad, theirs, relative=True, tolerance=case.gradient_tolerance)


@pytest.mark.parametrize(("case", "count"), WITHOUT_EFFECT.items(), indirect=["case"])
def test_weights_without_effect_are_named(case: Case, count: int) -> None:
    with pytest.warns(UnusedWeightsWarning, match=f"{count} tensors or slices have no effect"):
        fc.import_weights(case.name, case.weights)
