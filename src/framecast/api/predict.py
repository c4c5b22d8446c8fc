"""Predict: a forecast of the frames that follow."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framecast.api.data import covariate_entries, open_trained, past_of_clip, read_options
from framecast.api.show import ForecastFrames
from framecast.compute.compiling import Mode, speed_up
from framecast.compute.placement import arithmetic, find_device, place
from framecast.compute.precision import autocast
from framecast.data.covariates import open_covariates
from framecast.data.past import Past, read_past, spec_of_past
from framecast.data.scaling import MinMax
from framecast.errors import OptionError
from framecast.files import check_place, refuse_present
from framecast.models.forecaster import check_horizon
from framecast.models.members import MEMBERS, Mean, check_mean, check_members, forecast_members, matched_mean
from framecast.registry import BASELINES, RAIN_RATE, make_baselines
from framecast.reporting.forecast import NAMES, Forecast, write_forecast
from framecast.scores.rain import THRESHOLDS

if TYPE_CHECKING:
    from framecast.data.clips import ClipSpec, Sample
    from framecast.models.forecaster import Forecaster
    from framecast.training.loop import Run

log = logging.getLogger(__name__)

MOST_CLIPS, MOST_PIXELS = 16, 2**18
"""Clips that are forecast together, and pixels of one frame of all of them, so that memory stays small."""


def predict(
    run: str | Path | Run | Forecaster,
    frames: str | Path | NDArray[Any] | Tensor | Sample,
    *,
    horizon: int | None = None,
    context: int | None = None,
    members: int | None = None,
    thresholds: Sequence[float] | None = None,
    seed: int | None = None,
    mean: Mean = "plain",
    data_options: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    precision: str = "32-true",
    compile: Mode = "auto",
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Forecast the frames that follow.

    Args:
        run: a run folder, a weights file, the name of a model that comes trained, what ``train`` returned, or a
            forecaster in memory; or a baseline: "extrapolation" or "steps", an ensemble (both of rain rates in mm/h;
            they need pysteps), "persistence", "mean frame" or "blank frame".
        frames: the past, an array or the path of a video, an .npy file, a folder of pictures, or anything else
            that ``data`` reads; of what has time stamps (NetCDF, Zarr, folders of radar files) the last ones at the
            model's interval are taken. One clip (T, H, W) or (T, C, H, W), or many (N, T, H, W) or (N, T, C, H, W).
            Whole numbers of 8 bits are pictures and divided by 255 where the model was trained on intensities in
            [0, 1]. NaN, in physical units, is no data: the model takes it as 0, and where the whole past is NaN, so
            is the forecast. A clip of a data set, such as data["test"][0], is continued after its context.
        horizon: frames to forecast; None takes the horizon it was trained with; a baseline has none.
        context: past frames to start from, the last ones; None takes as many as in the training; a baseline takes 4.
        members: of the ensemble that a model with noise forecasts; None takes 16. Steps has 16.
        thresholds: of probabilities that the members give, in the unit of the frames; None takes 0.5, 2 and 5 for rain
            rates in mm/h.
        seed: of the members; the same seed gives the same ones, and None takes 0.
        mean: of the members, "plain", or "matched" for the probability-matched mean, which has their amounts.
        data_options: how the frames are to be read: variable, time, y, x, channel, axes, size, nodata, unit, tolerance,
            select, product, reader, reader_options, covariates; they replace those of the same name that the run was
            trained with.
        out: a folder for forecast.npy and forecast.gif; where times or place are known, forecast.nc and forecast.tif;
            of a video, forecast.mp4 at its rate; of an ensemble, members.npy and probability.npy too.
        overwrite: replace a forecast that is there already.
        device: "auto", "cpu", "cuda", ...
        precision: "32-true", or "bf16-mixed" where the processor is faster in it; forecasts then err by about 1e-2.
        compile: "step" compiles a time step, which takes a minute or more before the first forecast; "graph", on CUDA,
            also launches the kernels of a forecast together; "auto" does so uncompiled on CUDA, and nothing elsewhere.
        threads: threads of the processor; None leaves torch's choice.

    Returns:
        The forecast in physical units, (N, horizon, C, H, W), N being 1 for one clip; NaN where extrapolation, or a
        model that adds to it, would take it from outside the map. Of an ensemble it is the mean, and has the attributes
        ``members`` (N, M, horizon, C, H, W) and ``probability`` (N, K, horizon, C, H, W) at K thresholds.

    Raises:
        RunNotFoundError: there are no weights.
        UnknownNameError: no such precision or mean.
        DatasetNotFoundError: there are no frames at the path.
        DataError: the frames are damaged, lie outside the range the model knows, have other axes or gaps in time, or
            hold NaN where the model was trained on pictures.
        OutputExistsError: there is a forecast in ``out`` already.
        MissingExtraError: extrapolation needs a package that is not installed.
        ValueError: ``horizon`` is below 1, or the frames are too small or too few for the model; members of a model
            without noise; a baseline is given no horizon, frames in another unit than its own, or ``precision``,
            ``compile``, ``members`` or ``seed``, which change nothing.
    """
    forecast = forecast_frames(
        run, frames, horizon=horizon, context=context, members=members, thresholds=thresholds, seed=seed,
        mean=mean, data_options=data_options, out=out, overwrite=overwrite, device=device, precision=precision,
        compile=compile, threads=threads,
    )  # fmt: skip
    return ForecastFrames(forecast)


