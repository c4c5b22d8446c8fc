"""Clips: what a clip is, and a data set as three splits of clips with the facts they share.

A clip is a run of frames (T, C, H, W) in the model's range [0, 1], at equal steps in time. Clip i of a split is always
the same clip, whatever worker or rank asks for it.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from torch import Tensor
from torch.utils.data import Dataset

from framecast.data.georeference import Georeference, georeference_from_dict
from framecast.data.grid import Grid, grid_from_dict
from framecast.data.scaling import MinMax, Scaling, scaling_from_dict
from framecast.errors import DataError, DatasetNotFoundError
from framecast.registry import resolve

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Sample(TypedDict):
    """One clip as a loader collates it.

    Attributes:
        frames: (T, C, H, W) float32 in [0, 1].
        index: the clip's number in its split.
        valid: (T, 1 or C, H, W) booleans, False where there is no data; absent where all is data.
        covariates: (T, K, H, W) float32, at each frame what is known when it is forecast; absent where there are none.
        times: (T,) int64 seconds since 1970 UTC; absent where the frames have no time.
    """

    frames: Tensor
    index: int
    valid: NotRequired[Tensor]
    covariates: NotRequired[Tensor]
    times: NotRequired[Tensor]


@dataclass(frozen=True)
class Covariate:
    """A channel that comes with the frames and is not forecast.

    Attributes:
        name: of the covariate, and of its channel where it has several.
        known: "past" for what is measured, "future" for what is known beforehand, "hour" for the time of day.
        unit: physical unit.
        scaling: between physical values and [0, 1].
    """

    name: str
    known: str
    unit: str = "1"
    scaling: Scaling = field(default_factory=MinMax)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a file."""
        return {"name": self.name, "known": self.known, "unit": self.unit, "scaling": self.scaling.to_dict()}


