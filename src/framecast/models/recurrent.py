"""The recurrent forecaster: a 1x1 embedding, a stack of cells, a 1x1 head, fed with its own forecasts.

    x_t  = E ∗ frame_t;   h_t = stack(x_t);   ŷ_{t+1} = R ∗ h_t

The frame at step t is the truth while there is one and ŷ_t afterwards, neither clamped nor detached. Each
step forecasts the next frame, so a roll-out over S frames yields forecasts of frames 1 … S-1.

Reference: Ma et al., MS-LSTM, Applied Soft Computing 147, 2023, doi:10.1016/j.asoc.2023.110731.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from framecast.cells.cell import Cell, State
from framecast.cells.convolution import Kernels, Memo, OneRollout, SameConv2d, share_kernels, tracing_with
from framecast.cells.native import native
from framecast.errors import OptionError, check_count
from framecast.models.forecaster import (
    Forecaster,
    Recompute,
    Rollout,
    check_clip,
    check_horizon,
    pad_frames,
    segment_length,
    without_nan,
)
from framecast.models.stack import Skip, Stack, pyramid_scales

Column = Callable[..., list[Cell]]
log = logging.getLogger(__name__)


@cache
def _tell_of_the_graph() -> None:
    log.warning(
        "a stream of frames is observed with gradients switched on, so its state keeps all since the first frame and "
        "memory grows: use torch.no_grad() or torch.inference_mode() where nothing is to be learned"
    )


class ForecastState(NamedTuple):
    """All a recurrent forecaster remembers: a tree of tensors, batch first, to keep between calls.

    Attributes:
        layers: the states of all cells, from the bottom up.
        memory: the zigzag memory, or None.
        canvas: (B, C, H', W') the last forecast on the padded canvas, which the next step is fed with.
        frame: (B, C, H, W) the same without the padding: the forecast of the next frame.
    """

    layers: State
    memory: Tensor | None
    canvas: Tensor
    frame: Tensor


class RecurrentForecaster(Forecaster):
    """Any stack of cells as a forecaster of any context, horizon and frame size.

    Args:
        stack: the recurrent core.
        in_channels: channels of the frames it takes.
        out_channels: channels of the frames it gives; where they differ it forecasts one step only.
        pad: pad frames of any size to the stack's multiple (and crop the result), or refuse them.

    Raises:
        ValueError: a channel count below one.

    Attributes:
        layout: the order in memory of what it computes, which changes the speed, not the numbers; None takes channels
            last where there are native convolutions, which need it.
        shares_kernels: whether weights are cast once a roll-out and their gradients computed from several steps at a
            time, which pays where kernels are recorded.
    """

    compiled_method = "_step"
    layout: torch.memory_format | None = None
    shares_kernels: bool = False

    def __init__(self, stack: Stack, in_channels: int = 1, out_channels: int | None = None, pad: bool = True) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = in_channels if out_channels is None else out_channels
        check_count("in_channels", self.in_channels)
        check_count("out_channels", self.out_channels)
        self.multiple, self.pad = stack.multiple, pad
        self.embed = SameConv2d(self.in_channels, stack.channels, 1)
        self.stack = stack
        self.head = SameConv2d(stack.channels, self.out_channels, 1)

    def layers(self) -> dict[str, nn.Module]:
        """Return the embedding, the cells from the bottom up, and the head."""
        cells = {f"layer{i}": cell for i, cell in enumerate(self.stack.cells)}
        return {"embed": self.embed, **cells, "head": self.head}

    def rollout(
        self, clip: Tensor, context: int, horizon: int, truth: Tensor | None = None, recompute: Recompute = "none"
    ) -> Rollout:
        """Forecast frames 1 … context + horizon - 1 of the clip, the seen ones included."""
        self.check_frames(clip)
        check_clip(clip, context, horizon, truth)
        self._check_feedback(horizon if truth is None else horizon + context)
        with OneRollout() as memo:
            return self._rollout(clip, context, horizon, truth, recompute, memo)

    def _rollout(
        self, clip: Tensor, context: int, horizon: int, truth: Tensor | None, recompute: Recompute, memo: Memo
    ) -> Rollout:
        steps = context + horizon - 1
        length = segment_length(steps, recompute)
        canvas = self._pad(clip[:, :context] if truth is None else clip[:, :steps])
        layers, memory = self._start(canvas)
        kernels = self._kernels()
        frames: list[Tensor] = [canvas[:, 0]]
        for first in range(0, steps, length):
            segment = range(first, min(first + length, steps))
            # Backward begins with the last segment: what it kept is used at once.
            last = segment.stop == steps or not torch.is_grad_enabled()
            run = self._run if last else partial(self._run_again, memo)
            forecasts, layers, memory = run(canvas, truth, segment, frames[-1], layers, memory, kernels)
            frames += forecasts
        height, width = clip.shape[-2:]
        return Rollout(torch.stack(frames[1:], 1)[..., :height, :width], 1, self.stack.penalty(layers))

    def _run(
        self,
        canvas: Tensor,
        truth: Tensor | None,
        segment: range,
        frame: Tensor,
        layers: State,
        memory: Tensor | None,
        kernels: Kernels | None,
    ) -> tuple[list[Tensor], State, Tensor | None]:
        """Take the steps of a segment, ``frame`` being the forecast for the first of them."""
        frames: list[Tensor] = []
        for step in segment:
            if step == 0 or (truth is None and step < canvas.shape[1]):
                frame = canvas[:, step]
            elif truth is not None:
                frame = torch.where(truth[:, step, None, None, None], canvas[:, step], frame)
            frame, layers, memory = self._step(frame, layers, memory, kernels)
            frames.append(frame)
        return frames, layers, memory

    def _run_again(self, memo: Memo, *arguments: Any) -> tuple[list[Tensor], State, Tensor | None]:
        """Do the same, forget all intermediate results, and compute them again in backward."""
        # No cell draws random numbers, so there is no random state to keep.
        result = checkpoint(
            self._run, *arguments, use_reentrant=False, preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), OneRollout(memo)),
        )  # fmt: skip
        assert isinstance(result, tuple)
        return result

    def forward(self, past: Tensor, horizon: int) -> Tensor:
        """Forecast (B, horizon, C, H, W) from the past (B, T, C, H, W)."""
        check_horizon(horizon)
        with OneRollout():
            return self.forecast(self.observe(past), horizon)

    def observe(self, frames: Tensor, state: ForecastState | None = None) -> ForecastState:
        """Take in frames (B, T, C, H, W), one step each, after those that led to ``state``.

        NaN is no data: the model takes it as 0, as in ``predict``. With gradients switched on, the state keeps all that
        led to it; a stream is to run in ``torch.no_grad()``, and is told so once.

        Raises:
            ValueError: a shape the model cannot take, or another size or batch than the state's.
        """
        self.check_frames(frames)
        canvas = self._pad(without_nan(frames))
        if state is not None and state.frame.requires_grad:
            _tell_of_the_graph()
        if state is None:
            layers, memory = self._start(canvas)
        elif (frames.shape[0], *frames.shape[-2:]) != (state.frame.shape[0], *state.frame.shape[-2:]):
            raise OptionError(
                f"frames {tuple(frames.shape)} continue a state of batch {state.frame.shape[0]} and size "
                f"{state.frame.shape[-2]}x{state.frame.shape[-1]}: batch and size cannot change within a sequence"
            )
        else:
            layers, memory = state.layers, state.memory
        with OneRollout():
            kernels = self._kernels()
            for step in range(frames.shape[1]):
                forecast, layers, memory = self._step(canvas[:, step], layers, memory, kernels)
        return ForecastState(layers, memory, forecast, forecast[..., : frames.shape[-2], : frames.shape[-1]])

    def forecast(self, state: ForecastState, horizon: int) -> Tensor:
        """Forecast (B, horizon, C, H, W) from a state, which stays as it is.

        Raises:
            ValueError: ``horizon`` is below 1, or above 1 where out_channels differ from in_channels.
        """
        check_horizon(horizon)
        self._check_feedback(horizon)
        height, width = state.frame.shape[-2:]
        layers, memory, forecast = state.layers, state.memory, state.canvas
        frames = [forecast]
        with OneRollout():
            kernels = self._kernels()
            for _ in range(horizon - 1):
                forecast, layers, memory = self._step(forecast, layers, memory, kernels)
                frames.append(forecast)
        return torch.stack(frames, 1)[..., :height, :width]

    def _kernels(self) -> Kernels | None:
        return share_kernels(self) if self.shares_kernels else None

    def _pad(self, frames: Tensor) -> Tensor:
        return pad_frames(frames, self.multiple, pad=self.pad, name="this model")

    def _start(self, canvas: Tensor) -> tuple[State, Tensor | None]:
        # Only size, type and device of the first input matter here: a view costs nothing.
        x = canvas[:, 0, :1].expand(-1, self.stack.channels, -1, -1)
        if self._order(x) == torch.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.stack.init_state(x), self.stack.init_memory(x)

    def _step(
        self, frame: Tensor, layers: State, memory: Tensor | None, kernels: Kernels | None = None
    ) -> tuple[Tensor, State, Tensor | None]:
        with tracing_with(kernels):
            # A 1x1 kernel has no order of its own that a convolution could follow.
            x = self.embed(frame)
            x = x.contiguous(memory_format=self._order(x))
            h, layers, memory = self.stack(x, layers, memory)
            return self.head(h), layers, memory

    def _order(self, x: Tensor) -> torch.memory_format:
        if self.layout is not None:
            return self.layout
        return torch.channels_last if x.device.type == "cpu" and native() is not None else torch.contiguous_format

    def _check_feedback(self, horizon: int) -> None:
        if horizon > 1 and self.out_channels != self.in_channels:
            raise OptionError(
                f"this model takes {self.in_channels} channels and gives {self.out_channels}, so it cannot be "
                "fed with its own forecasts: ask for horizon=1, or create it with equal channels"
            )


def build_plain(
    column: Column,
    *,
    in_channels: int = 1,
    out_channels: int | None = None,
    hidden: int = 32,
    layers: int = 6,
    pad: bool = True,
    **cell_options: Any,
) -> RecurrentForecaster:
    """Build a forecaster of ``layers`` cells of ``hidden`` channels, all at full resolution.

    Raises:
        ValueError: a count below one, or an option the cell refuses.
    """
    check_count("hidden", hidden)
    check_count("layers", layers)
    cells = column(hidden, layers, **cell_options)
    return RecurrentForecaster(Stack(cells, (0,) * layers), in_channels, out_channels, pad)


def build_pyramid(
    column: Column,
    *,
    in_channels: int = 1,
    out_channels: int | None = None,
    hidden: int = 32,
    layers: int = 6,
    skip: Skip = "add",
    pad: bool = True,
    **cell_options: Any,
) -> RecurrentForecaster:
    """Build a forecaster of an even number of cells in a mirrored pyramid of layers/2 scales.

    Raises:
        ValueError: an odd or too small number of layers, or an option the cell refuses.
    """
    check_count("hidden", hidden)
    check_count("layers", layers)
    scales = pyramid_scales(layers)
    cells = column(hidden, layers, **cell_options)
    return RecurrentForecaster(Stack(cells, scales, skip), in_channels, out_channels, pad)