def forecast_frames(
    run: Any,
    frames: Any,
    *,
    horizon: int | None,
    context: int | None,
    members: int | None,
    thresholds: Sequence[float] | None,
    seed: int | None,
    mean: Mean,
    data_options: Mapping[str, Any] | None,
    out: str | Path | None,
    overwrite: bool,
    device: str,
    precision: str,
    compile: Mode,
    threads: int | None,
) -> Forecast:
    """Forecast as ``predict`` does, and return all that is known of the forecast."""
    if out is not None:
        check_place(Path(out))
    if out is not None and not overwrite:
        refuse_present([Path(out) / name for name in NAMES])
    check_mean(mean)
    where = find_device(device)
    by_baseline = isinstance(run, str) and run in BASELINES and not Path(run).exists()
    if by_baseline and (precision, compile, members, seed) != ("32-true", "auto", None, None):
        raise OptionError(f"precision, compile, members and seed are for models, and {run} has no use for them")
    with arithmetic(threads):
        if by_baseline:
            raw = _by_baseline(run, frames, horizon, context, data_options, where)
        else:
            ensemble = (members, seed)
            raw = _by_model(run, frames, horizon, context, ensemble, data_options, where, precision, compile)
    spec, past = raw.spec, raw.past
    steps = raw.numbers.shape[-4]
    unit, scaling = (spec.unit, spec.scaling) if spec else ("1", MinMax())

    def physical(numbers: Tensor) -> NDArray[np.float32]:
        """Return values (N, ..., horizon, C, H, W), NaN where nothing is known."""
        # Intensities lie in their range; physical values may go beyond those of the training.
        result = scaling.unscale(numbers.clamp(0, 1) if unit == "1" else numbers)
        unknown = torch.zeros_like(result[:, :1] if numbers.ndim == 6 else result, dtype=torch.bool)
        for part in (None if past.valid is None else past.valid.any(1, keepdim=True), raw.known):
            if part is not None:
                unknown = unknown | ~(part[:, None] if numbers.ndim == 6 else part)
        return result.masked_fill(unknown, torch.nan).numpy()

    times = None
    if past.times is not None and spec is not None and spec.interval:
        ahead = past.times[-1] + np.arange(1, steps + 1) * int(spec.interval)
        times = np.concatenate([past.times, ahead])
    past_values = scaling.unscale(past.frames)
    before = past_values if past.valid is None else past_values.where(past.valid, torch.nan)
    pace = past.pace or (spec.interval if spec and times is None else None)
    result = physical(raw.numbers)
    forecast = Forecast(before.numpy(), result, unit, scaling, times, past.georeference, pace, past.facts)
    if raw.numbers.ndim == 6:
        # The mean of the values, not of the numbers that stand for them.
        mean_frames = result.mean(1) if mean == "plain" else matched_mean(torch.from_numpy(result)).numpy()
        forecast = forecast._replace(frames=mean_frames, members=result, mean=mean)
        limits = tuple(THRESHOLDS if unit == RAIN_RATE else ()) if thresholds is None else tuple(thresholds)
        forecast = forecast._replace(thresholds=limits, probability=exceedance(result, limits))
    elif thresholds is not None or mean != "plain":
        raise OptionError(
            "thresholds and mean are for the members of an ensemble, and this is a single forecast: leave them out"
        )
    return forecast if out is None else forecast._replace(files=write_forecast(forecast, Path(out)))


