"""The contract of a forecaster: past frames in, future frames out.

Shapes are (B, T, C, H, W): samples, frames, channels, height, width. A forecaster knows nothing of data sets, files,
units, ranks or devices; values are whatever the model was trained on, usually [0, 1].

A roll-out of S steps keeps all intermediate results for the backward pass. Cut into segments of k steps it keeps those
of one segment at a time and the states at the S/k borders, and pays at most one more forward pass. If a step and a
state cost the same, S/k + k is least at k = √S, which is what ``recompute="lean"`` takes.

Reference: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, doi:10.48550/arXiv.1604.06174.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framecast.data.clips import ClipSpec
from framecast.errors import OptionError, UnknownNameError, check_count, check_finite
from framecast.models.conditions import RESIDUALS, Conditions, noise_rows
from framecast.models.extrapolation import Motions, extrapolate, motion_errors
from framecast.registry import RAIN_RATE, ModelSpec, Training, model_entry, paper_name

Recompute = Literal["none", "lean"] | int


def segment_length(steps: int, recompute: Recompute) -> int:
    """Return the steps of a segment; all of them where nothing is to be computed again.

    Raises:
        ValueError: ``recompute`` is neither "none", nor "lean", nor a number of steps from 1.
    """
    if recompute == "none":
        return steps
    if recompute == "lean":
        return math.isqrt(steps)
    if isinstance(recompute, str):
        raise OptionError(f"recompute is {recompute!r} and must be 'none', 'lean' or the steps of a segment, 1 or more")
    check_count("recompute", recompute)
    return recompute


class Rollout(NamedTuple):
    """What a roll-out yields for training.

    Attributes:
        frames: (B, N, C, H, W); ``frames[:, k]`` forecasts ``clip[:, first + k]``.
        first: the index in the clip of the first forecast frame.
        penalty: (B,) the model's own penalty, unweighted, or None.
    """

    frames: Tensor
    first: int
    penalty: Tensor | None


class Forecaster(nn.Module, ABC):
    """A model that forecasts frames.

    Attributes:
        in_channels: channels of the frames it takes.
        out_channels: channels of the frames it gives.
        multiple: height and width that it takes without padding are multiples of this.
        spec: the name and options it was created with, where it came from the registry.
        clips: the facts of the clips it was trained on, scaling included, where it was loaded; so
            ``model.clips.scaling`` turns physical values into its numbers and back.
        residual: "extrapolation" for a model that adds to extrapolated rain, or "none", see ``models/conditions.py``.
        covariates: channels that come with the frames and are not forecast.
        noise: numbers that are drawn for a member of an ensemble.
        compiled_method: the method that is compiled as one: a time step, or a block.
    """

    compiled_method: ClassVar[str]

    in_channels: int
    out_channels: int
    multiple: int = 1
    spec: ModelSpec | None = None
    clips: ClipSpec | None = None
    residual: str = "none"
    covariates: int = 0
    noise: int = 0

    @abstractmethod
    def rollout(
        self,
        clip: Tensor,
        context: int,
        horizon: int,
        truth: Tensor | None = None,
        recompute: Recompute = "none",
        rows: Tensor | None = None,
    ) -> Rollout:
        """Forecast in the training view.

        Args:
            clip: (B, T, C, H, W); T is at least ``context``, and ``context + horizon`` where ``truth`` is given.
            context: number of past frames the model may see.
            horizon: number of frames to forecast.
            truth: (B, context + horizon - 1) booleans, True where a step sees the true frame instead of the
                model's own forecast; None: all of the context and nothing after it.
            recompute: intermediate results that are computed again in backward to save memory: "none", "lean"
                (segments of about √steps), or the steps of a segment; gradients stay the same.
            rows: those of ``conditions``; None for what they are without covariates and noise.

        Raises:
            ValueError: a shape, ``context``, ``horizon`` or ``recompute`` that the model cannot take, or missing
                covariates.
        """

    def forward(
        self, past: Tensor, horizon: int, covariates: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """Forecast (B, horizon, C, H, W) from the past (B, T, C, H, W).

        Args:
            past: NaN is no data, and taken as 0.
            horizon: frames to forecast.
            covariates: (B, T + horizon, K, H, W), at each frame what is known when it is forecast.
            noise: (B, E) of a member of each; None takes zeros.

        Raises:
            ValueError: a shape or ``horizon`` that the model cannot take, or covariates that it needs.
        """
        return self.continue_past(past, horizon, self.conditions(past, horizon, covariates, noise).rows)

    def recipe(self) -> Training:
        """Return its training defaults; a model with noise learns by a loss of members."""
        recipe = model_entry(self.spec.name).training if self.spec else Training()
        return replace(recipe, loss="crps") if self.noise else recipe

    def blank_rows(self, clip: Tensor, members: int = 1) -> Tensor | None:
        """Return rows of zeros of the shape of those of ``conditions`` for a clip (B, T, C, H, W), for costs."""
        extra = self.covariates + self.noise + (self.in_channels if self.residual != "none" else 0)
        members = members if self.noise else 1
        size = clip.shape[-2:]
        return clip.new_zeros(members * clip.shape[0], clip.shape[1], extra, *size) if extra else None

    @abstractmethod
    def continue_past(self, past: Tensor, horizon: int, rows: Tensor | None) -> Tensor:
        """Forecast from the past and the rows of ``conditions``."""

    def conditions(
        self,
        past: Tensor,
        horizon: int,
        covariates: Tensor | None = None,
        noise: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Conditions:
        """Return what the model sees beside the frames.

        Args:
            past: as all others of ``forward``.
            horizon: frames to forecast.
            covariates: channels that come with the data.
            noise: of a member of each clip, or of several (B · members, E), one clip's after another; there are as
                many rows.
            valid: booleans (B, T or more, 1 or C, H, W), False where the past has no data but a number.

        Raises:
            ValueError: covariates of another shape than it needs, or clips whose rain it cannot extrapolate.
        """
        self.check_past(past, horizon)
        length = past.shape[1] + horizon
        members = 1 if noise is None else max(1, len(noise) // len(past))
        parts = self._given_rows(past, length, covariates, noise, members)
        extrapolated = Conditions()
        if self.residual != "none":
            seen = past if valid is None else past.where(valid[:, : past.shape[1]], torch.nan)
            extrapolated = self.extrapolated(seen, horizon, noise)
            assert extrapolated.rows is not None
            parts.insert(0, extrapolated.rows)
        return Conditions(torch.cat(parts, 2) if parts else None, extrapolated.known)

    def with_room(self, tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Return the weights of a model of other options with room for what it did not see; here as they are."""
        del options
        return tensors

    def extrapolated(self, past: Tensor, horizon: int, noise: Tensor | None, first: int = 1) -> Conditions:
        """Return rows and mask of frames ``first`` … T + horizon - 1 (those before the first: zeros, known).

        The row of a frame within the past is the frame before, moved on by what had been seen until then. Members move
        with errors of their own, see ``models/extrapolation.py``; of these the rows are, the mask is of the clips.

        Raises:
            ValueError: the clips hold no rain rates, or are not known.
        """
        if self.clips is None or self.clips.unit != RAIN_RATE:
            unit = f"clips in {self.clips.unit!r}" if self.clips else "no clips yet: set model.clips = data.spec"
            raise OptionError(f"residual='extrapolation' moves rain rates in {RAIN_RATE}, and the model has {unit}")
        motions = Motions("a model with residual='extrapolation'")
        valid = None if not past.isnan().any() else ~past.isnan()
        frames, scaling = without_nan(past), self.clips.scaling
        errors = None if noise is None else motion_errors(noise, horizon, self.clips)
        members = 1 if noise is None else len(noise) // len(past)
        rows = [torch.zeros_like(frames[:, :first]).repeat_interleave(members, 0)]
        known = [torch.ones_like(frames[:, :first, :1], dtype=torch.bool)]
        for end in range(first, frames.shape[1] + 1):
            steps = horizon if end == frames.shape[1] else 1
            mask = None if valid is None else valid[:, :end]
            moved = extrapolate(motions, scaling, frames[:, :end], steps, mask, errors)
            rows.append(moved.frames)
            known.append(moved.known)
        return Conditions(torch.cat(rows, 1), torch.cat(known, 1))

    def _given_rows(
        self, past: Tensor, length: int, covariates: Tensor | None, noise: Tensor | None, members: int = 1
    ) -> list[Tensor]:
        """Return the rows of covariates and noise, where the model has them, for each member."""
        shape = (past.shape[0], length, self.covariates, *past.shape[-2:])
        if (0 if covariates is None else tuple(covariates.shape)) != (shape if self.covariates else 0):
            given = "none" if covariates is None else str(tuple(covariates.shape))
            names = ", ".join(covariate.name for covariate in self.clips.covariates) if self.clips else ""
            names = f" ({names})" if names else ""
            raise OptionError(
                f"the model takes covariates (batch, frames, channels, height, width) = {shape}{names} and got "
                f"{given}: one row for every frame of past and forecast, with what is known when it is forecast"
            )
        rows = [] if covariates is None else [without_nan(covariates.to(past)).repeat_interleave(members, 0)]
        if self.noise or noise is not None:
            noise = past.new_zeros(past.shape[0], self.noise) if noise is None else noise
            if tuple(noise.shape) != (members * past.shape[0], self.noise):
                raise OptionError(f"noise is {tuple(noise.shape)} and the model takes {(past.shape[0], self.noise)}")
            rows.append(noise_rows(noise, past, length))
        return rows

    @abstractmethod
    def layers(self) -> dict[str, nn.Module]:
        """Return the named layers whose outputs are worth looking at, from input to output."""

    def check_past(self, past: Tensor, horizon: int) -> None:
        """Refuse a past (B, T, C, H, W) or a horizon that the model cannot take.

        Raises:
            ValueError: see ``check_frames``, or a horizon below 1.
        """
        self.check_frames(past)
        check_horizon(horizon)

    def check_frames(self, frames: Tensor) -> None:
        """Refuse frames that are not a batch of clips of this model's channels.

        Raises:
            ValueError: no tensor, not five dimensions, another channel count, no frames, or not floating point.
        """
        if not isinstance(frames, Tensor):  # of a masked array, torch would take what lies under the mask
            raise OptionError(
                f"frames are {type(frames).__name__} and the model needs a tensor of numbers in [0, 1]: fc.predict "
                "takes arrays, masked ones too"
            )
        if frames.ndim != 5:
            raise OptionError(
                f"frames have {frames.ndim} dimensions {tuple(frames.shape)} and the model needs five, "
                "(batch, time, channels, height, width): add the missing ones with frames[None] or [:, :, None]"
            )
        if frames.shape[2] != self.in_channels:
            raise OptionError(
                f"frames {tuple(frames.shape)} have {frames.shape[2]} channels in dimension 2 and the model takes "
                f"{self.in_channels}: reorder to (batch, time, channels, height, width) or create the model with "
                f"in_channels={frames.shape[2]}"
            )
        if not frames.shape[1]:
            raise OptionError("the clip holds no frames: give at least one")
        if not frames.is_floating_point():
            raise OptionError(f"frames are {frames.dtype} and the model needs floating point: scale them to [0, 1]")


