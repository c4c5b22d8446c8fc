"""What lies around cuboid attention: feed-forward layers, blocks, merging, up-sampling, positions.

    feed-forward: x ← x + W₂ φ(W₁ x̄ + w₁) + w₂            x̄: normalised; gated: φ(G x̄ + γ) ⊙ (W₁ x̄ + w₁)

Tokens are (B, T, H, W, C).

Reference: Gao et al., Earthformer: Exploring Space-Time Transformers for Earth System Forecasting,
NeurIPS 2022, doi:10.48550/arXiv.2207.05833.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framecast.models.cuboid import Cuboid, Shape, extend
from framecast.models.cuboid_attention import ACTIVATIONS, CuboidCrossAttention, CuboidSelfAttention, Settings


class FeedForward(nn.Module):
    """Two matrices on every token or vector, four times as many units and a non-linearity between them."""

    def __init__(self, units: int, settings: Settings) -> None:
        super().__init__()
        self.gated, self.activation = settings.gated, ACTIVATIONS[settings.activation]
        self.norm = nn.LayerNorm(units)
        self.expand = nn.Linear(units, (8 if settings.gated else 4) * units)
        self.contract = nn.Linear(4 * units, units)
        self.dropout = nn.Dropout(settings.ffn_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., C) with what the layer adds."""
        inner = self.expand(self.norm(x))
        if self.gated:
            gate, inner = inner.chunk(2, -1)
            inner = self.activation(gate) * inner
        else:
            inner = self.activation(inner)
        return x + self.dropout(self.contract(self.dropout(inner)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """The attention layers of one pattern, each followed by a feed-forward layer, or only the last."""

    def __init__(self, units: int, attentions: Iterable[nn.Module], settings: Settings) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(attentions)
        followed = list(self.attentions)[0 if settings.inter_ffn else -1 :]
        updated = [layer for layer in followed if layer.updates and settings.vector_ffn]
        self.ffns = nn.ModuleList(FeedForward(units, settings) for _ in followed)
        self.vector_ffns = nn.ModuleList(FeedForward(units, settings) for _ in updated)

    def forward(self, x: Tensor, vectors: Tensor | None, *memory: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return tokens (B, T, H, W, C) and vectors (B, K, C) after all layers."""
        first = len(self.attentions) - len(self.ffns)
        for layer, attention in enumerate(self.attentions, -first):
            x, vectors = attention(x, vectors, *memory)
            if layer >= 0:
                x = self.ffns[layer](x)
            if 0 <= layer < len(self.vector_ffns):
                vectors = self.vector_ffns[layer](vectors)
        return x, vectors


def self_block(
    units: int, shape: Shape, boxes: Sequence[Cuboid], settings: Settings, vectors: bool, updates: bool
) -> Block:
    """Return a block for tokens (T, H, W), a layer for each cut, its vectors read afterwards if ``updates``."""
    last = len(boxes) - 1
    layers = (
        CuboidSelfAttention(units, shape, box, settings, vectors, updates or layer < last)
        for layer, box in enumerate(boxes)
    )
    return Block(units, layers, settings)


def cross_block(units: int, shape: Shape, frames: int, boxes: Sequence[Cuboid], settings: Settings) -> Block:
    """Return a block in which tokens (T, H, W) read a memory of that many frames, a layer for each cut."""
    layers = (CuboidCrossAttention(units, shape, frames, box, settings) for box in boxes)
    return Block(units, layers, settings)


class PatchMerge(nn.Module):
    """Each patch of scale x scale tokens becomes one: laid side by side, normalised, projected."""

    def __init__(self, units: int, outputs: int, scale: int, padding: str) -> None:
        super().__init__()
        self.scale, self.padding = scale, padding
        self.norm = nn.LayerNorm(scale * scale * units)
        self.reduce = nn.Linear(scale * scale * units, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, ⌈H/scale⌉, ⌈W/scale⌉, C') of (B, T, H, W, C)."""
        (samples, frames, height, width, units), scale = x.shape, self.scale
        height, width = -(-height // scale), -(-width // scale)
        x = extend(x, (frames, height * scale, width * scale), self.padding)
        x = x.reshape(samples, frames, height, scale, width, scale, units).transpose(3, 4).flatten(4)
        return self.reduce(self.norm(x))  # type: ignore[no-any-return]


class UpSample(nn.Module):
    """Nearest tokens at a larger height and width, then a 3x3 convolution of every frame."""

    def __init__(self, units: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(units, outputs, 3, padding=1)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Return (B, T, height, width, C') of (B, T, H, W, C)."""
        return per_frame(lambda frames: self.conv(F.interpolate(frames, (height, width))), x)


class PositionEmbedding(nn.Module):
    """A learned vector for each frame and place ("t+hw"), or for each frame, row and column ("t+h+w")."""

    def __init__(self, units: int, shape: Shape, kind: str) -> None:
        super().__init__()
        frames, height, width = shape
        sizes = [(height, width)] if kind == "t+hw" else [(height, 1), (1, width)]
        self.times = nn.Parameter(torch.empty(frames, 1, 1, units))
        self.places = nn.ParameterList(nn.Parameter(torch.empty(*size, units)) for size in sizes)
        for table in self.parameters():
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, height: int, width: int) -> Tensor:
        """Return the sum of the tables, (T, height, width, C), interpolated where made for another size."""
        total: Tensor = self.times
        for table in self.places:
            size = [1 if old == 1 else new for old, new in zip(table.shape, (height, width), strict=False)]
            if list(table.shape[:2]) != size:
                maps = F.interpolate(table.permute(2, 0, 1)[None], size, mode="bilinear", align_corners=False)
                table = maps[0].permute(1, 2, 0)
            total = total + table
        return total


def per_frame(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of frames (N, C, H, W) to those of (B, T, H, W, C)."""
    frames = function(x.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return frames.reshape(*x.shape[:2], *frames.shape[1:])


def initialise(module: nn.Module) -> None:
    """Draw the weights of a linear layer or convolution as the released code does; biases start at zero."""
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, 0.1, "fan_out", "leaky_relu")
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
