"""SimVP: convolutions only; a frame encoder, a translator of all frames at once, and a frame decoder.

    e₁ … e_N = encoder(frame)          every second layer halves the size
    z′ = translator(z)                 z: e_N of all frames, time folded into the channels
    frame′ = head(decoder(z′_t, e₁))   the encoder's first layer skips to the decoder's last

    ConvSC(x)    = act(GroupNorm₂(W ∗ x))
    Inception(z) = Σ_k LeakyReLU(GroupNorm(G_k ∗ (S ∗ z)))            S 1x1; G_k grouped, k = 3, 5, 7, 11

The translator of SimVP is IncepU, a U-shape in depth: blocks 1 … n downwards and n upwards, an upward block taking
[z, the output of its mirror image]. That of SimVPv2 is a column of gSTA blocks, gated attention by large depthwise
convolutions:

    y ← y + s ⊙ (ȳ + L ∗ (σ(q) ⊙ f))         ȳ = BatchNorm(y);  (f, q) = W ∗ far(near(GELU(E ∗ ȳ)))
    y ← y + s' ⊙ MLP(ȳ)                      MLP: 1x1, depthwise 3x3, GELU, 1x1

near is a depthwise 5x5 and far a depthwise 7x7 convolution of dilation 3; E, L, W are 1x1; s and s' are one learnt
number a channel.

References: Gao et al., "SimVP: Simpler yet Better Video Prediction", CVPR 2022,
doi:10.1109/CVPR52688.2022.00317. Tan et al., "SimVPv2: Towards Simple yet Powerful Spatiotemporal
Predictive Learning", 2022, doi:10.48550/arXiv.2211.12509. Options have the released names.

Differs from the released code: for a horizon shorter than the context the translator gives that many frames
instead of all of them; ``groups`` that do not divide the channels are refused instead of replaced by 1;
stochastic depth rises from 0 instead of 0.01.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framecast.cells.convolution import check_kernel
from framecast.errors import OptionError, UnknownNameError, check_count
from framecast.models.conditions import block_width
from framecast.models.forecaster import pad_frames
from framecast.models.one_shot import OneShotForecaster

Form = Literal["official", "openstl"]


class ConvSC(nn.Module):
    """A convolution, GroupNorm and activation; it keeps, halves ("down") or doubles ("up") the size."""

    def __init__(self, inputs: int, outputs: int, kernel: int, resample: str, form: Form) -> None:
        super().__init__()
        same, shuffle = kernel // 2, resample == "up" and form == "openstl"
        conv: nn.Conv2d | nn.ConvTranspose2d
        if resample == "up" and form == "official":
            conv = nn.ConvTranspose2d(inputs, outputs, kernel, 2, same, output_padding=1)
        else:
            stride = 2 if resample == "down" else 1
            conv = nn.Conv2d(inputs, 4 * outputs if shuffle else outputs, kernel, stride, same)
        if form == "openstl":
            nn.init.trunc_normal_(conv.weight, std=0.02)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.conv = conv
        self.shuffle = nn.PixelShuffle(2) if shuffle else nn.Identity()
        self.norm = nn.GroupNorm(2, outputs)
        self.act = nn.LeakyReLU(0.2) if form == "official" else nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H', W') of (B, C, H, W)."""
        return self.act(self.norm(self.shuffle(self.conv(x))))  # type: ignore[no-any-return]