def without_nan(frames: Tensor) -> Tensor:
    """Return frames with 0 where there is no data: NaN would spread over the whole forecast. No device waits."""
    return torch.where(frames.isnan(), frames.new_zeros(()), frames)


def check_horizon(horizon: int, context: int = 1) -> None:
    """Refuse a context or horizon below one.

    Raises:
        ValueError: ``context`` or ``horizon`` is below 1.
    """
    if horizon < 1:
        raise OptionError(f"horizon is {horizon}: ask for at least one frame")
    if context < 1:
        raise OptionError(f"context is {context}: give the model at least one past frame")


def check_clip(clip: Tensor, context: int, horizon: int, truth: Tensor | None) -> None:
    """Refuse a clip (B, T, C, H, W) too short for the roll-out, or sampling choices of the wrong shape.

    Raises:
        ValueError: the clip is shorter than needed, or ``truth`` is not (B, context + horizon - 1).
    """
    check_horizon(horizon, context)
    needed = context if truth is None else context + horizon
    if clip.shape[1] < needed:
        raise OptionError(
            f"the clip has {clip.shape[1]} frames and context {context} + horizon {horizon} needs {needed}: "
            "lower one of them or cut longer clips"
        )
    steps = context + horizon - 1
    if truth is not None and tuple(truth.shape) != (clip.shape[0], steps):
        raise OptionError(f"truth is {tuple(truth.shape)} and must be (batch, steps) = {(clip.shape[0], steps)}")


