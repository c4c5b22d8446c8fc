"""Show: clips, forecasts and scores inline, where a notebook asks for HTML."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from framecast.data.catalogue import summary
from framecast.data.clips import ClipData, ClipSpec
from framecast.data.past import plain_array
from framecast.data.scaling import MinMax
from framecast.errors import OptionError, RunNotFoundError
from framecast.models.forecaster import Forecaster
from framecast.reporting.clips import clip_style, time_labels
from framecast.reporting.forecast import Forecast
from framecast.reporting.page import training_curves
from framecast.reporting.pictures import animation
from framecast.reporting.results import Scores, range_text, read_results, score_rows


class Shown:
    """What a notebook shows: HTML, and a line of text elsewhere."""

    def __init__(self, content: str, text: str) -> None:
        self.html, self.text = content, text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html


class ForecastFrames(np.ndarray[Any, np.dtype[np.float32]]):
    """A forecast (N, horizon, C, H, W) that a notebook shows after its past; parts of it are plain arrays."""

    forecast: Forecast | None

    @property
    def members(self) -> NDArray[np.float32] | None:
        """The members of an ensemble (N, M, horizon, C, H, W), of which this is the mean; or None."""
        return self.forecast.members if self.forecast else None

    @property
    def probability(self) -> NDArray[np.float32] | None:
        """The shares of the members that reach each threshold (N, K, horizon, C, H, W), or None."""
        return self.forecast.probability if self.forecast else None

    def __new__(cls, forecast: Forecast) -> ForecastFrames:
        """Return the frames of a forecast."""
        frames = np.asarray(forecast.frames).view(cls)
        frames.forecast = forecast
        return frames

    def __array_finalize__(self, array: Any) -> None:
        """Leave behind what belongs to the whole."""
        self.forecast = None

    def __repr__(self) -> str:
        return repr(np.asarray(self)) if self.forecast is None else forecast_text(self.forecast)

    def _repr_html_(self) -> str | None:
        return None if self.forecast is None else _forecast(self.forecast).html


def show(what: Any, *, past: int = 0, like: Forecaster | ClipData | None = None, clip: int = 0) -> Shown:
    """Return something to look at in a notebook: frames as a moving picture, scores as a table.

    Args:
        what: frames (T, H, W), (T, C, H, W) or (N, T, C, H, W) in physical units; several of them by name, side by
            side; a clip of a data set, such as data["test"][0]; a data set; a forecast; what ``evaluate`` returned; or
            a run, whose scores and curves are shown.
        past: how many of the frames are past; they have a grey border, the others an orange one.
        like: a forecaster or data set whose unit and scaling say how frames are painted; None takes grey from the least
            to the largest value, or from 0 to 1 where they lie within.
        clip: the number of the clip, of frames of several or of a data set.

    Raises:
        OptionError: it is nothing that can be shown, or there is no such clip.
        RunNotFoundError: a folder holds no results.
    """
    spec: ClipSpec | None = like.spec if isinstance(like, ClipData) else getattr(like, "clips", None)
    if isinstance(what, ForecastFrames) and what.forecast is not None:
        return _forecast(what.forecast, clip)
    if isinstance(what, ClipData):
        if not len(what["test"]):
            return Shown(f"<pre>{html.escape(summary(what))}</pre>", repr(what))
        shown = show(what["test"][clip], past=what.spec.context, like=what)
        return Shown(f"<pre>{html.escape(summary(what))}</pre>{shown.html}", repr(what))
    if isinstance(what, Mapping) and "forecasts" in what:
        return _scores(what)
    if isinstance(what, str | Path) or hasattr(what, "batches"):
        return _run(Path(getattr(what, "path", what)))
    if isinstance(what, Mapping) and "frames" in what:
        return _panels({"": _sample(what, spec)}, past, spec or ClipSpec(0, 0, 0, 0, 0))
    panels = dict(what) if isinstance(what, Mapping) else {"": what}
    return _panels({str(name): _frames(frames, clip) for name, frames in panels.items()}, past, spec)


def _sample(sample: Mapping[str, Any], spec: ClipSpec | None) -> NDArray[Any]:
    """Return the frames of a clip of a data set, in physical units where these are known."""
    values = sample["frames"] if spec is None else spec.scaling.unscale(sample["frames"])
    return np.asarray(values if "valid" not in sample else values.where(sample["valid"], torch.nan))


def _frames(frames: Any, clip: int) -> NDArray[np.float32]:
    """Return one clip (T, C, H, W) of frames as they were given.

    Raises:
        OptionError: they are not frames, or there is no such clip.
    """
    values = plain_array(frames)
    if values.dtype.kind not in "uifb" or not 3 <= values.ndim <= 5:
        raise OptionError(
            f"{type(frames).__name__} of {values.dtype} {values.shape} cannot be shown: give frames (T, H, W), "
            "(T, C, H, W) or (N, T, C, H, W), a data set, a run, or scores"
        )
    if values.ndim == 5:
        if not 0 <= clip < len(values):
            raise OptionError(f"there are {len(values)} clips, so there is no {clip}")
        values = values[clip]
    values = values[:, None] if values.ndim == 3 else values
    shown: NDArray[np.float32] = values.astype(np.float32)
    return shown / np.float32(255) if values.dtype == np.uint8 else shown


def _panels(panels: dict[str, NDArray[Any]], past: int, spec: ClipSpec | None) -> Shown:
    if spec is None:
        finite = np.concatenate([frames[np.isfinite(frames)] for frames in panels.values()])
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        style = clip_style("1", MinMax() if 0 <= low <= high <= 1 else MinMax(low, high if high > low else low + 1))
    else:
        style = clip_style(spec.unit, spec.scaling, spec.georeference)
    moving = animation(
        {name: (frames, past) for name, frames in panels.items()}, paint=style.paint, kind="PNG", **style.animate
    )
    sizes = ", ".join(f"{name} {' x '.join(map(str, frames.shape))}".strip() for name, frames in panels.items())
    return Shown(_picture(moving), f"frames (T x C x H x W): {sizes}")


def _forecast(forecast: Forecast, clip: int = 0) -> Shown:
    if not 0 <= clip < len(forecast.frames):
        raise OptionError(f"there are {len(forecast.frames)} clips, so there is no {clip}")
    style = clip_style(forecast.unit, forecast.scaling, forecast.georeference)
    both = np.concatenate([forecast.past[clip], forecast.frames[clip]])
    captions = time_labels(forecast.times) if forecast.times is not None else []
    panels = {"": (both, forecast.past.shape[1])}
    moving = animation(panels, paint=style.paint, captions=captions, kind="PNG", **style.animate)
    return Shown(_picture(moving), forecast_text(forecast))


def forecast_text(forecast: Forecast) -> str:
    """Return what a forecast is, in a line."""
    clips, steps, channels, height, width = forecast.frames.shape
    finite = forecast.frames[np.isfinite(forecast.frames)]
    reach = range_text(float(finite.min()), float(finite.max())) if len(finite) else "no data"
    unit = "" if forecast.unit == "1" or not len(finite) else f" {forecast.unit}"
    return f"forecast of {steps} frames of {channels} x {height}x{width}, {clips} clips, {reach}{unit}"


def _scores(results: Mapping[str, Any]) -> Shown:
    tables = []
    for head, *rows in score_rows(results):
        cells = [f"<tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in head)}</tr>"]
        cells += [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
        tables.append(f"<table>{''.join(cells)}</table>")
    return Shown("".join(tables), repr(Scores(results)))


def _run(folder: Path) -> Shown:
    """Show the scores of a run that is evaluated, and its curves."""
    parts = [_scores(read_results(folder)).html] if (folder / "results.json").is_file() else []
    parts += [drawing.svg for drawing in training_curves([folder.name], [folder]).values()]
    if not parts:
        raise RunNotFoundError(f"{folder} holds neither scores nor the log of a training: give a run folder")
    return Shown("".join(parts), f"run {folder}")


def _picture(content: bytes) -> str:
    return f'<img alt="frames" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
