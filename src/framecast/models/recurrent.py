"""The recurrent forecaster: a 1x1 embedding, a stack of cells, a 1x1 head, fed with its own forecasts.

    x_t  = E ∗ frame_t;   h_t = stack(x_t);   ŷ_{t+1} = R ∗ h_t

The frame at step t is the truth while there is one and ŷ_t afterwards, neither clamped nor detached. Each
step forecasts the next frame, so a roll-out over S frames yields forecasts of frames 1 … S-1.

Reference: Ma et al., MS-LSTM, Applied Soft Computing 147, 2023, doi:10.1016/j.asoc.2023.110731.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from framecast.cells.cell import Cell, State
from framecast.cells.convolution import Kernels, Memo, OneRollout, SameConv2d, share_kernels, tracing_with
from framecast.cells.native import native
from framecast.errors import OptionError, check_count
from framecast.models.extrapolation import MOTION_FRAMES
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
        past: (B, T, C, H, W) the last frames, NaN where there was no data, of a model that extrapolates; or None.
        noise: (B, E) of a member of an ensemble, or None.
    """

    layers: State
    memory: Tensor | None
    canvas: Tensor
    frame: Tensor
    past: Tensor | None = None
    noise: Tensor | None = None


class RecurrentForecaster(Forecaster):
    """Any stack of cells as a forecaster of any context, horizon and frame size.

    Args:
        stack: the recurrent core.
        in_channels: channels of the frames it takes.
        out_channels: channels of the frames it gives; where they differ it forecasts one step only.
        pad: pad frames of any size to the stack's multiple (and crop the result), or refuse them.
        extra: channels beside the frames that each step sees, see ``models/conditions.py``.

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

    def __init__(
        self, stack: Stack, in_channels: int = 1, out_channels: int | None = None, pad: bool = True, extra: int = 0
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = in_channels if out_channels is None else out_channels
        check_count("in_channels", self.in_channels)
        check_count("out_channels", self.out_channels)
        self.multiple, self.pad = stack.multiple, pad
        self.embed = SameConv2d(self.in_channels + extra, stack.channels, 1)
        self.stack = stack
        self.head = SameConv2d(stack.channels, self.out_channels, 1)

    def layers(self) -> dict[str, nn.Module]:
        """Return the embedding, the cells from the bottom up, and the head."""
        cells = {f"layer{i}": cell for i, cell in enumerate(self.stack.cells)}
        return {"embed": self.embed, **cells, "head": self.head}

    def with_room(self, tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Return the weights of a model that saw fewer covariates or noise, with zeros for those it did not know.

        So an ensemble can start from a single forecast, which all its members equal before they have learned.
        """
        moved_on = self.in_channels if self.residual != "none" else 0
        before = [self.in_channels, options.get("covariates", 0), options.get("noise", 0), moved_on]
        now = [self.in_channels, self.covariates, self.noise, moved_on]
        weight = tensors.get("embed.weight")
        if weight is None or weight.shape[1:] != (sum(before), 1, 1):
            return tensors
        if any(old > new for old, new in zip(before, now, strict=True)):
            return tensors
        parts = [
            F.pad(part, (0, 0, 0, 0, 0, new - old))
            for part, old, new in zip(torch.split(weight, before, 1), before, now, strict=True)
        ]
        return {**tensors, "embed.weight": torch.cat(parts, 1)}

    def rollout(
        self,
        clip: Tensor,
        context: int,
        horizon: int,
        truth: Tensor | None = None,
        recompute: Recompute = "none",
        rows: Tensor | None = None,
    ) -> Rollout:
        """Forecast frames 1 … context + horizon - 1 of the clip, the seen ones included."""
        self.check_frames(clip)
        check_clip(clip, context, horizon, truth)
        self._check_feedback(horizon if truth is None else horizon + context)
        rows = self.conditions(clip[:, :context], horizon).rows if rows is None else rows
        with OneRollout() as memo:
            return self._rollout(clip, context, horizon, truth, recompute, rows, memo)

    def _rollout(
        self,
        clip: Tensor,
        context: int,
        horizon: int,
        truth: Tensor | None,
        recompute: Recompute,
        rows: Tensor | None,
        memo: Memo,
    ) -> Rollout:
        steps = context + horizon - 1
        length = segment_length(steps, recompute)
        canvas = self._pad(clip[:, :context] if truth is None else clip[:, :steps])
        rows = None if rows is None else self._pad(rows)
        layers, memory = self._start(canvas)
        kernels = self._kernels()
        frames: list[Tensor] = [canvas[:, 0]]
        # The first segment is the short one, as the last is not computed again.
        for stop in range(steps % length or length, steps + 1, length):
            segment = range(max(0, stop - length), stop)
            # Backward begins with the last segment: what it kept is used at once.
            last = segment.stop == steps or not torch.is_grad_enabled()
            run = self._run if last else partial(self._run_again, memo)
            forecasts, layers, memory = run(canvas, rows, truth, segment, frames[-1], layers, memory, kernels)
            frames += forecasts
        height, width = clip.shape[-2:]
        return Rollout(torch.stack(frames[1:], 1)[..., :height, :width], 1, self.stack.penalty(layers))

    def _run(
        self,
        canvas: Tensor,
        rows: Tensor | None,
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
            row = None if rows is None else rows[:, step + 1]
            frame, layers, memory = self._step(frame, layers, memory, kernels, row)
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

    def continue_past(self, past: Tensor, horizon: int, rows: Tensor | None) -> Tensor:
        """Forecast (B, horizon, C, H, W) from the past (B, T, C, H, W) and the rows of ``conditions``."""
        self._check_feedback(horizon)
        count = past.shape[1]
        seen, later = (None, None) if rows is None else (rows[:, 1 : count + 1], rows[:, count + 1 :])
        return self._go_on(self._take(past, None, seen), horizon, later)

    def observe(
        self,
        frames: Tensor,
        state: ForecastState | None = None,
        covariates: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> ForecastState:
        """Take in frames (B, T, C, H, W), one step each, after those that led to ``state``.

        NaN is no data: the model takes it as 0, as in ``predict``. With gradients switched on, the state keeps all that
        led to it; a stream is to run in ``torch.no_grad()``, and is told so once.

        Args:
            frames: the next ones of the stream.
            state: what was before; None at the beginning.
            covariates: (B, T, K, H, W), for the frame after each of these what is known when it is forecast.
            noise: (B, E) of members of an ensemble, at the beginning; None takes zeros.

        Raises:
            ValueError: a shape the model cannot take, another size or batch than the state's, covariates that it needs,
                or other noise than at the beginning.
        """
        self.check_frames(frames)
        if state is not None and state.frame.requires_grad:
            _tell_of_the_graph()
        if state is not None:
            self._check_same(frames, state, noise)
            noise = state.noise
        elif self.noise and noise is None:
            noise = frames.new_zeros(len(frames), self.noise)
        past, seen = frames, 0
        if state is not None and state.past is not None:
            past, seen = torch.cat([state.past, frames], 1), state.past.shape[1]
        parts = self._given_rows(frames, frames.shape[1], covariates, noise)
        if self.residual != "none":
            extrapolated = self.extrapolated(past, 1, noise, seen + 1).rows
            assert extrapolated is not None
            parts.insert(0, extrapolated[:, seen + 1 :])
        observed = self._take(frames, state, torch.cat(parts, 2) if parts else None)
        kept = past[:, -MOTION_FRAMES:] if self.residual != "none" else None
        return observed._replace(past=kept, noise=noise)

    def _check_same(self, frames: Tensor, state: ForecastState, noise: Tensor | None) -> None:
        if (frames.shape[0], *frames.shape[-2:]) != (state.frame.shape[0], *state.frame.shape[-2:]):
            raise OptionError(
                f"frames {tuple(frames.shape)} continue a state of batch {state.frame.shape[0]} and size "
                f"{state.frame.shape[-2]}x{state.frame.shape[-1]}: batch and size cannot change within a sequence"
            )
        if noise is not None and (state.noise is None or not torch.equal(noise, state.noise)):
            raise OptionError("noise belongs to a member for all of a stream: give it with the first frames only")

    def _take(self, frames: Tensor, state: ForecastState | None, rows: Tensor | None) -> ForecastState:
        """Take in frames, each with the row of the one after it."""
        canvas = self._pad(without_nan(frames))
        rows = None if rows is None else self._pad(rows)
        layers, memory = self._start(canvas) if state is None else (state.layers, state.memory)
        with OneRollout():
            kernels = self._kernels()
            for step in range(frames.shape[1]):
                row = None if rows is None else rows[:, step]
                forecast, layers, memory = self._step(canvas[:, step], layers, memory, kernels, row)
        return ForecastState(layers, memory, forecast, forecast[..., : frames.shape[-2], : frames.shape[-1]])

    def forecast(self, state: ForecastState, horizon: int, covariates: Tensor | None = None) -> Tensor:
        """Forecast (B, horizon, C, H, W) from a state, which stays as it is.

        Args:
            state: what ``observe`` returned.
            horizon: frames to forecast.
            covariates: (B, horizon, K, H, W), at each of them what is known when it is forecast; the first was given
                to ``observe`` already.

        Raises:
            ValueError: ``horizon`` is below 1, or above 1 where out_channels differ from in_channels; or missing
                covariates.
        """
        check_horizon(horizon)
        self._check_feedback(horizon)
        parts = self._given_rows(state.frame[:, None], horizon, covariates, state.noise)
        if state.past is not None:
            extrapolated = self.extrapolated(state.past, horizon, state.noise, state.past.shape[1]).rows
            assert extrapolated is not None
            parts.insert(0, extrapolated[:, state.past.shape[1] :])
        return self._go_on(state, horizon, torch.cat(parts, 2)[:, 1:] if parts else None)

    def _go_on(self, state: ForecastState, horizon: int, rows: Tensor | None) -> Tensor:
        """Forecast from a state, with the rows of the second frame and all later ones."""
        height, width = state.frame.shape[-2:]
        rows = None if rows is None or horizon == 1 else self._pad(rows)
        layers, memory, forecast = state.layers, state.memory, state.canvas
        del state  # or, where nobody else holds it, it would take its memory until the end
        frames = [forecast]
        with OneRollout():
            kernels = self._kernels()
            for step in range(horizon - 1):
                row = None if rows is None else rows[:, step]
                forecast, layers, memory = self._step(forecast, layers, memory, kernels, row)
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
        self,
        frame: Tensor,
        layers: State,
        memory: Tensor | None,
        kernels: Kernels | None = None,
        row: Tensor | None = None,
    ) -> tuple[Tensor, State, Tensor | None]:
        with tracing_with(kernels):
            # A 1x1 kernel has no order of its own that a convolution could follow.
            x = self.embed(frame if row is None else torch.cat([frame, row], 1))
            x = x.contiguous(memory_format=self._order(x))
            h, layers, memory = self.stack(x, layers, memory)
            forecast = self.head(h)
            if row is not None and self.residual != "none":
                forecast = forecast + row[:, : self.out_channels]
            return forecast, layers, memory

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
    extra: int = 0,
    **cell_options: Any,
) -> RecurrentForecaster:
    """Build a forecaster of ``layers`` cells of ``hidden`` channels, all at full resolution.

    Raises:
        ValueError: a count below one, or an option the cell refuses.
    """
    check_count("hidden", hidden)
    check_count("layers", layers)
    cells = column(hidden, layers, **cell_options)
    return RecurrentForecaster(Stack(cells, (0,) * layers), in_channels, out_channels, pad, extra)


def build_pyramid(
    column: Column,
    *,
    in_channels: int = 1,
    out_channels: int | None = None,
    hidden: int = 32,
    layers: int = 6,
    skip: Skip = "add",
    pad: bool = True,
    extra: int = 0,
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
    return RecurrentForecaster(Stack(cells, scales, skip), in_channels, out_channels, pad, extra)
