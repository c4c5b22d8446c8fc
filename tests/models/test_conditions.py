"""What models see beside the frames: extrapolation that they add to, covariates, noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from samples.models import RECURRENT, small_model

import framecast as fc
from framecast.data.clips import ClipSpec
from framecast.data.georeference import from_corner
from framecast.data.scaling import DbzPixel
from framecast.errors import FramecastError, OptionError
from framecast.models.conditions import block_width, rows_of_block
from framecast.models.extrapolation import Extrapolation, Motions, _tell_of_unknown_grid, motion_errors
from framecast.models.forecaster import Forecaster
from framecast.models.recurrent import RecurrentForecaster
from framecast.registry import ONE_SHOT
from framecast.weights.saving import fit_tensors, load_weights, named_tensors, save_weights

SIDE, CONTEXT, HORIZON = 40, 4, 7
RAIN = ClipSpec(SIDE, SIDE, 1, CONTEXT, HORIZON, "mm/h", DbzPixel(), 300.0)


def rain(clips: int = 2, seed: int = 0) -> torch.Tensor:
    """Return showers (B, CONTEXT, 1, SIDE, SIDE) in [0, 1] that move right by two pixels a frame."""
    generator = torch.Generator().manual_seed(seed)
    field = torch.rand(clips, 1, SIDE, SIDE + 2 * CONTEXT, generator=generator)
    field = torch.nn.functional.avg_pool2d(field, 7, 1, 3)[:, 0]
    rates = ((field - 0.5) * 200).clamp(min=0)
    frames = [rates[..., 2 * (CONTEXT - t) : 2 * (CONTEXT - t) + SIDE] for t in range(CONTEXT)]
    return DbzPixel().scale(torch.stack(frames, 1))[:, :, None]


def conditioned(name: str, **options: object) -> Forecaster:
    """Return a small model of rain."""
    lengths = {"context": CONTEXT, "horizon": 4} if name in ONE_SHOT else {}
    size = {"size": (SIDE, SIDE)} if name == "earthformer" else {}
    model = small_model(name, **lengths, **size, **options).eval()
    model.clips = RAIN
    return model


def draw_head(model: Forecaster) -> None:
    """Give a model that begins as extrapolation something to add."""
    for weight in list(model.layers().values())[-1].parameters():
        torch.nn.init.normal_(weight, std=0.1)


@pytest.mark.parametrize("name", fc.list_models())
def test_an_untrained_model_is_extrapolation(name: str) -> None:
    pytest.importorskip("pysteps")
    past = rain()
    past[1, :, :, :9, :9] = torch.nan
    model, valid = conditioned(name, residual="extrapolation"), ~past.isnan()
    baseline = Extrapolation(DbzPixel())
    expected, known = baseline.with_mask(past.nan_to_num(0.0), HORIZON, valid)
    assert baseline.fallbacks == 0
    with torch.no_grad():
        torch.testing.assert_close(model(past, HORIZON), expected, rtol=0, atol=1e-5)
    mask = model.conditions(past, HORIZON).known
    assert mask is not None
    assert torch.equal(mask[:, CONTEXT:], known)
    assert 0 < (~known).float().mean() < 0.9


@pytest.mark.parametrize("name", ["convlstm", "simvp"])
def test_untrained_members_move_by_motions_of_their_own(name: str) -> None:
    pytest.importorskip("pysteps")
    past = rain()
    past[1, :, :, :9, :9] = torch.nan
    model, valid = conditioned(name, residual="extrapolation", noise=3), ~past.isnan()
    noise = torch.tensor([[0.0, 0.0, 5.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    single = model.conditions(past, HORIZON)
    members = model.conditions(past, HORIZON, None, noise, valid)
    assert members.rows is not None
    assert single.known is not None
    assert members.known is not None
    # Two of each clip; what is known is that of the clip.
    assert len(members.rows) == 4
    assert torch.equal(members.known, single.known)
    with torch.no_grad():
        alone = model(past, HORIZON)
        forecast = model.continue_past(past.repeat_interleave(2, 0), HORIZON, members.rows)
    torch.testing.assert_close(forecast[[0, 3]], alone, rtol=0, atol=1e-6)
    moved = model.extrapolated(past, HORIZON, noise).rows
    assert moved is not None
    torch.testing.assert_close(forecast, moved[:, CONTEXT:], rtol=0, atol=1e-6)
    apart = (forecast[[1, 2]] - alone).abs().mean((2, 3, 4))
    assert (apart > 0).all()
    assert (apart[:, -1] > 2 * apart[:, 0]).all()


def test_motions_err_in_kilometres(caplog: pytest.LogCaptureFixture) -> None:
    """Half an hour on, by 16 km/h along and 14 km/h across: 10.88 · 30^0.23 - 7.68 and 5.76 · 30^0.31 - 2.72."""
    speed = torch.tensor([10.88 * 30**0.23 - 7.68, 5.76 * 30**0.31 - 2.72])
    noise = torch.ones(1, 3)
    _tell_of_unknown_grid.cache_clear()
    for crs, pixel, kilometres in (("EPSG:28992", 2000.0, 2.0), ("EPSG:4326", 0.25, 27.8)):
        place = from_corner((3.0, 55.0), (pixel, pixel), (SIDE, SIDE), crs)
        errors = motion_errors(noise, 3, replace(RAIN, georeference=place, interval=600.0))
        torch.testing.assert_close(errors[0, 2], speed / 6 / kilometres)
    assert not caplog.records
    place = from_corner((3.0, 55.0), (2.0, 2.0), (SIDE, SIDE), "")
    torch.testing.assert_close(motion_errors(noise, 6, replace(RAIN, georeference=place))[0, 5], speed / 12)
    assert "does not say how large its pixels are" in caplog.text


@pytest.mark.parametrize("name", ["convlstm", "ms-lstm", *ONE_SHOT])
@pytest.mark.parametrize("options", [{"covariates": 2}, {"noise": 3}, {"covariates": 1, "noise": 2}])
def test_every_row_matters_and_no_other(name: str, options: dict[str, int]) -> None:
    model = conditioned(name, **options)
    draw_head(model)
    generator = torch.Generator().manual_seed(1)
    covariates = None
    if options.get("covariates"):
        covariates = torch.rand(
            2, CONTEXT + HORIZON, options["covariates"], SIDE, SIDE, generator=generator, requires_grad=True
        )
    noise = torch.rand(2, options["noise"], generator=generator, requires_grad=True) if "noise" in options else None
    forecast = model(rain(), HORIZON, covariates, noise)
    forecast[0].sum().backward()
    if covariates is not None:
        assert covariates.grad is not None
        assert not covariates.grad[1].any()  # another clip's
        seen = covariates.grad[0].abs().sum((-2, -1)) > 0
        first = 0 if name in ONE_SHOT else 1
        assert seen[first:].all()
    if noise is not None:
        assert noise.grad is not None
        assert not noise.grad[1].any()
        assert (noise.grad[0] != 0).all()


@pytest.mark.parametrize("name", RECURRENT)
def test_in_pieces_equals_one_pass(name: str) -> None:
    pytest.importorskip("pysteps")
    model = conditioned(name, residual="extrapolation", covariates=1, noise=2)
    assert isinstance(model, RecurrentForecaster)
    draw_head(model)
    past, generator = rain(), torch.Generator().manual_seed(2)
    covariates = torch.rand(2, CONTEXT + HORIZON, 1, SIDE, SIDE, generator=generator)
    noise = torch.randn(2, 2, generator=generator)
    with torch.no_grad():
        whole = model(past, HORIZON, covariates, noise)
        state = model.observe(past[:, :1], None, covariates[:, 1:2], noise)
        state = model.observe(past[:, 1:], state, covariates[:, 2 : CONTEXT + 1])
        pieces = model.forecast(state, HORIZON, covariates[:, CONTEXT:])
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["ms-lstm", "simvp"])
def test_it_is_saved_and_loaded(name: str, tmp_path) -> None:
    pytest.importorskip("pysteps")
    model = conditioned(name, residual="extrapolation", noise=2)
    draw_head(model)
    save_weights(model, tmp_path / "a.safetensors", clips=RAIN.to_dict())
    loaded, _ = load_weights(tmp_path / "a.safetensors")
    assert (loaded.residual, loaded.covariates, loaded.noise) == ("extrapolation", 0, 2)
    with torch.no_grad():
        assert torch.equal(loaded(rain(), 3), model(rain(), 3))


@pytest.mark.parametrize("name", RECURRENT)
def test_an_ensemble_starts_from_the_weights_of_a_single_forecast(name: str) -> None:
    single, ensemble = small_model(name, covariates=1).eval(), small_model(name, covariates=2, noise=3).eval()
    tensors = named_tensors(single)
    fit_tensors(ensemble, ensemble.with_room(tensors, {"covariates": 1}), "")
    past, rows = rain()[..., :16, :16], torch.rand(2, CONTEXT + HORIZON, 2, 16, 16)
    with torch.no_grad():
        found = ensemble(past, HORIZON, rows, torch.randn(2, 3))
        torch.testing.assert_close(found, single(past, HORIZON, rows[:, :, :1]), rtol=1e-5, atol=1e-5)
    # What it saw is not forgotten, nor a residual begun in silence.
    for other in (small_model(name, noise=3), small_model(name, covariates=1, noise=3, residual="extrapolation")):
        with pytest.raises(FramecastError, match="does not fit the model"):
            fit_tensors(other, other.with_room(tensors, {"covariates": 1}), "")


def test_rows_of_a_block() -> None:
    rows = torch.arange(9.0).view(1, 9, 1, 1, 1)
    assert block_width(1, 1, 4, 5) == 1 + 3
    assert rows_of_block(rows, 4, 5).flatten(2)[0].tolist() == [[0, 4, 8], [1, 5, 8], [2, 6, 8], [3, 7, 8]]


def test_a_motion_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pysteps")
    model, past, calls = conditioned("convlstm", residual="extrapolation"), rain(seed=7), []
    before = Motions._estimated
    monkeypatch.setattr(Motions, "_estimated", lambda self, rates: calls.append(1) or before(self, rates))
    with torch.no_grad():
        first = model(past, 3)
        found = len(calls)
        assert torch.equal(model(past, 3), first)
    assert 0 < found == len(calls)


def test_what_cannot_be_is_refused() -> None:
    past = rain()
    with pytest.raises(FramecastError, match=r"residual 'extrapolate'.*Did you mean 'extrapolation'"):
        small_model("convlstm", residual="extrapolate")
    with pytest.raises(OptionError, match=r"noise is 1, and members that move on .*noise=4"):
        small_model("convlstm", residual="extrapolation", noise=1)
    with pytest.raises(OptionError, match="leave out_channels out"):
        small_model("convlstm", residual="extrapolation", out_channels=2)
    model = small_model("convlstm", residual="extrapolation")
    with pytest.raises(OptionError, match=r"set model.clips = data.spec"):
        model(past, 2)
    model.clips = ClipSpec(SIDE, SIDE, 1, CONTEXT, HORIZON)
    with pytest.raises(OptionError, match=r"rain rates in mm/h, and the model has clips in '1'"):
        model(past, 2)
    model = conditioned("convlstm", covariates=2)
    with pytest.raises(OptionError, match=r"covariates .* \(2, 6, 2, 40, 40\) and got none"):
        model(past, 2)
    with pytest.raises(OptionError, match=r"got \(2, 5, 2, 40, 40\)"):
        model(past, 2, torch.zeros(2, 5, 2, SIDE, SIDE))
    with pytest.raises(OptionError, match="and got"):
        conditioned("convlstm")(past, 2, torch.zeros(2, 6, 1, SIDE, SIDE))
    model = conditioned("convlstm", noise=2)
    assert isinstance(model, RecurrentForecaster)
    with pytest.raises(OptionError, match=r"noise is \(2, 3\)"):
        model(past, 2, None, torch.zeros(2, 3))
    with torch.no_grad():
        state = model.observe(past, None, None, torch.zeros(2, 2))
        with pytest.raises(OptionError, match="for all of a stream"):
            model.observe(past, state, None, torch.ones(2, 2))
