"""The blocks of Earthformer: feed-forward layers, merging, up-sampling, positions, and the levels made of them.

    feed-forward: x ← x + W₂ φ(W₁ x̄ + w₁) + w₂            x̄: normalised; gated: φ(G x̄ + γ) ⊙ (W₁ x̄ + w₁)

Tokens are (B, T, H, W, C).

Reference: Gao et al., Earthformer: Exploring Space-Time Transformers for Earth System Forecasting,
NeurIPS 2022, doi:10.48550/arXiv.2207.05833.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framecast.errors import OptionError, check_count
from framecast.models.earthformer.attention import (
    ACTIVATIONS,
    Cuboid,
    CuboidCrossAttention,
    CuboidSelfAttention,
    Settings,
    Shape,
    extend,
)


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


GROUPS = 16


class Stage(NamedTuple):
    """A stage of the entry, which the exit undoes: channels, scale, 3x3 convolutions there and back, groups."""

    units: int
    scale: int
    convs: int
    exit_convs: int
    groups: int


class Shrink(nn.Module):
    """A stage of the entry: 3x3 convolutions of every frame, then patches merged."""

    def __init__(self, inputs: int, stage: Stage, padding: str) -> None:
        super().__init__()
        self.convs = _convs(inputs, stage.units, stage.convs, stage.groups)
        self.merge = PatchMerge(stage.units, stage.units, stage.scale, padding)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, ⌈H/scale⌉, ⌈W/scale⌉, C') of (B, T, H, W, C)."""
        return self.merge(per_frame(self.convs, x))  # type: ignore[no-any-return]


class Grow(nn.Module):
    """A stage of the exit: up-sampling, then 3x3 convolutions of every frame."""

    def __init__(self, inputs: int, stage: Stage) -> None:
        super().__init__()
        self.up = UpSample(inputs, inputs)
        self.convs = _convs(inputs, stage.units, stage.exit_convs, stage.groups)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Return (B, T, height, width, C') of (B, T, H, W, C)."""
        return per_frame(self.convs, self.up(x, height, width))


class EncoderLevel(nn.Module):
    """Blocks of self-attention at one scale; below the first level, tokens and vectors are merged before.

    The last block updates the global vectors only if somebody reads them.
    """

    def __init__(
        self,
        units: int,
        shape: Shape,
        boxes: Sequence[Cuboid],
        depth: int,
        settings: Settings,
        first: bool,
        vectors_read: bool,
    ) -> None:
        super().__init__()
        vectors = settings.vectors > 0
        self.merge = None if first else PatchMerge(units // 2, units, 2, settings.padding)
        self.vector_merge = nn.Linear(units // 2, units) if vectors and not first else None
        self.blocks = nn.ModuleList(
            self_block(units, shape, boxes, settings, vectors, vectors_read or block < depth - 1)
            for block in range(depth)
        )

    def forward(self, x: Tensor, vectors: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the memory of this scale: tokens (B, T, H, W, C) and vectors (B, K, C) or None."""
        x = x if self.merge is None else self.merge(x)
        vectors = vectors if vectors is None or self.vector_merge is None else self.vector_merge(vectors)
        for block in self.blocks:
            x, vectors = block(x, vectors)
        return x, vectors


class DecoderLevel(nn.Module):
    """Blocks of self- and cross-attention in turn at one scale, after up-sampling to it.

    Where there is one self-attention less, the first is left out. The coarsest level is not up-sampled to.
    """

    def __init__(
        self,
        units: int,
        shape: Shape,
        frames: int,
        boxes: Sequence[Cuboid],
        cross_boxes: Sequence[Cuboid],
        selves: int,
        crosses: int,
        settings: Settings,
        coarsest: bool,
        positions: str,
    ) -> None:
        super().__init__()
        self.reads, self.updates = settings.decoder_vectors != "none", settings.decoder_vectors == "update"
        self.cross_reads = settings.cross_vectors
        self.up = None if coarsest else UpSample(2 * units, units)
        self.positions = PositionEmbedding(units, shape, positions) if positions and not coarsest else None
        updates = [self.updates and (self.cross_reads or block < selves - 1) for block in range(selves)]
        self.selves = nn.ModuleList(self_block(units, shape, boxes, settings, self.reads, update) for update in updates)
        self.crosses = nn.ModuleList(cross_block(units, shape, frames, cross_boxes, settings) for _ in range(crosses))

    @property
    def vectors_read(self) -> bool:
        """Whether the global vectors that enter have any effect."""
        return self.cross_reads or (self.reads and len(self.selves) > 0)

    def forward(self, x: Tensor, memory: Tensor, vectors: Tensor | None) -> Tensor:
        """Return (B, T', H, W, C) from coarser tokens, memory (B, T, H, W, C) and vectors (B, K, C)."""
        height, width = memory.shape[2:4]
        x = x if self.up is None else self.up(x, height, width)
        x = x if self.positions is None else x + self.positions(height, width)
        for step, cross in enumerate(self.crosses, len(self.selves) - len(self.crosses)):
            if step >= 0:
                x, new_vectors = self.selves[step](x, vectors if self.reads else None)
                vectors = new_vectors if self.updates else vectors
            x, _ = cross(x, vectors if self.cross_reads else None, memory)
        return x


def _convs(inputs: int, outputs: int, count: int, groups: int) -> nn.Sequential:
    """Return 3x3 convolutions with GroupNorm and LeakyReLU; groups of one channel would take a bias away."""
    layers: list[nn.Module] = []
    for i in range(count):
        conv = nn.Conv2d(outputs if i else inputs, outputs, 3, padding=1, bias=groups != outputs)
        layers += [conv, nn.GroupNorm(groups, outputs), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


def stages_of(entry_stages: Sequence[Sequence[int]] | None) -> list[Stage]:
    """Return the stages of an entry (channels, scale, convolutions), the exit with as many convolutions as the entry.

    Raises:
        ValueError: a stage of other than three numbers.
    """
    stages = []
    for stage in entry_stages or ():
        if len(stage) != 3:
            raise OptionError(f"{tuple(stage)} in entry_stages must be (channels, scale, convolutions), as (64, 2, 2)")
        units, scale, convs = stage
        stages.append(Stage(units, scale, convs, convs, max(1, units // 4)))
    return stages


def check_units(units: int, heads: int, stages: Sequence[Stage]) -> None:
    """Refuse channels that no head, group or stage can share evenly.

    Raises:
        ValueError: the message names the nearest number that fits.
    """
    for stage in stages:
        check_count("channels of the entry", stage.units)
        check_count("scale of the entry", stage.scale)
        check_count("convolutions of the entry", stage.convs)
        check_count("convolutions of the exit", stage.exit_convs, 0)
        if stage.units % stage.groups:
            factor = GROUPS if stage.groups == GROUPS else 4
            raise OptionError(
                f"the entry has {stage.units} channels (base_units={units}) and its GroupNorm needs a multiple of "
                f"{factor}: use {max(factor, round(stage.units / factor) * factor)}"
            )
    if stages[-1].units != units:
        raise OptionError(
            f"entry_stages end with {stages[-1].units} channels and the encoder starts with base_units={units}: "
            f"use base_units={stages[-1].units}"
        )
    if units % heads:
        fits = [n for n in range(1, units + 1) if units % n == 0]
        nearest = min(fits, key=lambda n: abs(n - heads))
        raise OptionError(f"heads is {heads} and must divide base_units={units}: use {nearest}")
