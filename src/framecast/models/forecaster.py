"""The contract of a forecaster: past frames in, future frames out.

Shapes are (B, T, C, H, W): samples, frames, channels, height, width. A forecaster knows nothing of data sets, files,
units, ranks or devices; values are whatever the model was trained on, usually [0, 1].

A roll-out of S steps keeps all intermediate results for the backward pass. Cut into segments of k steps it keeps those
of one segment at a time and the states at the S/k borders, and pays at most one more forward pass. If a step and a
state cost the same, S/k + k is least at k = √S, which is what ``recompute="lean"`` takes.

Reference: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, doi:10.48550/arXiv.1604.06174.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framecast.data.clips import ClipSpec
from framecast.errors import OptionError, UnknownNameError, check_count, check_finite
from framecast.registry import ModelSpec, model_entry, paper_name

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
        compiled_method: the method that is compiled as one: a time step, or a block.
    """

    compiled_method: ClassVar[str]

    in_channels: int
    out_channels: int
    multiple: int = 1
    spec: ModelSpec | None = None
    clips: ClipSpec | None = None

    @abstractmethod
    def rollout(
        self, clip: Tensor, context: int, horizon: int, truth: Tensor | None = None, recompute: Recompute = "none"
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

        Raises:
            ValueError: a shape, ``context``, ``horizon`` or ``recompute`` that the model cannot take.
        """

    @abstractmethod
    def forward(self, past: Tensor, horizon: int) -> Tensor:
        """Forecast (B, horizon, C, H, W) from the past (B, T, C, H, W).

        Raises:
            ValueError: a shape or ``horizon`` that the model cannot take.
        """

    @abstractmethod
    def layers(self) -> dict[str, nn.Module]:
        """Return the named layers whose outputs are worth looking at, from input to output."""

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


def fitting_options(name: str, shape: Sequence[int], context: int) -> dict[str, Any]:
    """Return the options with which a model fits clips, where its defaults do not: channels, lengths, size.

    Args:
        name: a model's name or alias.
        shape: (T, C, H, W) of a clip, context and horizon together.
        context: number of past frames.

    Raises:
        UnknownNameError: no such model.
    """
    fitting = {"in_channels": shape[1], "context": context, "horizon": shape[0] - context, "size": tuple(shape[2:])}
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
    model: Forecaster = entry.builder()(**options)
    model.spec = ModelSpec(entry.name, dict(options))
    return model
