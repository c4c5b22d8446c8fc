"""Members of an ensemble: reproducible, independent of batches, and told apart."""

from __future__ import annotations

import pytest
import torch
from samples.models import small_clip, small_model

from framecast.data.scaling import DbzPixel, MinMax
from framecast.errors import OptionError, UnknownNameError
from framecast.models import members as module
from framecast.models.members import draw_noise, ensemble_mean, forecast_members, matched_mean

SAMPLES = torch.arange(3)


def test_noise_is_normal_and_follows_from_the_seed() -> None:
    noise = draw_noise(4, torch.arange(500), 8, seed=1)
    assert noise.shape == (4000, 4)
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03
    assert noise.isfinite().all()
    correlation = torch.corrcoef(noise.T) - torch.eye(4)
    assert correlation.abs().max() < 0.08
    assert torch.equal(noise, draw_noise(4, torch.arange(500), 8, seed=1))
    assert torch.equal(noise[8:16], draw_noise(4, torch.tensor([1]), 8, seed=1))
    for other in ({"seed": 2}, {"seed": 1, "epoch": 3}):
        assert not (noise == draw_noise(4, torch.arange(500), 8, **other)).any(1).all()


@pytest.mark.parametrize("name", ["ms-lstm", "simvp"])
def test_members_do_not_depend_on_what_is_forecast_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, past = small_model(name, noise=2).eval(), small_clip(3)[:, :3]
    with torch.no_grad():
        together = forecast_members(model, past, 4, 5, samples=SAMPLES, seed=3)
        monkeypatch.setattr(module, "MOST_PIXELS", 1)
        alone = forecast_members(model, past[1:2], 4, 5, samples=SAMPLES[1:2], seed=3)
        noise = draw_noise(2, SAMPLES[1:2], 5, seed=3)
        by_hand = model(past[1:2], 4, None, noise[2:3])
    assert together.shape == (3, 5, 4, 1, 16, 16)
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(together[1, 2], by_hand[0], rtol=0, atol=1e-5)
    assert together.std(1).max() > 0


def test_the_mean_is_that_of_the_values() -> None:
    rates = torch.tensor([[0.0, 4.0], [2.0, 8.0]])[:, None, :, None, None, None]
    scaling = DbzPixel()
    mean = scaling.unscale(ensemble_mean(scaling.scale(rates).transpose(1, 2).reshape(2, 2, 1, 1, 1, 1), scaling))
    torch.testing.assert_close(mean.flatten(), torch.tensor([2.0, 5.0]), rtol=1e-4, atol=1e-4)
    values = torch.rand(2, 3, 4, 1, 5, 5)
    torch.testing.assert_close(ensemble_mean(values, MinMax(-3, 9)), values.mean(1))


def test_the_matched_mean_by_hand() -> None:
    """Two members of four pixels: the mean says where, all eight values how much."""
    first, second = [0.0, 8.0, 1.0, 0.0], [0.0, 2.0, 3.0, 6.0]
    values = torch.tensor([first, second])[None, :, None, None, :, None]
    # Means 0, 5, 2, 3; all values in order 0 0 | 0 1 | 2 3 | 6 8.
    assert matched_mean(values).flatten().tolist() == [0, 8, 1, 3]
    values[0, 1, ..., 3, 0] = torch.nan
    # Without the last pixel: means 0, 5, 2; values 0 0 | 1 2 | 3 8.
    assert matched_mean(values).nan_to_num(-1).flatten().tolist() == [0, 8, 2, -1]


def test_the_matched_mean_has_the_amounts_of_members_and_the_order_of_the_mean() -> None:
    members = torch.rand(2, 5, 3, 2, 6, 7, dtype=torch.float64) ** 4
    matched, mean = matched_mean(members), members.mean(1)
    assert torch.equal(matched.flatten(-2).argsort(-1), mean.flatten(-2).argsort(-1))
    ranked = members.movedim(1, -1).flatten(-3).sort(-1).values
    assert torch.equal(matched.flatten(-2).sort(-1).values, ranked[..., 2::5])
    same = members[:, :1].expand(-1, 4, -1, -1, -1, -1)
    torch.testing.assert_close(matched_mean(same), same[:, 0])
    valid = torch.rand(2, 3, 1, 6, 7) < 0.7
    mixed = ensemble_mean(members, MinMax(0, 1), "matched", valid)
    # What is not valid keeps the plain mean, and its values stay out of all others.
    assert torch.equal(mixed[~valid.expand_as(mixed)], mean[~valid.expand_as(mixed)])
    assert torch.equal(
        mixed, ensemble_mean(members.where(valid[:, None], 9.0), MinMax(0, 1), "matched", valid).where(valid, mean)
    )
    with pytest.raises(UnknownNameError, match=r"mean 'match'.*Did you mean 'matched'"):
        ensemble_mean(members, MinMax(0, 1), "match")  # type: ignore[arg-type]


def test_members_of_one_forecast_are_refused() -> None:
    past = small_clip(1)[:, :3]
    with pytest.raises(OptionError, match=r"members .*1"):
        forecast_members(small_model("convlstm", noise=1), past, 2, 1, samples=SAMPLES[:1])
    with pytest.raises(OptionError, match=r"single forecast.*noise=4"):
        forecast_members(small_model("convlstm"), past, 2, 4, samples=SAMPLES[:1])
