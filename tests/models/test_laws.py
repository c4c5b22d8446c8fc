"""Laws that hold for every model of the registry; a new name is tested with no further edit."""

from __future__ import annotations

import pytest
import torch
from samples.models import CONTEXT, HORIZON, REACH, RECURRENT, pyramids_in_long_form, small_clip, small_model
from samples.native import use

import framecast as fc
from framecast.models import recurrent
from framecast.models.recurrent import RecurrentForecaster
from framecast.registry import ONE_SHOT, model_entry

# Native code computes in float32, where sums of other orders differ by some millionths; torch alone in float64.
PRECISIONS: dict[str, tuple[torch.dtype, float]] = {"torch": (torch.float64, 1e-12), "native": (torch.float32, 1e-5)}
MODELS = fc.list_models()
every_model = pytest.mark.parametrize("name", MODELS)
every_recurrent = pytest.mark.parametrize("name", RECURRENT)


@pytest.fixture
def precision(either_way: str) -> tuple[torch.dtype, float]:
    """Return the numbers that the way of computing takes, and by how much equal ones may differ."""
    return PRECISIONS[either_way]


@every_model
@pytest.mark.usefixtures("either_way")
def test_shapes(name: str) -> None:
    model, clip = small_model(name), small_clip()
    assert model(clip[:, :CONTEXT], HORIZON).shape == (2, HORIZON, 1, 16, 16)
    rollout = model.rollout(clip, CONTEXT, HORIZON)
    assert rollout.first + rollout.frames.shape[1] == clip.shape[1]
    assert rollout.frames.shape[2:] == clip.shape[2:]
    assert rollout.penalty is None or rollout.penalty.shape == (2,)


@every_model
def test_every_element_of_every_parameter_learns(name: str) -> None:
    # A dead slice stays at zero for every seed; a live one may rarely be small for one of them.
    for seed in range(3):
        model = small_model(name).double().train()
        if seed:
            torch.manual_seed(seed)
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
        side = REACH.get(name, 16)
        clip = small_clip(batch=3, height=side, width=side, seed=seed).double()
        rollout = model.rollout(clip, CONTEXT, HORIZON)
        error = rollout.frames - clip[:, rollout.first :]
        loss = (error.square() + error.abs()).sum((2, 3, 4)).mean()
        if rollout.penalty is not None:
            loss = loss + rollout.penalty.mean()
        loss.backward()
        gradients = {key: p.grad for key, p in model.named_parameters()}
        assert all(gradient is not None for gradient in gradients.values()), "a parameter without a gradient"
        largest = max(gradient.abs().max() for gradient in gradients.values())
        dead = {key: int((g.abs() <= 1e-9 * largest).sum()) for key, g in gradients.items()}
        dead = {key: count for key, count in dead.items() if count}
        if not dead:
            return
    pytest.fail(f"elements without a gradient: {dead}")


@every_model
def test_batch_rows_are_independent(name: str, precision: tuple[torch.dtype, float]) -> None:
    dtype, atol = precision
    model, clip = small_model(name).eval().to(dtype), small_clip(batch=3).to(dtype)
    with torch.no_grad():
        together = model(clip[:, :CONTEXT], HORIZON)
        alone = torch.cat([model(row[None, :CONTEXT], HORIZON) for row in clip])
    torch.testing.assert_close(together, alone, rtol=0, atol=atol)


@every_model
def test_the_future_cannot_change_a_forecast(name: str, precision: tuple[torch.dtype, float]) -> None:
    dtype, atol = precision
    model, clip = small_model(name).eval().to(dtype), small_clip().to(dtype)
    other = clip.clone()
    other[:, CONTEXT:] = torch.rand_like(other[:, CONTEXT:])
    with torch.no_grad():
        first, second = (model.rollout(c, CONTEXT, HORIZON).frames for c in (clip, other))
        assert torch.equal(first, second)
        past_only = model.rollout(clip[:, :CONTEXT], CONTEXT, HORIZON).frames
        torch.testing.assert_close(past_only, first, rtol=0, atol=atol)
        torch.testing.assert_close(model(clip[:, :CONTEXT], HORIZON), first[:, -HORIZON:], rtol=0, atol=atol)


