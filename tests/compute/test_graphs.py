"""Recorded kernels compute what the model does.

Kernels can be recorded on a GPU only. Here stands a stand-in that behaves as they do where it matters: inputs, outputs
and gradients have fixed places, which every replay overwrites.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples.models import CONTEXT, HORIZON, small_clip, small_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import framecast as fc
from framecast.compute import compiling, graphs
from framecast.compute.graphs import Replayed
from framecast.models.recurrent import RecurrentForecaster
from framecast.registry import model_entry
from framecast.training import task
from framecast.training.losses import sampled_steps, training_loss

TINY = {"size": 16, "context": 2, "horizon": 2, "clips": 60}


def make_fake_graph(module: nn.Module, example: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """Stand in for ``graphs.make_graph``."""
    kept, weights = [tensor.clone() for tensor in example], list(module.parameters())
    gradients, loss = [torch.zeros_like(weight) for weight in weights], torch.zeros(())
    run: dict[str, Tensor] = {}

    def backward(output: Tensor, of: Tensor) -> None:
        found = torch.autograd.grad(output, weights, of, allow_unused=True)
        for place, gradient in zip(gradients, found, strict=True):
            place.copy_(torch.zeros_like(place) if gradient is None else gradient)

    for _ in range(3):
        backward(module(*kept), loss)

    class Graphed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            for place, new in zip(kept, inputs[: len(kept)], strict=True):
                place.copy_(new)
            with torch.enable_grad():
                run["loss"] = module(*kept)
            return loss.copy_(run["loss"].detach()).detach()

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            backward(run["loss"], grads[0])
            return (*[None] * len(kept), *(gradient.detach() for gradient in gradients))

    return lambda *tensors: Graphed.apply(*tensors, *weights)  # type: ignore[no-untyped-call, no-any-return]


def fake_record(function: Callable[..., Any], arguments: list[Any]) -> Callable[..., Any]:
    """Stand in for ``graphs.record``."""
    kept = tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, arguments)
    outputs = tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, function(*kept))

    def replay(*new: Any) -> Any:
        for place, argument in zip(kept, new, strict=True):
            if isinstance(place, Tensor):
                place.copy_(argument)
        found = tree_leaves(function(*kept))
        for place, value in zip(tree_leaves(outputs), found, strict=True):
            if isinstance(place, Tensor):
                place.copy_(value)
        return tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, outputs)

    return replay


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let kernels be recorded on the processor, and return what was."""
    calls: list[str] = []

    def counted(kind: str, make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: (calls.append(kind), make(*arguments))[1]

    monkeypatch.setattr(compiling, "can_capture", lambda device: True)
    monkeypatch.setattr(graphs, "make_graph", counted("training", make_fake_graph))
    monkeypatch.setattr(graphs, "record", counted("forecast", fake_record))
    return calls


@pytest.fixture
def same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is not recorded add up weight gradients in the order of what is, for equality to the last bit."""
    monkeypatch.setattr(RecurrentForecaster, "shares_kernels", True)


class Watch(TorchDispatchMode):
    """Notes what would wait for a device, or is made elsewhere than there."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.elsewhere = device, set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            if isinstance(value, Tensor) and value.device.type != self.device:
                self.elsewhere.add(str(func))
        return result


@pytest.mark.parametrize("name", fc.list_models())
def test_every_model_that_says_so_can_be_recorded(name: str) -> None:
    # On tensors without numbers whatever depends on values fails, as it does where kernels are recorded.
    model, recipe = small_model(name).to("meta").train(), model_entry(name).training
    clip = small_clip(batch=2).to("meta")
    watch = Watch("meta")
    try:
        with watch:
            training_loss(model, recipe, clip, CONTEXT, sampled_steps(recipe, clip)).backward()  # type: ignore[no-untyped-call]
            with torch.inference_mode():
                model.eval()(clip[:, :CONTEXT], HORIZON)
    except (NotImplementedError, RuntimeError):
        assert not model_entry(name).capturable
        return
    assert model_entry(name).capturable == (not watch.elsewhere)


def weights(run: Any) -> dict[str, Tensor]:
    return fc.load(run).state_dict()


@pytest.mark.usefixtures("same_sums")
@pytest.mark.parametrize(("name", "options"), [
    ("ms-lstm", {"hidden": 4, "layers": 2}),
    ("predrnn-v2", {"hidden": 4, "layers": 2}),
    ("simvp", {"hid_S": 8, "hid_T": 16, "N_S": 2, "N_T": 2}),
])  # fmt: skip
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_recorded_training_learns_the_same(
    name: str, options: dict[str, Any], accumulate: int, tmp_path: Path, recorded: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    common = {"data": "moving-mnist", "data_options": TINY, "model_options": options, "steps": 4, "batch": 2,
              "accumulate": accumulate, "lr": 1e-2, "progress": False, "validate_every": 2}  # fmt: skip
    plain = fc.train(name, out=tmp_path / "plain", compile="none", **common)  # type: ignore[arg-type]
    assert not recorded
    ours = fc.train(name, out=tmp_path / "recorded", **common)  # type: ignore[arg-type]
    assert recorded.count("training") == 1
    assert "kernels launched as one graph; to prepare that took" in caplog.text
    for log in ("train", "validation"):
        assert (ours.path / f"log/{log}.csv").read_bytes() == (plain.path / f"log/{log}.csv").read_bytes()
    for key, tensor in weights(plain).items():
        assert torch.equal(weights(ours)[key], tensor), key


def test_a_recorded_training_leaves_no_hooks(tmp_path: Path, recorded: list[str]) -> None:
    model = fc.create_model("convlstm", hidden=4, layers=1)
    fc.train(model, "moving-mnist", out=tmp_path / "run", data_options=TINY, steps=1, batch=2, accumulate=2,
             progress=False)  # fmt: skip
    assert recorded.count("training") == 1
    assert not any(weight._backward_hooks for weight in model.parameters())


def test_a_recorded_training_goes_on_with_the_same_bits(tmp_path: Path, recorded: list[str]) -> None:
    common = {"model": "ms-lstm", "data": "moving-mnist", "data_options": TINY, "steps": 4, "batch": 2,
              "model_options": {"hidden": 4, "layers": 2}, "progress": False, "save_every": 2}  # fmt: skip
    whole = fc.train(out=tmp_path / "whole", **common)  # type: ignore[arg-type]
    part = fc.train(out=tmp_path / "part", **common)  # type: ignore[arg-type]
    (part.path / "checkpoints" / "batch-000000004.ckpt").unlink()
    fc.train(resume=True, out=part.path, progress=False)
    assert recorded.count("training") == 3
    for key, tensor in weights(whole).items():
        assert torch.equal(weights(part)[key], tensor), key


@pytest.mark.usefixtures("same_sums")
def test_masked_frames_are_recorded_with_their_mask(tmp_path: Path, recorded: list[str]) -> None:
    frames = np.random.default_rng(0).random((40, 16, 16)).astype(np.float32)
    frames[:, :4] = np.nan
    np.save(tmp_path / "gaps.npy", frames)
    common = {"model": "ms-lstm", "data": tmp_path / "gaps.npy", "data_options": {"context": 2, "horizon": 2},
              "model_options": {"hidden": 4, "layers": 2}, "steps": 2, "batch": 2, "progress": False}  # fmt: skip
    plain = fc.train(out=tmp_path / "plain", compile="none", **common)  # type: ignore[arg-type]
    ours = fc.train(out=tmp_path / "recorded", **common)  # type: ignore[arg-type]
    assert recorded.count("training") == 1
    assert all(torch.equal(weights(ours)[key], tensor) for key, tensor in weights(plain).items())


@pytest.mark.parametrize(("options", "said"), [
    ({"recompute": "lean"}, "what is recomputed in backward cannot be recorded"),
    ({"model": "mim"}, "it could not be recorded: not this one"),
])  # fmt: skip
def test_a_training_that_cannot_be_recorded_goes_on_and_says_why(
    options: dict[str, Any], said: str, tmp_path: Path, recorded: list[str], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def refuse(*_: Any) -> Any:
        raise RuntimeError("not this one\nand more")

    monkeypatch.setattr(task, "CapturedLoss", refuse)
    common = {"model": "ms-lstm", "data": "moving-mnist", "data_options": TINY, "steps": 1, "batch": 2,
              "model_options": {"hidden": 4, "layers": 2}, "progress": False}  # fmt: skip
    assert fc.train(out=tmp_path / "run", **{**common, **options}).finished  # type: ignore[arg-type]
    assert said in caplog.text


def test_forecasts_are_replayed(tmp_path: Path, recorded: list[str]) -> None:
    run = fc.train("ms-lstm", "moving-mnist", out=tmp_path / "run", data_options=TINY, steps=1, batch=2,
                   model_options={"hidden": 4, "layers": 2}, progress=False, compile="none")  # fmt: skip
    past = np.random.default_rng(0).random((80, 2, 16, 16), np.float32)
    np.testing.assert_array_equal(fc.predict(run, past), fc.predict(run, past, compile="none"))
    assert recorded == ["forecast"]
    results = [fc.evaluate(run, compile=mode, batch=2, bootstrap=0, progress=False, out=None)["forecasts"]["ms-lstm"]
               for mode in ("auto", "none")]  # type: ignore[arg-type]  # fmt: skip
    assert results[0]["mean"] == results[1]["mean"]
    assert len(recorded) == 2, "the odd last batch is computed as it is"


def test_streaming_replays_and_keeps_states_apart(recorded: list[str]) -> None:
    plain, ours = (small_model("ms-lstm").eval() for _ in range(2))
    fc.speed_up(ours)
    clip = small_clip()
    with torch.no_grad():
        expected, state, states = [], None, []
        for step in range(5):
            state = plain.observe(clip[:, step : step + 1], state)  # type: ignore[operator]
            expected.append(plain.forecast(state, 3))  # type: ignore[operator]
        state = None
        for step in range(5):
            state = ours.observe(clip[:, step : step + 1], state)  # type: ignore[operator]
            states.append(state)
        forecasts = [ours.forecast(state, 3) for state in states]  # type: ignore[operator]
    for here, there in zip(forecasts, expected, strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=0)
    assert recorded == ["forecast", "forecast"]


def test_weights_that_have_moved_are_recorded_anew(recorded: list[str]) -> None:
    model = fc.speed_up(small_model("convlstm").eval())
    past = small_clip()[:, :CONTEXT]
    with torch.no_grad():
        for _ in range(3):
            model(past, HORIZON)
        for weight in model.parameters():
            weight.data = 2 * weight
        expected = small_model("convlstm").eval()
        expected.load_state_dict(model.state_dict())
        for _ in range(3):
            assert torch.equal(model(past, HORIZON), expected(past, HORIZON))
    assert recorded == ["forecast", "forecast"]
    assert model(past, HORIZON).requires_grad, "with gradients it is computed as it is"


def test_a_forecast_that_cannot_be_recorded_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("no graph of this")

    monkeypatch.setattr(graphs, "record", refuse)
    model = nn.Identity()
    double = Replayed(lambda x: 2 * x, model)
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(double(torch.ones(2)), torch.full((2,), 2.0))
    assert caplog.text.count("cannot be recorded and goes on as it is: no graph of this") == 1


@pytest.mark.gpu
@pytest.mark.parametrize("name", fc.list_models())
def test_recorded_training_steps_on_a_gpu(name: str) -> None:
    recipe, losses = model_entry(name).training, []
    clip = small_clip(batch=2).cuda()
    truth = sampled_steps(recipe, clip)
    batch = {"frames": clip} if truth is None else {"frames": clip, "truth": truth}
    for captured in (False, True):
        model = small_model(name).cuda().train()

        def loss(frames: Tensor, truth: Tensor | None = None, model: Any = model) -> Tensor:
            return training_loss(model, recipe, frames, CONTEXT, truth)

        step = graphs.CapturedLoss(model, loss, batch, None, accumulated=False) if captured else None
        optimizer = torch.optim.SGD(model.parameters(), 1e-4)
        found = []
        for _ in range(5):
            value = step(batch) if step else loss(**batch)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            found.append(value.detach())
        losses.append(torch.stack(found))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=0)


@pytest.mark.gpu
def test_recorded_forecasts_on_a_gpu() -> None:
    plain, ours = (small_model("ms-lstm").eval().cuda() for _ in range(2))
    fc.speed_up(ours)
    with torch.no_grad():
        for seed in range(4):
            past = small_clip(seed=seed)[:, :CONTEXT].cuda()
            torch.testing.assert_close(ours(past, HORIZON), plain(past, HORIZON), rtol=0, atol=1e-5)