@dataclass(frozen=True)
class ClipSpec:
    """The facts that all clips of a data set share.

    Attributes:
        height: of a frame, in pixels.
        width: of a frame, in pixels.
        channels: of a frame.
        context: past frames of a clip.
        horizon: frames of a clip to forecast.
        unit: physical unit of the unscaled values; "1" for image intensities in [0, 1].
        scaling: between physical values and [0, 1].
        interval: seconds between frames, or None where frames have no time.
        grid: how frames of files were cropped and resized, or None where they are taken as they are.
        georeference: where the pixels are, or None where that is unknown.
        product: what was measured, such as "ACRR 3600 s", or "" where that is unknown.
        covariates: the channels that come with the frames and are not forecast.
    """

    height: int
    width: int
    channels: int
    context: int
    horizon: int
    unit: str = "1"
    scaling: Scaling = field(default_factory=MinMax)
    interval: float | None = None
    grid: Grid | None = None
    georeference: Georeference | None = None
    product: str = ""
    covariates: tuple[Covariate, ...] = ()

    @property
    def length(self) -> int:
        """Frames of a clip, context and horizon together."""
        return self.context + self.horizon

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a file; ``spec_from_dict`` reads them."""
        place, grid = self.georeference, self.grid
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        if self.covariates:
            plain["covariates"] = [covariate.to_dict() for covariate in self.covariates]
        else:
            del plain["covariates"]
        return {
            **plain,
            "scaling": self.scaling.to_dict(),
            "grid": grid.to_dict() if grid else None,
            "georeference": place.to_dict() if place else None,
        }


def spec_from_dict(facts: dict[str, Any]) -> ClipSpec:
    """Make a spec from what ``ClipSpec.to_dict`` returned."""
    grid = grid_from_dict(facts["grid"]) if facts.get("grid") else None
    place = georeference_from_dict(facts["georeference"]) if facts.get("georeference") else None
    scaling = scaling_from_dict(facts["scaling"])
    covariates = tuple(
        Covariate(**{**one, "scaling": scaling_from_dict(one["scaling"])}) for one in facts.get("covariates", ())
    )
    return ClipSpec(**{**facts, "scaling": scaling, "grid": grid, "georeference": place, "covariates": covariates})


class ClipSet(Dataset[Sample], ABC):
    """One split: a sequence of clips."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of clips."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Return clip ``index``.

        Raises:
            IndexError: there is no such clip.
        """

    def scaled_by(self, scaling: Scaling) -> ClipSet:
        """Return these clips under another scaling.

        Raises:
            DataError: their scaling is fixed.
        """
        raise DataError(f"these clips have one fixed scaling, which is not {scaling}")

    def with_covariates(self, facts: Sequence[Covariate]) -> ClipSet:
        """Return these clips with their covariates under another scaling.

        Raises:
            DataError: they have none.
        """
        raise DataError("these clips have no covariates")

    def turned(self) -> ClipSet:
        """Return these clips with the rows in the other order.

        Raises:
            DataError: they are of a generator, which has no place.
        """
        raise DataError("these clips cannot be turned")


@dataclass(repr=False)
class ClipData:
    """A data set: three splits and the facts they share.

    Attributes:
        name: the name it was opened by.
        options: the options it was opened with.
        spec: size, channels, lengths, unit, scaling.
        splits: the clips by split.
        notes: what was found or decided while opening that the user should know, such as gaps and nodata.
    """

    name: str
    options: dict[str, Any]
    spec: ClipSpec
    splits: dict[Split, ClipSet]
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What messages call it: its name, or the path of frames of one's own."""
        return str(self.options.get("path") or self.name)

    def __repr__(self) -> str:
        """Return name, size and numbers of clips."""
        spec = self.spec
        counts = ", ".join(f"{split} {len(clips)}" for split, clips in self.splits.items())
        frames = f"{spec.context} -> {spec.horizon} frames of {spec.channels} x {spec.height}x{spec.width}"
        return f"{self.title}: {frames} in {spec.unit}; {counts} clips"

    def _repr_html_(self) -> str:
        return str(resolve("framecast.api.show:show")(self).html)

    def __getitem__(self, split: Split) -> ClipSet:
        """Return a split.

        Raises:
            DataError: there is no such split.
        """
        if split not in self.splits:
            raise DataError(f"there is no split {split!r}: choose one of {', '.join(self.splits)}")
        return self.splits[split]

    def scaled_by(self, scaling: Scaling) -> ClipData:
        """Return the data set under another scaling, such as the one a model was trained with.

        Raises:
            DataError: the scaling of its clips is fixed.
        """
        if scaling == self.spec.scaling:
            return self
        splits = {split: clips.scaled_by(scaling) for split, clips in self.splits.items()}
        return replace(self, spec=replace(self.spec, scaling=scaling), splits=splits)

    def with_covariates(self, facts: Sequence[Covariate]) -> ClipData:
        """Return the data set with the covariates that a model was trained with, in their scaling.

        Raises:
            DataError: it has others.
        """
        names, wanted = ([covariate.name for covariate in some] for some in (self.spec.covariates, facts))
        if names != wanted:
            raise DataError(
                f"{self.title} has covariates {', '.join(names) or 'none'} and the model was trained with "
                f"{', '.join(wanted) or 'none'}: open the data with data_options covariates of the same names"
            )
        if not facts or tuple(facts) == self.spec.covariates:
            return self
        splits = {split: clips.with_covariates(facts) for split, clips in self.splits.items()}
        return replace(self, spec=replace(self.spec, covariates=tuple(facts)), splits=splits)

    def turned(self) -> ClipData:
        """Return the data set with the rows of all frames in the other order."""
        splits = {split: clips.turned() for split, clips in self.splits.items()}
        place = self.spec.georeference.turned() if self.spec.georeference else None
        return replace(self, spec=replace(self.spec, georeference=place), splits=splits)

    def fingerprint(self, split: Split | None = None) -> str:
        """Return a short hash of a split's length and of its first, middle and last clip, or of all splits."""
        digest = hashlib.sha256()
        for name, clips in self.splits.items():
            if split not in (None, name):
                continue
            digest.update(f"{name} {len(clips)}".encode())
            for index in sorted({0, len(clips) // 2, len(clips) - 1}) if len(clips) else []:
                digest.update(clips[index]["frames"].numpy().tobytes())
        return digest.hexdigest()[:16]


def check_lengths(context: int, horizon: int, frames: int | None = None, where: str = "the clip") -> None:
    """Refuse a context or horizon below one, or more frames than a clip has.

    Raises:
        DataError: ``context`` or ``horizon`` is below 1, or together more than ``frames``.
    """
    if context < 1 or horizon < 1:
        raise DataError(f"context is {context} and horizon {horizon}: both must be at least 1")
    if frames is not None and context + horizon > frames:
        raise DataError(
            f"{where} has {frames} frames and context {context} + horizon {horizon} needs {context + horizon}: "
            "lower one of them or use longer clips"
        )


def data_root(name: str, root: str | Path | None) -> Path:
    """Return the folder of a data set: the one given, else its name in ``$FRAMECAST_DATA`` or in ``data``."""
    return Path(root) if root is not None else Path(os.environ.get("FRAMECAST_DATA", "data")) / name


def missing_files(what: Iterable[str], folder: Path, source: str, tree: str) -> DatasetNotFoundError:
    """Return the error for files that are not there.

    Args:
        what: the files that are missing.
        folder: where they were sought.
        source: where they are officially to be had.
        tree: the files and folders expected.
    """
    return DatasetNotFoundError(
        f"{', '.join(what)}: not found in {folder.absolute()}. Nothing is downloaded: fetch it from {source} and "
        f"lay it out as\n{tree}\nthen give root=FOLDER, or set FRAMECAST_DATA to the folder that holds it by its name"
    )
