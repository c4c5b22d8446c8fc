"""Predict: a forecast of the frames that follow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framecast.api.data import open_trained, past_of_clip, read_options
from framecast.api.show import ForecastFrames
from framecast.compute.compiling import Mode, speed_up
from framecast.compute.placement import arithmetic, find_device, place
from framecast.compute.precision import autocast
from framecast.data.past import read_past
from framecast.data.scaling import MinMax
from framecast.files import refuse_present
from framecast.reporting.forecast import NAMES, Forecast, write_forecast

if TYPE_CHECKING:
    from framecast.data.clips import Sample
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
            forecaster in memory.
        frames: the past, an array or the path of a video, an .npy file, a folder of pictures, or anything else
            that ``data`` reads; of what has time stamps (NetCDF, Zarr, folders of radar files) the last ones at the
            model's interval are taken. One clip (T, H, W) or (T, C, H, W), or many (N, T, H, W) or (N, T, C, H, W).
            Whole numbers of 8 bits are pictures and divided by 255 where the model was trained on intensities in
            [0, 1]. NaN, in physical units, is no data: the model takes it as 0, and where the whole past is NaN, so
            is the forecast. A clip of a data set, such as data["test"][0], is continued after its context.
        horizon: frames to forecast; None takes the horizon it was trained with.
        context: past frames to start from, the last ones; None takes as many as in the training.
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
        The forecast in physical units, (N, horizon, C, H, W), N being 1 for one clip.

    Raises:
        RunNotFoundError: there are no weights.
        UnknownNameError: no such precision.
        DatasetNotFoundError: there are no frames at the path.
        DataError: the frames are damaged, lie outside the range the model knows, have other axes or gaps in time, or
            hold NaN where the model was trained on pictures.
        OutputExistsError: there is a forecast in ``out`` already.
        ValueError: ``horizon`` is below 1, or the frames are too small or too few for the model.
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
    model, _, _, folder = open_trained(run)
    spec = model.clips
    reading = read_options(folder, data_options)
    past = read_past(past_of_clip(frames, spec), model.in_channels, spec, reading, context)
    if past.note:
        log.warning(past.note)
    steps = horizon if horizon is not None else (spec.horizon if spec else 1)
    where = find_device(device)
    place(model, where)
    speed_up(model, compile)
    batch = max(1, min(MOST_CLIPS, MOST_PIXELS // (past.frames.shape[-1] * past.frames.shape[-2])))
    with arithmetic(threads), torch.inference_mode(), autocast(where, precision):
        numbers = torch.cat([model(clips.to(where), steps).float().cpu() for clips in torch.split(past.frames, batch)])
    unscale = spec.scaling.unscale if spec else torch.nn.Identity()
    # Intensities lie in their range; physical values may go beyond those of the training.
    result = unscale(numbers.clamp(0, 1) if spec is None or spec.unit == "1" else numbers)
    if past.valid is not None:
        # Where the whole past has no data, neither has the forecast.
        result = result.where(past.valid.any(1, keepdim=True), torch.nan)
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
