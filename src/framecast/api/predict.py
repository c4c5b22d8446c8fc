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

from framecast.api.data import open_trained, past_of_clip, read_options
from framecast.api.show import ForecastFrames
from framecast.compute.compiling import Mode, speed_up
from framecast.compute.placement import arithmetic, find_device, place
from framecast.compute.precision import autocast
from framecast.data.past import Past, read_past, spec_of_past
from framecast.data.scaling import MinMax
from framecast.errors import OptionError
from framecast.files import refuse_present
from framecast.models.forecaster import check_horizon
from framecast.registry import BASELINES, make_baselines
from framecast.reporting.forecast import NAMES, Forecast, write_forecast

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
            forecaster in memory; or a baseline, "extrapolation" (of rain rates in mm/h; it needs pysteps),
            "persistence", "mean frame" or "blank frame".
        frames: the past, an array or the path of a video, an .npy file, a folder of pictures, or anything else
            that ``data`` reads; of what has time stamps (NetCDF, Zarr, folders of radar files) the last ones at the
            model's interval are taken. One clip (T, H, W) or (T, C, H, W), or many (N, T, H, W) or (N, T, C, H, W).
            Whole numbers of 8 bits are pictures and divided by 255 where the model was trained on intensities in
            [0, 1]. NaN, in physical units, is no data: the model takes it as 0, and where the whole past is NaN, so
            is the forecast. A clip of a data set, such as data["test"][0], is continued after its context.
        horizon: frames to forecast; None takes the horizon it was trained with; a baseline has none.
        context: past frames to start from, the last ones; None takes as many as in the training; a baseline takes 4.
        data_options: how the frames are to be read: variable, time, y, x, channel, axes, size, nodata, unit, tolerance,
            select, product, reader, reader_options; they replace those of the same name that the run was trained with.
        out: a folder for forecast.npy and forecast.gif; where times or place are known, forecast.nc and forecast.tif;
            of a video, forecast.mp4 at its rate.
        overwrite: replace a forecast that is there already.
        device: "auto", "cpu", "cuda", ...
        precision: "32-true", or "bf16-mixed" where the processor is faster in it; forecasts then err by about 1e-2.
        compile: "step" compiles a time step, which takes a minute or more before the first forecast; "graph", on CUDA,
            also launches the kernels of a forecast together; "auto" does so uncompiled on CUDA, and nothing elsewhere.
        threads: threads of the processor; None leaves torch's choice.

    Returns:
        The forecast in physical units, (N, horizon, C, H, W), N being 1 for one clip; of extrapolation NaN where it
        would come from outside the map.

    Raises:
        RunNotFoundError: there are no weights.
        UnknownNameError: no such precision.
        DatasetNotFoundError: there are no frames at the path.
        DataError: the frames are damaged, lie outside the range the model knows, have other axes or gaps in time, or
            hold NaN where the model was trained on pictures.
        OutputExistsError: there is a forecast in ``out`` already.
        MissingExtraError: extrapolation needs a package that is not installed.
        ValueError: ``horizon`` is below 1, or the frames are too small or too few for the model; a baseline is given no
            horizon, frames in another unit than its own, or ``precision`` or ``compile``, which change nothing.
    """
    forecast = forecast_frames(
        run, frames, horizon=horizon, context=context, data_options=data_options, out=out, overwrite=overwrite,
        device=device, precision=precision, compile=compile, threads=threads,
    )  # fmt: skip
    return ForecastFrames(forecast)


def forecast_frames(
    run: Any,
    frames: Any,
    *,
    horizon: int | None,
    context: int | None,
    data_options: Mapping[str, Any] | None,
    out: str | Path | None,
    overwrite: bool,
    device: str,
    precision: str,
    compile: Mode,
    threads: int | None,
) -> Forecast:
    """Forecast as ``predict`` does, and return all that is known of the forecast."""
    if out is not None and not overwrite:
        refuse_present([Path(out) / name for name in NAMES])
    where = find_device(device)
    by_baseline = isinstance(run, str) and run in BASELINES and not Path(run).exists()
    if by_baseline and (precision, compile) != ("32-true", "auto"):
        raise OptionError(f"precision and compile are for models, and {run} has nothing to compute in them")
    with arithmetic(threads):
        if by_baseline:
            forecast_numbers = _by_baseline(run, frames, horizon, context, data_options, where)
        else:
            forecast_numbers = _by_model(run, frames, horizon, context, data_options, where, precision, compile)
    spec, past, numbers, known = forecast_numbers
    steps = numbers.shape[1]
    unscale = spec.scaling.unscale if spec else torch.nn.Identity()
    # Intensities lie in their range; physical values may go beyond those of the training.
    result = unscale(numbers.clamp(0, 1) if spec is None or spec.unit == "1" else numbers)
    if past.valid is not None:
        # Where the whole past has no data, neither has the forecast.
        result = result.where(past.valid.any(1, keepdim=True), torch.nan)
    if known is not None:
        result = result.where(known, torch.nan)
    times = None
    if past.times is not None and spec is not None and spec.interval:
        ahead = past.times[-1] + np.arange(1, steps + 1) * int(spec.interval)
        times = np.concatenate([past.times, ahead])
    past_values = unscale(past.frames)
    before = past_values if past.valid is None else past_values.where(past.valid, torch.nan)
    unit, scaling = (spec.unit, spec.scaling) if spec else ("1", MinMax())
    pace = past.pace or (spec.interval if spec and times is None else None)
    forecast = Forecast(before.numpy(), result.numpy(), unit, scaling, times, past.georeference, pace, past.facts)
    return forecast if out is None else forecast._replace(files=write_forecast(forecast, Path(out)))


class _RawForecast(NamedTuple):
    """A forecast as numbers (N, horizon, C, H, W) of what is known of the clips, its past, and where it is known."""

    spec: ClipSpec | None
    past: Past
    numbers: Tensor
    known: Tensor | None


def _by_model(
    run: Any, frames: Any, horizon: int | None, context: int | None, data_options: Mapping[str, Any] | None,
    device: torch.device, precision: str, compile: Mode,
) -> _RawForecast:  # fmt: skip
    """Forecast with a model."""
    model, _, _, folder = open_trained(run)
    spec = model.clips
    reading = read_options(folder, data_options)
    past = read_past(past_of_clip(frames, spec), model.in_channels, spec, reading, context)
    if past.note:
        log.warning("%s%s", past.note, "" if past.valid is None else ", which the model takes as 0")
    steps = horizon if horizon is not None else (spec.horizon if spec else 1)
    place(model, device)
    speed_up(model, compile)
    with torch.inference_mode(), autocast(device, precision):
        parts = [model(clips.to(device), steps).float().cpu() for clips in torch.split(past.frames, _batch_size(past))]
    return _RawForecast(spec, past, torch.cat(parts), None)


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
    baseline = make_baselines(spec.unit, spec.scaling, [name])[name]
    parts = [
        baseline.with_mask(clips.to(device), horizon, None if valid is None else valid.to(device))
        for clips, valid in zip(*(_split(part, past) for part in (past.frames, past.valid)), strict=True)
    ]
    numbers, known = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    unknown = 1 - float(known.float().mean())
    notes = [past.note] if past.note else []
    if unknown:
        notes.append(f"{unknown:.1%} of the forecast is no data, as it would come from outside the map or its data")
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
