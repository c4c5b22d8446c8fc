"""SimVP: convolutions only; a frame encoder, a translator of all frames at once, and a frame decoder.

    e₁ … e_N = encoder(frame)          every second layer halves the size
    z′ = translator(z)                 z: e_N of all frames, time folded into the channels
    frame′ = head(decoder(z′_t, e₁))   the encoder's first layer skips to the decoder's last

The translator of SimVP is IncepU, a U-shape in depth of Inception blocks; that of SimVPv2 is a column of
gSTA blocks, gated attention by large depthwise convolutions; see ``simvp_blocks.py``.

References: Gao et al., "SimVP: Simpler yet Better Video Prediction", CVPR 2022,
doi:10.1109/CVPR52688.2022.00317. Tan et al., "SimVPv2: Towards Simple yet Powerful Spatiotemporal
Predictive Learning", 2022, doi:10.48550/arXiv.2211.12509. Options have the released names.

Differs from the released code: for a horizon shorter than the context the translator gives that many frames
instead of all of them; ``groups`` that do not divide the channels are refused instead of replaced by 1;
stochastic depth rises from 0 instead of 0.01.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from framecast.cells.gates import check_kernel
from framecast.errors import UnknownNameError, check_count
from framecast.models.forecaster import pad_frames
from framecast.models.oneshot import OneShotForecaster
from framecast.models.simvp_blocks import ConvSC, Form, gated_attention, incep_u


class SimVP(OneShotForecaster):
    """A frame encoder, a translator and a frame decoder; ``simvp`` and ``simvp_v2`` build it.

    Args:
        translator: makes the translator of (channels it takes, channels it gives).
        context: number of past frames it sees.
        horizon: number of frames to forecast; beyond ``context`` they come in blocks of ``context``.
        in_channels: channels of the frames it takes.
        out_channels: channels of the frames it gives; where they differ it forecasts one block only.
        hid_S: channels of encoder and decoder.
        N_S: layers of the encoder, and of the decoder.
        kernels: kernel sizes of the encoder and the decoder.
        form: "official" (LeakyReLU, transposed convolutions, concatenated skip) or "openstl" (SiLU, pixel
            shuffle, added skip).
        pad: pad frames of any size to the multiple (and crop the result), or refuse them.

    Raises:
        ValueError: a value that breaks a rule; the message names it and the nearest value that works.
    """

    def __init__(
        self,
        translator: Callable[[int, int], nn.Sequential],
        *,
        context: int,
        horizon: int,
        in_channels: int,
        out_channels: int | None,
        hid_S: int,
        N_S: int,
        kernels: tuple[int, int],
        form: Form,
        pad: bool,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = in_channels if out_channels is None else out_channels
        counts = {"context": context, "horizon": horizon, "in_channels": in_channels, "N_S": N_S}
        for name, value in (counts | {"out_channels": self.out_channels, "hid_S": hid_S}).items():
            check_count(name, value)
        if form not in ("official", "openstl"):
            raise UnknownNameError("form of SimVP", form, ("official", "openstl"))
        if hid_S % 2 or hid_S < 4:
            raise ValueError(
                f"hid_S is {hid_S} and must be even and at least 4, for two groups of two channels or more: use "
                f"{max(4, hid_S + 1)}"
            )
        if form == "openstl" and N_S % 2:
            raise ValueError(f"N_S is {N_S} and must be even with pixel shuffle (openstl): use {N_S + 1}")
        for kernel in kernels:
            check_kernel(kernel)
        self.context, self.block = context, min(context, horizon)
        self.multiple, self.pad, self.concat = 2 ** (N_S // 2), pad, form == "official"
        resampled = [bool(layer % 2) for layer in range(N_S)]
        self.encoder = nn.ModuleList(
            ConvSC(hid_S if layer else in_channels, hid_S, kernels[0], "down" if change else "keep", form)
            for layer, change in enumerate(resampled)
        )
        self.translator = translator(self.context * hid_S, self.block * hid_S)
        takes = [hid_S] * (N_S - 1) + [2 * hid_S if self.concat else hid_S]
        self.decoder = nn.ModuleList(
            ConvSC(channels, hid_S, kernels[1], "up" if change else "keep", form)
            for channels, change in zip(takes, reversed(resampled), strict=True)
        )
        self.head = nn.Conv2d(hid_S, self.out_channels, 1)

    def layers(self) -> dict[str, nn.Module]:
        """Return the encoder's, the translator's and the decoder's layers, and the head."""
        parts = {"encoder": [*self.encoder], "translator": [*self.translator], "decoder": [*self.decoder]}
        named = {f"{part}{i}": layer for part, layers in parts.items() for i, layer in enumerate(layers)}
        return {**named, "head": self.head}

    def fit_size(self, frames: Tensor) -> Tensor:
        """Pad frames to the multiple, or refuse them where ``pad`` is False."""
        return pad_frames(frames, self.multiple, pad=self.pad, name="this model")

    def forecast_block(self, frames: Tensor) -> Tensor:
        """Forecast (B, block, C', H, W) from (B, context, C, H, W)."""
        batch = frames.shape[0]
        first = x = self.encoder[0](frames.flatten(0, 1))
        for layer in self.encoder[1:]:
            x = layer(x)
        x = self.translator(x.reshape(batch, -1, *x.shape[2:]))
        x = x.reshape(batch * self.block, -1, *x.shape[2:])
        for layer in self.decoder[:-1]:
            x = layer(x)
        skip = first.reshape(batch, self.context, *first.shape[1:])[:, : self.block].flatten(0, 1)
        x = self.decoder[-1](torch.cat([x, skip], 1) if self.concat else x + skip)
        forecast: Tensor = self.head(x)
        return forecast.reshape(batch, self.block, *forecast.shape[1:])