def pad_frames(frames: Tensor, multiple: int, *, pad: bool, name: str = "the model") -> Tensor:
    """Pad (B, T, C, H, W) right and bottom by edge replication until ``multiple`` divides height and width.

    Raises:
        ValueError: ``pad`` is False and the size does not fit; the message names the sizes that would.
    """
    height, width = frames.shape[-2:]
    right, bottom = -width % multiple, -height % multiple
    if not (right or bottom):
        return frames
    if not pad:
        smaller = height // multiple * multiple, width // multiple * multiple
        crop = f" or crop to {smaller[0]}x{smaller[1]}" if min(smaller) else ""
        raise OptionError(
            f"frames are {height}x{width} and {name} needs multiples of {multiple}: "
            f"drop pad=False, pad to {height + bottom}x{width + right}{crop}"
        )
    padded = F.pad(frames.flatten(0, 1), (0, right, 0, bottom), mode="replicate")
    return padded.view(*frames.shape[:2], *padded.shape[1:])


def fitting_options(name: str, shape: Sequence[int], context: int, covariates: int = 0) -> dict[str, Any]:
    """Return the options with which a model fits clips, where its defaults do not: channels, lengths, size.

    Args:
        name: a model's name or alias.
        shape: (T, C, H, W) of a clip, context and horizon together.
        context: number of past frames.
        covariates: channels that come with the frames.

    Raises:
        UnknownNameError: no such model.
    """
    fitting = {
        "in_channels": shape[1],
        "covariates": covariates,
        "context": context,
        "horizon": shape[0] - context,
        "size": tuple(shape[2:]),
    }
    accepted = model_entry(name).options()
    return {
        option: value for option, value in fitting.items() if option in accepted and accepted[option].default != value
    }