def exceedance(members: NDArray[np.float32], thresholds: Sequence[float]) -> NDArray[np.float32]:
    """Return the shares (N, K, T, C, H, W) of members (N, M, T, C, H, W) that reach K thresholds, NaN where unknown."""
    unknown = np.isnan(members).any(1)
    shares = [(members >= threshold).mean(1, dtype=np.float32) for threshold in thresholds]
    empty = np.empty((len(members), 0, *members.shape[2:]), np.float32)
    return np.stack([np.where(unknown, np.float32(np.nan), share) for share in shares], 1) if shares else empty


class _RawForecast(NamedTuple):
    """A forecast as numbers (N, horizon, C, H, W), or of members (N, M, horizon, C, H, W).

    Attributes:
        spec: what is known of the clips.
        past: what it began with.
        numbers: of the forecast.
        known: (N, horizon, 1, H, W) booleans, or None.
    """

    spec: ClipSpec | None
    past: Past
    numbers: Tensor
    known: Tensor | None


def _by_model(
    run: Any, frames: Any, horizon: int | None, context: int | None, ensemble: tuple[int | None, int | None],
    data_options: Mapping[str, Any] | None, device: torch.device, precision: str, compile: Mode,
) -> _RawForecast:  # fmt: skip
    """Forecast with a model, of which ``ensemble`` tells members and seed."""
    model, _, _, folder = open_trained(run)
    spec, (members, seed) = model.clips, ensemble
    check_members(model, members, seed)
    reading = read_options(folder, data_options)
    past = read_past(past_of_clip(frames, spec), model.in_channels, spec, reading, context)
    notes = [f"{past.note}{'' if past.valid is None else ', which the model takes as 0'}"] if past.note else []
    steps = horizon if horizon is not None else (spec.horizon if spec else 1)
    covariates = _covariates(model, frames, past, steps, covariate_entries(folder, data_options))
    place(model, device)
    speed_up(model, compile)
    parts, masks = [], []
    with torch.inference_mode(), autocast(device, precision):
        for numbers in torch.split(torch.arange(len(past.frames)), _batch_size(past)):
            clips = past.frames[numbers].to(device)
            valid = None if past.valid is None else past.valid[numbers].to(device)
            rows = None if covariates is None else covariates.expand(len(clips), -1, -1, -1, -1).to(device)
            conditions = model.conditions(clips, steps, rows, valid=valid)
            if model.noise:
                part = forecast_members(
                    model, clips, steps, members or MEMBERS, samples=numbers, seed=seed or 0,
                    covariates=rows, valid=valid,
                )  # fmt: skip
            else:
                part = model.continue_past(clips, steps, conditions.rows)
            parts.append(part.float().cpu())
            if conditions.known is not None:
                masks.append(conditions.known[:, clips.shape[1] :].cpu())
    known = torch.cat(masks) if masks else None
    notes += _unknown(known)
    for note in notes:
        log.warning(note)
    return _RawForecast(spec, past, torch.cat(parts), known)


