"""One-shot forecasters: a block of frames at once, and block after block for longer horizons.

    (ŷ_{T+1}, …, ŷ_{T+n}) = block(x_{T-c+1}, …, x_T)         c: context, n: frames of a block

A longer past uses its last c frames. A longer horizon is forecast in blocks, each from the last c frames of
the past and the forecasts so far; a shorter one is cut.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from framecast.errors import OptionError
from framecast.models.conditions import resize_rows, rows_of_block
from framecast.models.forecaster import Forecaster, Recompute, Rollout, check_clip, without_nan


class OneShotForecaster(Forecaster):
    """A model that forecasts ``block`` frames at once from exactly ``context`` frames.

    Attributes:
        context: number of past frames it sees.
        block: number of frames it forecasts at once.
    """

    compiled_method = "forecast_block"
    context: int
    block: int

    @abstractmethod
    def forecast_block(self, frames: Tensor) -> Tensor:
        """Forecast (B, block, C', H, W) from (B, context, C, H, W)."""

    def fit_size(self, frames: Tensor) -> Tensor:
        """Return frames (B, T, C, H, W) of a size the model takes, with what was added right and bottom.

        Raises:
            ValueError: it can take no such frames.
        """
        return frames

    def rollout(
        self,
        clip: Tensor,
        context: int,
        horizon: int,
        truth: Tensor | None = None,
        recompute: Recompute = "none",
        rows: Tensor | None = None,
    ) -> Rollout:
        """Forecast the frames of the clip after the context.

        Raises:
            ValueError: as ``forward``; ``truth`` is given, which no step between could see; or ``recompute`` is, for
                which there are no steps.
        """
        self.check_frames(clip)
        if truth is not None:
            raise OptionError(
                "this model forecasts many frames at once and cannot see true ones between: give truth=None, "
                "or train with sampling='none'"
            )
        if recompute != "none":
            raise OptionError(
                f"this model forecasts many frames at once and has no steps to compute again; recompute={recompute!r} "
                "is for recurrent models: leave it out, or lower the batch to save memory"
            )
        check_clip(clip, context, horizon, truth)
        past = clip[:, :context]
        rows = self.conditions(past, horizon).rows if rows is None else rows
        # A NaN that nothing masks ends a training, and is not taken as no data.
        return Rollout(self._forecast_blocks(past, horizon, rows), context, None)

    def check_past(self, past: Tensor, horizon: int) -> None:
        """Refuse a past (B, T, C, H, W) or a horizon that the model cannot take.

        Raises:
            ValueError: fewer frames than ``context``, or a horizon beyond one block where it cannot be fed with its
                own forecasts.
        """
        super().check_past(past, horizon)
        if past.shape[1] < self.context:
            raise OptionError(
                f"the past has {past.shape[1]} frames and this model was built for context={self.context}: give "
                f"at least {self.context}, or create it with context={past.shape[1]}"
            )
        if horizon > self.block and self.in_channels != self.out_channels:
            raise OptionError(
                f"this model takes {self.in_channels} channels and gives {self.out_channels}, so it cannot be fed "
                f"with its own forecasts: ask for horizon={self.block} at most, or create it with equal channels"
            )

    def continue_past(self, past: Tensor, horizon: int, rows: Tensor | None) -> Tensor:
        """Forecast (B, horizon, C', H, W) from the past (B, T, C, H, W) and the rows of ``conditions``."""
        return self._forecast_blocks(without_nan(past), horizon, rows)

    def _forecast_blocks(self, past: Tensor, horizon: int, rows: Tensor | None) -> Tensor:
        frames = self.fit_size(past)[:, -self.context :]
        if rows is not None:
            rows = resize_rows(rows[:, past.shape[1] - self.context :], frames.shape[-2:])
        forecast = self._next_block(frames, rows, 0)
        while forecast.shape[1] < horizon:
            seen = torch.cat([frames, forecast], 1)[:, -self.context :]
            forecast = torch.cat([forecast, self._next_block(seen, rows, forecast.shape[1])], 1)
        return forecast[:, :horizon, :, : past.shape[-2], : past.shape[-1]]

    def _next_block(self, seen: Tensor, rows: Tensor | None, first: int) -> Tensor:
        """Forecast the block that begins so many frames after the past, with the rows of all frames that it sees."""
        if rows is None:
            return self.forecast_block(seen)
        block_rows = rows[:, first : first + self.context + self.block]
        forecast = self.forecast_block(torch.cat([seen, rows_of_block(block_rows, self.context, self.block)], 2))
        if self.residual == "none":
            return forecast
        added = block_rows[:, self.context :, : self.out_channels]
        return forecast[:, : added.shape[1]] + added
