"""The levels of Earthformer's encoder and decoder, and the stages of its entry and exit.

Reference: Gao et al., Earthformer: Exploring Space-Time Transformers for Earth System Forecasting,
NeurIPS 2022, doi:10.48550/arXiv.2207.05833.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from framecast.errors import check_count
from framecast.models.cuboid import Cuboid, Shape
from framecast.models.cuboid_attention import Settings
from framecast.models.cuboid_blocks import PatchMerge, PositionEmbedding, UpSample, cross_block, per_frame, self_block

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
                x, told = self.selves[step](x, vectors if self.reads else None)
                vectors = told if self.updates else vectors
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
            raise ValueError(f"{tuple(stage)} in entry_stages must be (channels, scale, convolutions), as (64, 2, 2)")
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
            raise ValueError(
                f"the entry has {stage.units} channels (base_units={units}) and its GroupNorm needs a multiple of "
                f"{factor}: use {max(factor, round(stage.units / factor) * factor)}"
            )
    if stages[-1].units != units:
        raise ValueError(
            f"entry_stages end with {stages[-1].units} channels and the encoder starts with base_units={units}: "
            f"use base_units={stages[-1].units}"
        )
    if units % heads:
        fits = [n for n in range(1, units + 1) if units % n == 0]
        nearest = min(fits, key=lambda n: abs(n - heads))
        raise ValueError(f"heads is {heads} and must divide base_units={units}: use {nearest}")
