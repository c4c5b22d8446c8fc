"""Covariates: channels that come with the frames, that a model sees and does not forecast.

A covariate is a file or folder of its own, anything that ``framecast.data`` reads, on the grid of the frames and with
their times. What is known of it when frame t is forecast:

    known: past      it is measured, as a satellite's channel or a second quantity: its value at t - 1, and after the
                     last frame of the past the value then, again and again
    known: future    it is known beforehand, as another model's forecast: its value at t
    one frame        it never changes, as elevation: this frame
    hour             the time of day, from the time stamps alone: sine and cosine, two channels

Values are brought to [0, 1] by the range of the training part; where there is no data they are 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framecast.data.catalogue import open_parts
from framecast.data.clips import Covariate
from framecast.data.georeference import Georeference
from framecast.data.grid import Grid
from framecast.data.joined import JoinedSource
from framecast.data.scaling import MinMax
from framecast.data.sources import FrameSource, GriddedSource, Indices, ReadOptions, placed_like
from framecast.errors import DataError, OptionError, UnknownNameError

KNOWN = ("past", "future")
HOUR = "hour"
DAY = 86400
OPTIONS = ("path", "known", "variable", "time", "y", "x", "axes", "nodata", "unit", "select")
MOST_LOOKED_AT = 256
"""Frames of the training part from which the range of a covariate is taken."""


@dataclass
class CovariateFrames:
    """The covariates of frames.

    Attributes:
        facts: name, kind and scaling of each channel.
        sources: of those that are files, by name.
        context: past frames of a clip.
        size: (H, W) of the frames.
    """

    facts: tuple[Covariate, ...]
    sources: Mapping[str, FrameSource]
    context: int
    size: tuple[int, int]
    turned: bool = field(default=False)

    def rows(self, times: Indices | None, numbers: Indices) -> Tensor:
        """Return (T, K, H, W) float32 for a clip, at each frame what is known when it is forecast.

        Args:
            times: of its frames, seconds since 1970 UTC, or None.
            numbers: of its frames, where they have no times.

        Raises:
            DataError: a covariate lacks a frame; the message names it and its time.
        """
        facts: dict[str, list[Covariate]] = {}
        for fact in self.facts:
            facts.setdefault(fact.name.partition(":")[0], []).append(fact)
        return torch.cat([self._channels(name, several, times, numbers) for name, several in facts.items()], 1)

    def _channels(self, name: str, facts: Sequence[Covariate], times: Indices | None, numbers: Indices) -> Tensor:
        """Return the channels (T, K, H, W) of one covariate."""
        if name == HOUR:
            assert times is not None
            angle = 2 * np.pi * (times % DAY) / DAY
            both = torch.from_numpy(np.stack([np.sin(angle), np.cos(angle)], 1)).float() / 2 + 0.5
            return both[:, :, None, None].expand(-1, -1, *self.size)
        source = self.sources[name]
        steps = np.arange(len(numbers))
        if facts[0].known == "past":
            steps = np.clip(steps - 1, 0, self.context - 1)
        places = self._places(name, source, times, numbers, steps)
        once, back = np.unique(places, return_inverse=True)
        values = torch.from_numpy(source.read(once)[back])
        scaled = torch.stack([fact.scaling.scale(values[:, channel]) for channel, fact in enumerate(facts)], 1).clamp(
            0, 1
        )
        return (scaled.flip(-2) if self.turned else scaled).nan_to_num(0.0).float()

    def _places(
        self, name: str, source: FrameSource, times: Indices | None, numbers: Indices, steps: Indices
    ) -> Indices:
        """Return the numbers of a covariate's frames at some steps of a clip."""
        if source.count == 1:
            return np.zeros(len(steps), np.int64)
        if times is None or source.times is None:
            wanted = numbers[steps]
            if wanted.max() >= source.count:
                raise DataError(f"covariate {name} has {source.count} frames and frame {wanted.max()} is needed")
            return wanted
        wanted = times[steps]
        places = np.minimum(np.searchsorted(source.times, wanted), source.count - 1)
        missing = wanted[source.times[places] != wanted]
        if len(missing):
            raise DataError(
                f"covariate {name}: {source.where} has no frame at {np.datetime64(int(missing[0]), 's')}, which the "
                "frames need: give files with the times of the frames, or leave it out"
            )
        return places

    def scaled_as(self, facts: Sequence[Covariate]) -> CovariateFrames:
        """Return them in the scaling of a training."""
        return replace(self, facts=tuple(facts))

    def upside_down(self) -> CovariateFrames:
        """Return them with the rows in the other order."""
        return replace(self, turned=not self.turned)


