"""The blocks of SimVP: the convolution of its encoder and decoder, and the two translators between them.

    ConvSC(x)    = act(GroupNorm₂(W ∗ x))
    Inception(z) = Σ_k LeakyReLU(GroupNorm(G_k ∗ (S ∗ z)))            S 1x1; G_k grouped, k = 3, 5, 7, 11
    IncepU: block 1 … n downwards, n upwards; an upward block takes [z, what its mirror image gave]

    gSTA: y ← y + s ⊙ (ȳ + L ∗ (σ(q) ⊙ f))         ȳ = BatchNorm(y);  (f, q) = W ∗ far(near(GELU(E ∗ ȳ)))
          y ← y + s' ⊙ MLP(ȳ)                      MLP: 1x1, depthwise 3x3, GELU, 1x1

near is a depthwise 5x5 and far a depthwise 7x7 convolution of dilation 3; E, L, W are 1x1; s and s' are one
learned number a channel. See ``simvp.py`` for the references.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framecast.cells.gates import check_kernel
from framecast.errors import check_count

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
        raise ValueError(f"hid_T is {hid_T} and must be a multiple of 2 * groups = {2 * groups}: use {nearest}")
    if outputs % groups or outputs < 2 * groups:
        fits = [n for n in range(1, outputs // 2 + 1) if outputs % n == hid_T % (2 * n) == 0]
        raise ValueError(
            f"groups is {groups} and must divide the {outputs} channels of the translator (hid_S times the frames "
            f"it gives) into groups of two or more: use {min(fits, key=lambda n: abs(n - groups))}"
        )
    if not kernels:
        raise ValueError("incep_ker is empty: give one odd kernel size or more, such as (3, 5, 7, 11)")
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
            raise ValueError(f"{name} is {rate} and must be at least 0 and below 1: use {min(max(rate, 0), 0.9)}")
    least = 1 / min(inputs, hid_T)
    if mlp_ratio < least:
        raise ValueError(f"mlp_ratio is {mlp_ratio} and must leave the MLP a channel: use {least:g} or more")
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