@every_recurrent
def test_in_pieces_equals_one_pass(name: str, precision: tuple[torch.dtype, float]) -> None:
    dtype, atol = precision
    model, clip = small_model(name).eval().to(dtype), small_clip().to(dtype)
    assert isinstance(model, RecurrentForecaster)
    with torch.no_grad():
        whole = model(clip[:, :CONTEXT], HORIZON)
        state = model.observe(clip[:, :1])
        state = model.observe(clip[:, 1:CONTEXT], state)
        first = model.forecast(state, HORIZON)
        torch.testing.assert_close(first, whole, rtol=0, atol=atol)
        torch.testing.assert_close(model.forecast(state, 1)[:, 0], state.frame, rtol=0, atol=atol)
        assert torch.equal(model.forecast(state, HORIZON), first), "forecasting changed the state"


@every_model
def test_padding_is_what_one_would_do_by_hand(name: str, precision: tuple[torch.dtype, float]) -> None:
    dtype, atol = precision
    options = {"pad": False} if "pad" in model_entry(name).options() else {}
    if name in ONE_SHOT and not options:
        pytest.skip("built for one frame size")
    model, strict = (small_model(name, **kept).eval().to(dtype) for kept in ({}, options))
    for height, width in ((13, 16), (9, 22), (31, 8)):
        clip = small_clip(height=height, width=width).to(dtype)
        size = 32
        padded = torch.nn.functional.pad(clip.flatten(0, 1), (0, -width % size, 0, -height % size), mode="replicate")
        with torch.no_grad():
            ours = model(clip[:, :CONTEXT], HORIZON)
            assert ours.shape[-2:] == (height, width)
            least = model.multiple
            h, w = (-(-n // least) * least for n in (height, width))
            by_hand = padded.unflatten(0, clip.shape[:2])[..., :h, :w]
            theirs = strict(by_hand[:, :CONTEXT], HORIZON)[..., :height, :width]
            torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)
            if (h, w) != (height, width):
                with pytest.raises(ValueError, match=f"{height}x{width}.*multiples of {least}.*{h}x{w}"):
                    strict(clip[:, :CONTEXT], HORIZON)


@every_model
@pytest.mark.usefixtures("either_way")
def test_no_data_is_taken_as_nothing_and_does_not_spread(name: str) -> None:
    model, past = small_model(name).eval(), small_clip()[:, :CONTEXT]
    holes = past.clone()
    holes[0, -1, :, 4:6, 4:6] = torch.nan
    with torch.no_grad():
        forecast = model(holes, HORIZON)
        assert forecast.isfinite().all()
        assert torch.equal(forecast, model(holes.nan_to_num(0.0), HORIZON))
        if isinstance(model, RecurrentForecaster):
            assert torch.equal(model.forecast(model.observe(holes), HORIZON), forecast)


def test_a_stream_that_keeps_its_graph_is_told_so_once(caplog: pytest.LogCaptureFixture) -> None:
    recurrent._tell_of_the_graph.cache_clear()
    model, clip = small_model("ms-lstm"), small_clip()
    with torch.no_grad():
        model.observe(clip[:, 2:], model.observe(clip[:, :2]))
    model.observe(clip[:, :2])
    assert not caplog.messages
    state = model.observe(clip[:, :2])
    for frame in clip[:, 2:4].split(1, 1):
        state = model.observe(frame, state)
    assert [("no_grad" in message) for message in caplog.messages] == [True]


@every_model
def test_float64(name: str) -> None:
    model = small_model(name).double()
    assert model(small_clip().double()[:, :CONTEXT], HORIZON).dtype == torch.float64


@every_model
@pytest.mark.usefixtures("either_way")
def test_bfloat16_autocast_keeps_memories_in_float32(name: str) -> None:
    model, clip = small_model(name).eval(), small_clip()
    outputs: list[torch.Tensor] = []
    for layer in model.layers().values():
        layer.register_forward_hook(lambda *call: outputs.append(call[2][0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        forecast = model(clip[:, :CONTEXT], HORIZON)
        if isinstance(model, RecurrentForecaster):
            state = model.observe(clip[:, :CONTEXT])
            # Only h may be short: it is made anew at every step, nothing adds up in it.
            memories = [t for t in state.layers if not any(t is h for h in outputs)]
            assert {t.dtype for t in memories} <= {torch.float32}
            assert state.memory is None or state.memory.dtype == torch.float32
    with torch.no_grad():
        exact = model(clip[:, :CONTEXT], HORIZON)
    assert forecast.isfinite().all()
    torch.testing.assert_close(forecast.float(), exact, rtol=0.1, atol=0.1)


class FixedHorizon(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        return self.model(past, HORIZON)


# What is exported is torch's alone, whatever computes beside it.
@pytest.mark.parametrize("way", ["torch", pytest.param("native", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", pyramids_in_long_form(MODELS))
def test_export_gives_the_same_numbers(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, way)
    dtype, atol = PRECISIONS[way]
    model, past = FixedHorizon(small_model(name).eval().to(dtype)), small_clip()[:, :CONTEXT].to(dtype)
    with torch.no_grad():
        exported = torch.export.export(model, (past,)).module()
        torch.testing.assert_close(exported(past), model(past), rtol=0, atol=atol)


@pytest.mark.parametrize("name", [name for name in RECURRENT if f"ms-{name}" in MODELS])
def test_a_pyramid_adds_no_parameters(name: str) -> None:
    plain, pyramid = small_model(name), small_model(f"ms-{name}")
    shapes = [{key: p.shape for key, p in model.named_parameters()} for model in (plain, pyramid)]
    assert shapes[0] == shapes[1]


@every_model
def test_seeded_initialisation_is_reproducible(name: str) -> None:
    first, second = small_model(name).state_dict(), small_model(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_model
def test_layers_name_parts_that_run(name: str) -> None:
    model, seen = small_model(name).eval(), []
    for key, layer in model.layers().items():
        layer.register_forward_hook(lambda *_, key=key: seen.append(key))
    with torch.no_grad():
        model(small_clip()[:, :CONTEXT], HORIZON)
    assert set(seen) == set(model.layers())


@every_model
def test_channels_in_and_out(name: str) -> None:
    clip = small_clip(channels=2)
    assert small_model(name, in_channels=2)(clip[:, :CONTEXT], HORIZON).shape[2] == 2
    mixed = small_model(name, in_channels=2, out_channels=1)
    within = 1 if name in RECURRENT else HORIZON
    assert mixed(clip[:, :CONTEXT], within).shape[:3] == (2, within, 1)
    with pytest.raises(ValueError, match="channels"):
        mixed(clip[:, :CONTEXT], within + 1)


@every_model
def test_wrong_input_is_refused(name: str) -> None:
    model, clip = small_model(name), small_clip()
    with pytest.raises(ValueError, match="five"):
        model(clip[0], HORIZON)
    with pytest.raises(ValueError, match="in_channels=6"):
        model(clip.transpose(1, 2), HORIZON)
    with pytest.raises(ValueError, match="floating point"):
        model((clip * 255).byte(), HORIZON)
    with pytest.raises(ValueError, match="horizon is 0"):
        model(clip[:, :CONTEXT], 0)
    with pytest.raises(ValueError, match="no frames"):
        model(clip[:, :0], HORIZON)
    with pytest.raises(ValueError, match="frames"):
        model.rollout(clip[:, : CONTEXT - 1], CONTEXT, HORIZON)