def open_covariates(
    entries: Mapping[str, Any],
    shape: Sequence[int],
    place: Georeference | None,
    grid: Grid | None,
    context: int,
    facts: Sequence[Covariate] = (),
) -> CovariateFrames:
    """Open the files of covariates.

    Args:
        entries: name -> path, or {"path": ..., "known": "past" or "future", "variable": ...}; "hour" -> true.
        shape: (C, H, W) of the frames.
        place: where the pixels of the frames are, or None.
        grid: how the frames of files were cropped, which is done to these too; or None.
        context: past frames of a clip.
        facts: of a training, whose scaling is to be used; without them it is to be fitted.

    Raises:
        DatasetNotFoundError: there is nothing at a path.
        DataError: frames of another size or place.
        OptionError: an entry that says no path.
        UnknownNameError: no such option of a covariate.
    """
    scaled = {fact.name: fact for fact in facts}
    sources: dict[str, FrameSource] = {}
    channels: list[Covariate] = []
    size = (int(shape[-2]), int(shape[-1]))
    for name, entry in entries.items():
        if name == HOUR:
            if entry is not True:
                raise OptionError(f"covariate hour is {entry!r} and follows from the time stamps: say hour: true")
            channels += [Covariate(f"hour:{part}", HOUR) for part in ("sine", "cosine")]
            continue
        options = {"path": entry} if isinstance(entry, str | Path) else dict(entry or {})
        for option in options:
            if option not in OPTIONS:
                raise UnknownNameError(f"option of covariate {name}", option, OPTIONS)
        if "path" not in options:
            raise OptionError(f"covariate {name} has no path: give a path, or path and known: past or future")
        known = options.pop("known", "past")
        if known not in KNOWN:
            raise UnknownNameError(f"way in which covariate {name} is known", str(known), KNOWN)
        path = Path(options.pop("path"))
        source: FrameSource = JoinedSource(open_parts(path, ReadOptions(**options)))
        sources[name] = placed_like(_on_grid(source, grid, size, name), place, "the frames")
        for number in range(source.shape[0]):
            label = name if source.shape[0] == 1 else f"{name}:{number}"
            scaling = scaled[label].scaling if label in scaled else MinMax()
            channels.append(Covariate(label, known, source.unit, scaling))
    if facts and [fact.name for fact in facts] != [fact.name for fact in channels]:
        missing = [fact.name for fact in facts if fact.name not in {other.name for other in channels}]
        hint = f"missing {', '.join(missing)}" if missing else "in another order"
        names = ", ".join(fact.name for fact in facts)
        raise DataError(f"the model was trained with covariates {names} and these are {hint}: give them all")
    return CovariateFrames(tuple(channels), sources, context, size)


def _on_grid(source: FrameSource, grid: Grid | None, size: tuple[int, int], name: str) -> FrameSource:
    """Return a covariate on the grid of the frames, cropped and resized as these were where it is not there yet."""
    height, width = source.shape[-2:]
    try:
        if grid is not None and (height, width) != size:
            source = GriddedSource(source, grid, MinMax())
        if source.shape[-2:] == size:
            return source
    except DataError as error:
        reason = str(error)
    else:
        reason = "bring it to their grid"
    raise DataError(
        f"covariate {name}: {source.where} has frames of {height}x{width} and the frames are {size[0]}x{size[1]}: "
        + reason
    )


def fit_covariates(covariates: CovariateFrames, times: Indices | None, numbers: Indices) -> CovariateFrames:
    """Return covariates whose scaling follows from the training part.

    Args:
        covariates: as they were opened.
        times: of the frames of the training part, or None.
        numbers: of these frames.

    Raises:
        DataError: a covariate lacks a frame of these, or has no data.
    """
    sample = np.unique(np.linspace(0, len(numbers) - 1, min(len(numbers), MOST_LOOKED_AT)).round().astype(int))
    facts = []
    for fact in covariates.facts:
        name, _, channel = fact.name.partition(":")
        if fact.known == HOUR:
            facts.append(fact)
            continue
        source = covariates.sources[name]
        some_times = None if times is None else times[sample]
        places = covariates._places(name, source, some_times, numbers[sample], np.arange(len(sample)))
        values = np.concatenate([source.read(places[i : i + 1])[:, int(channel or 0)] for i in range(len(places))])
        finite = values[np.isfinite(values)]
        if not len(finite):
            raise DataError(f"covariate {name}: {source.where} has no data at all in the training part")
        low, high = float(finite.min()), float(finite.max())
        facts.append(replace(fact, scaling=MinMax(low, high if high > low else low + 1)))
    return replace(covariates, facts=tuple(facts))
