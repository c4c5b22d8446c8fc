"""Members of an ensemble: forecasts of one past that differ by a few random numbers each.

A model with ``noise=E`` sees E numbers beside the frames, drawn from a normal distribution once for each member and the
same at all places and times of its forecast. So a member is a whole possible future, as sharp as the model can make it,
and not a field of independent pixels. Where the model adds to extrapolated rain, two of them are errors of its motion,
see ``models/extrapolation.py``. The numbers follow from (seed, epoch, sample, member) by a hash: the same seed gives
the same members, on any device and in batches of any size.

The mean of members that disagree is smooth: heavy rain is at another place in each, and nowhere in the mean. The
probability-matched mean has the places of the mean and the amounts of the members.

References: Lang et al., "AIFS-CRPS: Ensemble forecasting using a model trained with a loss function based on the
Continuous Ranked Probability Score", 2024, doi:10.48550/arXiv.2412.15832. Ebert, "Ability of a Poor Man's Ensemble to
Predict the Probability and Distribution of Precipitation", Mon. Weather Rev. 129, 2001,
doi:10.1175/1520-0493(2001)129<2461:AOAPMS>2.0.CO;2 (probability-matched mean).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from framecast.data.scaling import Scaling
from framecast.errors import OptionError, UnknownNameError, check_count
from framecast.models.forecaster import Forecaster
from framecast.models.sampling import uniform

MOST_PIXELS = 2**18
"""Pixels of one frame of all members that are forecast together, so that memory stays small."""
Mean = Literal["plain", "matched"]
MEANS = get_args(Mean)
"""Kinds of means of members."""
MEMBERS = 16
"""Members of a forecast where nobody says how many."""
FORECASTING = 2**31 - 1
"""The epoch of forecasts, which no training reaches."""


def draw_noise(size: int, samples: Tensor, members: int, *, seed: int, epoch: int = FORECASTING) -> Tensor:
    """Draw normal numbers (B · members, size), those of a sample's members one after another, from a hash.

    Args:
        size: numbers of a member.
        samples: (B,) int64 index of each sample; its device is the result's.
        members: of each sample.
        seed: of the training or forecast.
        epoch: of a training, so that a sample meets other members each time.
    """
    shape = (len(samples), members, size)
    numbers = [torch.arange(length, device=samples.device) for length in shape[1:]]
    keys = [torch.full(shape, key, device=samples.device) for key in (seed, epoch)]
    keys += [samples[:, None, None].expand(shape), numbers[0][:, None].expand(shape), numbers[1].expand(shape)]
    # Five keys, where the masks of sampling have four: so these numbers are others.
    flat = uniform(torch.stack(keys)).clamp(min=2.0**-53)
    return (math.sqrt(2) * torch.erfinv(2 * flat - 1)).flatten(0, 1).float()


def ensemble_mean(members: Tensor, scaling: Scaling, kind: Mean = "plain", valid: Tensor | None = None) -> Tensor:
    """Return the mean (B, T, C, H, W) of members (B, M, T, C, H, W): that of the physical values, as numbers again.

    Args:
        members: in the model's numbers.
        scaling: between physical values and these.
        kind: "plain", or "matched" for the probability-matched mean.
        valid: booleans (B, T, 1 or C, H, W) of the pixels whose values are matched; others keep the plain mean.

    Raises:
        UnknownNameError: another kind.
    """
    values = scaling.unscale(members)
    mean = values.mean(1)
    if check_mean(kind) == "matched":
        matched = matched_mean(values if valid is None else values.masked_fill(~valid[:, None], torch.nan))
        mean = matched.where(~matched.isnan(), mean)
    return scaling.scale(mean)


def matched_mean(values: Tensor) -> Tensor:
    """Return the probability-matched mean (B, T, C, H, W) of members (B, M, T, C, H, W).

    The pixels of a frame are ranked by the mean, and the values of all members together by themselves; of P pixels the
    n-th gets the median of the n-th of P groups of M values. NaN of a member is NaN of the result.
    """
    members, mean = values.shape[1], values.mean(1)
    unknown = mean.isnan()
    # What is not known ranks lowest in both, and so does not mix with the rest.
    pooled = values.masked_fill(unknown[:, None], -torch.inf).movedim(1, -1).flatten(-3)
    amounts = pooled.sort(-1).values[..., members // 2 :: members]
    places = mean.masked_fill(unknown, -torch.inf).flatten(-2).argsort(stable=True, dim=-1)
    matched = torch.empty_like(amounts).scatter(-1, places, amounts).reshape(mean.shape)
    return matched.masked_fill(unknown, torch.nan)


def check_mean(kind: Mean) -> Mean:
    """Return a kind of mean.

    Raises:
        UnknownNameError: there is no such kind.
    """
    if kind not in MEANS:
        raise UnknownNameError("mean", kind, MEANS)
    return kind


def check_members(model: Forecaster, members: int | None, seed: int | None = None) -> None:
    """Refuse an impossible number of members or seed.

    Raises:
        ValueError: members below two, a negative seed, or either of a model that has no noise to tell members apart.
    """
    if members is not None:
        check_count("members", members, least=2)
    if seed is not None:
        check_count("seed", seed, least=0)
    for option, value in {"members": members, "seed": seed}.items():
        if value is not None and not model.noise:
            name = model.spec.name if model.spec else type(model).__name__
            raise OptionError(
                f"{option} is {value} and {name} was trained as a single forecast, of equal members: "
                f"train it with model_options noise=4, or leave {option} out"
            )


def forecast_members(
    model: Forecaster,
    past: Tensor,
    horizon: int,
    members: int,
    *,
    samples: Tensor,
    seed: int = 0,
    covariates: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Forecast (B, members, horizon, C, H, W) from the past (B, T, C, H, W), few at a time.

    Args:
        model: a forecaster with noise.
        past: NaN is no data, and taken as 0.
        horizon: frames to forecast.
        members: of each clip.
        samples: (B,) numbers of the clips, so that each has members of its own.
        seed: another one gives other members.
        covariates: as those of ``Forecaster.forward``.
        valid: as that of ``Forecaster.conditions``.

    Raises:
        ValueError: fewer than two members, or what ``forward`` refuses.
    """
    check_members(model, members)
    noise = draw_noise(model.noise, samples.to(past.device), members, seed=seed)
    noise = noise.reshape(len(past), members, -1)
    together = max(1, MOST_PIXELS // (past.shape[-1] * past.shape[-2]))
    forecasts = []
    for number in range(len(past)):
        clip, rows, mask = (None if part is None else part[number : number + 1] for part in (past, covariates, valid))
        assert clip is not None
        parts = []
        for group in torch.split(noise[number], together):
            conditions = model.conditions(clip, horizon, rows, group, mask)
            parts.append(model.continue_past(clip.expand(len(group), -1, -1, -1, -1), horizon, conditions.rows))
        forecasts.append(torch.cat(parts))
    return torch.stack(forecasts)