class Inception(nn.Module):
    """The sum of grouped convolutions of several sizes, each normalised, of a 1x1 convolution."""

    def __init__(self, inputs: int, inner: int, outputs: int, kernels: Sequence[int], groups: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, inner, 1)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inner, outputs, kernel, padding=kernel // 2, groups=groups),
                nn.GroupNorm(groups, outputs),
                nn.LeakyReLU(0.2),
            )
            for kernel in kernels
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H, W) of (B, C, H, W)."""
        x = self.squeeze(x)
        total: Tensor = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total + branch(x)
        return total


class IncepU(nn.Sequential):
    """Inception blocks, the second half of which also take what the first half gave, in reverse."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H, W) of (B, C, H, W)."""
        blocks, skips = list(self), []
        for block in blocks[: len(blocks) // 2]:
            x = block(x)
            skips.append(x)
        x = blocks[len(blocks) // 2](skips.pop())
        for block in blocks[len(blocks) // 2 + 1 :]:
            x = block(torch.cat([x, skips.pop()], 1))
        return x


class GatedAttention(nn.Module):
    """A gSTA block: attention by large depthwise convolutions with a gate, then an MLP with a 3x3 kernel."""

    def __init__(self, channels: int, outputs: int, mlp_ratio: float, drop: float, drop_path: float) -> None:
        super().__init__()
        self.drop, self.drop_path = drop, drop_path
        wide = int(channels * mlp_ratio)
        self.norm1 = nn.BatchNorm2d(channels)
        self.enter = nn.Conv2d(channels, channels, 1)
        self.near = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.far = nn.Conv2d(channels, channels, 7, padding=9, dilation=3, groups=channels)
        self.gate = nn.Conv2d(channels, 2 * channels, 1)
        self.leave = nn.Conv2d(channels, channels, 1)
        self.scale1 = nn.Parameter(torch.full((channels,), 1e-2))
        self.norm2 = nn.BatchNorm2d(channels)
        self.expand = nn.Conv2d(channels, wide, 1)
        self.spread = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.shrink = nn.Conv2d(wide, channels, 1)
        self.scale2 = nn.Parameter(torch.full((channels,), 1e-2))
        self.reduction = nn.Conv2d(channels, outputs, 1) if channels != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H, W) of (B, C, H, W)."""
        y = self.norm1(x)
        f, q = self.gate(self.far(self.near(F.gelu(self.enter(y))))).chunk(2, 1)
        y = y + self.leave(torch.sigmoid(q) * f)
        x = x + self._sometimes(self.scale1[:, None, None] * y)
        y = F.gelu(self.spread(self.expand(self.norm2(x))))
        y = F.dropout(self.shrink(F.dropout(y, self.drop, self.training)), self.drop, self.training)
        x = x + self._sometimes(self.scale2[:, None, None] * y)
        return self.reduction(x)  # type: ignore[no-any-return]

    def _sometimes(self, x: Tensor) -> Tensor:
        """Leave x out for a share of the samples while training (stochastic depth)."""
        if not self.training or not self.drop_path:
            return x
        return x * F.dropout(x.new_ones(len(x), 1, 1, 1), self.drop_path)


def incep_u(inputs: int, outputs: int, *, hid_T: int, N_T: int, kernels: Sequence[int], groups: int) -> nn.Sequential:
    """Return the translator of SimVP, 2 N_T Inception blocks.

    Raises:
        ValueError: ``groups`` does not divide the channels, a kernel is even, or a count is too small.
    """
    check_count("N_T", N_T, least=2)
    check_count("groups", groups)
    check_count("hid_T", hid_T)
    if hid_T % (2 * groups):
        nearest = max(1, round(hid_T / 2 / groups)) * 2 * groups
        raise OptionError(f"hid_T is {hid_T} and must be a multiple of 2 * groups = {2 * groups}: use {nearest}")
    if outputs % groups or outputs < 2 * groups:
        fits = [n for n in range(1, outputs // 2 + 1) if outputs % n == hid_T % (2 * n) == 0]
        raise OptionError(
            f"groups is {groups} and must divide the {outputs} channels of the translator (hid_S times the frames "
            f"it gives) into groups of two or more: use {min(fits, key=lambda n: abs(n - groups))}"
        )
    if not kernels:
        raise OptionError("incep_ker is empty: give one odd kernel size or more, such as (3, 5, 7, 11)")
    for kernel in kernels:
        check_kernel(kernel)
    takes = [inputs] + [hid_T] * N_T + [2 * hid_T] * (N_T - 1)
    gives = [hid_T] * (2 * N_T - 1) + [outputs]
    return IncepU(*(Inception(i, hid_T // 2, o, kernels, groups) for i, o in zip(takes, gives, strict=True)))


def gated_attention(
    inputs: int, outputs: int, *, hid_T: int, N_T: int, mlp_ratio: float, drop: float, drop_path: float
) -> nn.Sequential:
    """Return the translator of SimVPv2, N_T gSTA blocks, with its own random weights.

    Raises:
        ValueError: a count is too small, or a rate or ratio out of range.
    """
    check_count("N_T", N_T, least=2)
    check_count("hid_T", hid_T)
    for name, rate in (("drop", drop), ("drop_path", drop_path)):
        if not 0 <= rate < 1:
            raise OptionError(f"{name} is {rate} and must be at least 0 and below 1: use {min(max(rate, 0), 0.9)}")
    least = 1 / min(inputs, hid_T)
    if mlp_ratio < least:
        raise OptionError(f"mlp_ratio is {mlp_ratio} and must leave the MLP a channel: use {least:g} or more")
    takes = [inputs] + [hid_T] * (N_T - 1)
    gives = [hid_T] * (N_T - 1) + [outputs]
    rates = [drop_path * i / (N_T - 1) for i in range(N_T)]
    blocks = nn.Sequential(
        *(GatedAttention(i, o, mlp_ratio, drop, rate) for i, o, rate in zip(takes, gives, rates, strict=True))
    )
    for conv in blocks.modules():
        if isinstance(conv, nn.Conv2d):
            fan_out = conv.weight[0, 0].numel() * conv.out_channels // conv.groups
            nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return blocks


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
        extra: int,
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
            raise OptionError(
                f"hid_S is {hid_S} and must be even and at least 4, for two groups of two channels or more: use "
                f"{max(4, hid_S + 1)}"
            )
        if form == "openstl" and N_S % 2:
            raise OptionError(f"N_S is {N_S} and must be even with pixel shuffle (openstl): use {N_S + 1}")
        for kernel in kernels:
            check_kernel(kernel)
        self.context, self.block = context, min(context, horizon)
        self.multiple, self.pad, self.concat = 2 ** (N_S // 2), pad, form == "official"
        width = block_width(in_channels, extra, context, self.block)
        resampled = [bool(layer % 2) for layer in range(N_S)]
        self.encoder = nn.ModuleList(
            ConvSC(hid_S if layer else width, hid_S, kernels[0], "down" if change else "keep", form)
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
    extra: int = 0,
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
        extra=extra,
    )


def build_simvp_v2(
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
    extra: int = 0,
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
        extra=extra,
    )