def build_simvp(
    *,
    context: int = 10,
    horizon: int = 10,
    in_channels: int = 1,
    out_channels: int | None = None,
    hid_S: int = 64,
    hid_T: int = 256,
    N_S: int = 4,
    N_T: int = 8,
    groups: int = 8,
    incep_ker: Sequence[int] = (3, 5, 7, 11),
    spatio_kernel_enc: int = 3,
    spatio_kernel_dec: int = 3,
    form: Form = "official",
    pad: bool = True,
) -> SimVP:
    """Build SimVP with IncepU; see ``SimVP`` for the options not named here.

    Args:
        hid_T: channels of the translator.
        N_T: Inception blocks of each half of the translator.
        groups: groups of the translator's convolutions and normalisations.
        incep_ker: kernel sizes of an Inception block.
        spatio_kernel_enc: kernel size of the encoder.
        spatio_kernel_dec: kernel size of the decoder.

    Raises:
        ValueError: a value that breaks a rule; the message names it and the nearest value that works.
    """
    return SimVP(
        partial(incep_u, hid_T=hid_T, N_T=N_T, kernels=incep_ker, groups=groups),
        context=context,
        horizon=horizon,
        in_channels=in_channels,
        out_channels=out_channels,
        hid_S=hid_S,
        N_S=N_S,
        kernels=(spatio_kernel_enc, spatio_kernel_dec),
        form=form,
        pad=pad,
    )


def simvp_v2(
    *,
    context: int = 10,
    horizon: int = 10,
    in_channels: int = 1,
    out_channels: int | None = None,
    hid_S: int = 64,
    hid_T: int = 512,
    N_S: int = 4,
    N_T: int = 8,
    mlp_ratio: float = 8.0,
    drop: float = 0.0,
    drop_path: float = 0.0,
    spatio_kernel_enc: int = 3,
    spatio_kernel_dec: int = 3,
    pad: bool = True,
) -> SimVP:
    """Build SimVPv2, SimVP with gSTA in OpenSTL's form; see ``SimVP`` for the options not named here.

    Args:
        hid_T: channels of the translator between its first and last block.
        N_T: gSTA blocks of the translator.
        mlp_ratio: how many times wider than its input the middle of an MLP is.
        drop: dropout in the MLPs.
        drop_path: share of samples for which the last block's updates are left out while training; it rises
            from 0 in the first block.
        spatio_kernel_enc: kernel size of the encoder.
        spatio_kernel_dec: kernel size of the decoder.

    Raises:
        ValueError: a value that breaks a rule; the message names it and the nearest value that works.
    """
    return SimVP(
        partial(gated_attention, hid_T=hid_T, N_T=N_T, mlp_ratio=mlp_ratio, drop=drop, drop_path=drop_path),
        context=context,
        horizon=horizon,
        in_channels=in_channels,
        out_channels=out_channels,
        hid_S=hid_S,
        N_S=N_S,
        kernels=(spatio_kernel_enc, spatio_kernel_dec),
        form="openstl",
        pad=pad,
    )