def create_model(name: str, **options: Any) -> Forecaster:
    """Create a forecaster by name, with untrained weights drawn from torch's random state.

    Args:
        name: any of ``list_models(aliases=True)``.
        options: the model's options, such as ``in_channels``, ``hidden``, ``layers``, ``kernel``; see
            ``framecast models NAME``.

    Raises:
        UnknownNameError: no such model, or no such option of it.
        ValueError: an option's value that the model refuses.
    """
    entry = model_entry(name)
    accepted = entry.options()
    for option in options:
        if option not in accepted:
            raise UnknownNameError(f"option of model {paper_name(entry.name)}", option, accepted)
        check_finite(option, options[option])
    network, beside = dict(options), signature_defaults(condition)
    for option in beside:
        beside[option] = network.pop(option, beside[option])
    channels = network.get("in_channels", accepted["in_channels"].default)
    model: Forecaster = condition(partial(entry.builder(), **network), channels, **beside)
    model.spec = ModelSpec(entry.name, dict(options))
    return model


def signature_defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the defaults of a function's arguments by keyword."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def condition(
    build: Callable[..., Forecaster], channels: int, *, residual: str = "none", covariates: int = 0, noise: int = 0
) -> Forecaster:
    """Build any model so that it sees more than the frames, see ``models/conditions.py``.

    Args:
        build: builds the network; it takes the number of channels beside the frames as ``extra``.
        channels: of the frames.
        residual: "extrapolation" to add to extrapolated rain, or "none"; needs pysteps and rain rates in mm/h.
        covariates: channels that come with the frames and are not forecast; train takes it from the data.
        noise: numbers drawn for each member of an ensemble, the first two for errors of its motion where there is a
            residual; 0 for a model that has no members.

    Raises:
        ValueError: an unknown residual, a negative count, or a residual where out_channels differ or noise is 1.
    """
    if residual not in RESIDUALS:
        raise UnknownNameError("residual", residual, RESIDUALS)
    for name, count in {"covariates": covariates, "noise": noise}.items():
        check_count(name, count, least=0)
    if residual != "none" and noise == 1:
        raise OptionError(
            "noise is 1, and members that move on take two numbers for the errors of their motion, along and across: "
            "take noise=4, or so"
        )
    extra = covariates + noise + (channels if residual != "none" else 0)
    model = build(extra=extra) if extra else build()
    if residual != "none":
        if model.out_channels != channels:
            raise OptionError(
                f"residual is {residual!r} and the model forecasts {model.out_channels} channels of {channels}: leave "
                "out_channels out"
            )
        for weight in list(model.layers().values())[-1].parameters():
            torch.nn.init.zeros_(weight)
    model.residual, model.covariates, model.noise = residual, covariates, noise
    return model