def _unknown(known: Tensor | None) -> list[str]:
    """Say which share of a forecast is unknown."""
    unknown = 0.0 if known is None else 1 - float(known.float().mean())
    note = f"{unknown:.1%} of the forecast is no data, as it would come from outside the map or its data"
    return [note] if unknown else []


def _covariates(model: Forecaster, frames: Any, past: Past, horizon: int, entries: Mapping[str, Any]) -> Tensor | None:
    """Return the covariates (1, T + horizon, K, H, W) of a model that takes some.

    Raises:
        OptionError: they are not given.
        DataError: they are not those of the training, or lack a frame.
    """
    if not model.covariates or model.clips is None:
        return None
    spec, length = model.clips, past.frames.shape[1] + horizon
    names = ", ".join(covariate.name for covariate in spec.covariates)
    if isinstance(frames, Mapping) and "covariates" in frames:
        rows: Tensor = frames["covariates"][None]
        if rows.shape[1] < length:
            raise OptionError(f"the clip has covariates for {rows.shape[1]} frames and {length} are needed")
        return rows[:, :length]
    if not entries:
        raise OptionError(
            f"the model was trained with covariates {names}: say where they are, with data_options covariates"
        )
    size = past.frames.shape[-3:]
    place = past.georeference if past.georeference is not None and past.georeference.size == tuple(size[-2:]) else None
    opened = open_covariates(entries, size, place, spec.grid, past.frames.shape[1], spec.covariates)
    times = None
    if past.times is not None and spec.interval:
        times = past.times[0] + np.arange(length, dtype=np.int64) * int(spec.interval)
    return opened.rows(times, np.arange(length, dtype=np.int64))[None]


def _by_baseline(
    name: str, frames: Any, horizon: int | None, context: int | None, data_options: Mapping[str, Any] | None,
    device: torch.device,
) -> _RawForecast:  # fmt: skip
    """Forecast with a baseline, and say what of it is unknown."""
    if horizon is None:
        raise OptionError(f"{name} was trained for no horizon: say how many frames, such as horizon=12")
    check_horizon(horizon)
    reading = read_options(Path(), data_options)
    if past_of_clip(frames, None) is not frames:
        raise OptionError(f"a clip of a data set is scaled for models: give {name} the files or values it is made of")
    spec, unit = spec_of_past(frames, reading, context), BASELINES[name].unit
    if unit not in ("", spec.unit):
        raise OptionError(
            f"{name} is for {unit} and these frames are in {spec.unit!r}: if they are {unit}, say so with "
            f"data_options={{'unit': {unit!r}}}"
        )
    past = read_past(frames, spec.channels, spec, reading, context)
    baseline = make_baselines(spec.unit, spec.scaling, [name], spec)[name]
    parts = [
        baseline.with_mask(clips.to(device), horizon, None if valid is None else valid.to(device))
        for clips, valid in zip(*(_split(part, past) for part in (past.frames, past.valid)), strict=True)
    ]
    numbers, known = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    notes = [*([past.note] if past.note else []), *_unknown(known)]
    if baseline.fallbacks:
        notes.append(f"{baseline.fallbacks} of {len(numbers)} clips have no motion that could be found: persistence")
    for note in notes:
        log.warning(note)
    facts = [*past.facts, f"forecast by {name}", *notes]
    return _RawForecast(spec, past._replace(facts=facts), numbers, known)


def _batch_size(past: Past) -> int:
    """Return how many clips are forecast together."""
    return max(1, min(MOST_CLIPS, MOST_PIXELS // (past.frames.shape[-1] * past.frames.shape[-2])))


def _split(part: Tensor | None, past: Past) -> Sequence[Tensor | None]:
    clips = torch.split(past.frames, _batch_size(past))
    return [None] * len(clips) if part is None else torch.split(part, _batch_size(past))
