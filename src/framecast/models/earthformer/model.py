"""Earthformer: a pyramid of cuboid attention that forecasts all frames at once.

An encoder reads the past at several scales; a decoder starts from one query for each future frame and place
and reads the encoder's memory of every scale, the coarsest first.

    x = entry(past) + positions;      m₀, g₀ = encoder₀(x, g);      mₗ, gₗ = encoderₗ(merge(mₗ₋₁), Gₗ gₗ₋₁ + γₗ)
    z = Z positions′ + ζ;             z ← decoderₗ(up(z), mₗ, gₗ)   for l = L-1 … 0, up from the second on
    forecast = head(exit(z))

The entry is 3x3 convolutions, each with GroupNorm and LeakyReLU, then merged patches; the exit mirrors it. An
encoder level is blocks of self-attention, a decoder level blocks of self- and cross-attention in turn (the
very first self-attention left out). A pattern names the boxes of the attention layers that follow one another in a
block.

Reference: Gao et al., Earthformer: Exploring Space-Time Transformers for Earth System Forecasting,
NeurIPS 2022, doi:10.48550/arXiv.2207.05833.

Differs from the released code: a longer horizon is rolled in blocks fed with the forecasts before; position
tables can be interpolated to other frame sizes; any number may stand in a pattern's name; weights without
effect are not built.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from framecast.errors import OptionError, UnknownNameError, check_count
from framecast.models.conditions import block_width
from framecast.models.earthformer.attention import Cuboid, Settings, Shape, check_choice, stretch
from framecast.models.earthformer.blocks import (
    GROUPS,
    DecoderLevel,
    EncoderLevel,
    Grow,
    PositionEmbedding,
    Shrink,
    Stage,
    check_units,
    initialise,
    stages_of,
)
from framecast.models.one_shot import OneShotForecaster

Pattern = Callable[..., list[Cuboid]]


def _axial(shape: Shape) -> list[Cuboid]:
    t, h, w = shape
    return [Cuboid((t, 1, 1)), Cuboid((1, h, 1)), Cuboid((1, 1, w))]


def _divided(shape: Shape) -> list[Cuboid]:
    t, h, w = shape
    return [Cuboid((t, 1, 1)), Cuboid((1, h, w))]


def _video_swin(shape: Shape, frames: int, width: int) -> list[Cuboid]:
    p, m = min(frames, shape[0]), min(width, *shape[1:])
    return [Cuboid((p, m, m)), Cuboid((p, m, m), shift=(p // 2, m // 2, m // 2))]


def _spatial_lg(shape: Shape, width: int) -> list[Cuboid]:
    if max(shape[1:]) <= width:
        return _divided(shape)
    box = (1, width, width)
    return [Cuboid((shape[0], 1, 1)), Cuboid(box), Cuboid(box, dilated=True)]


def _axial_space_dilate(shape: Shape, parts: int) -> list[Cuboid]:
    t, h, w = shape
    parts = min(parts, h, w)
    boxes = (1, h // parts, 1), (1, 1, w // parts)
    return [Cuboid((t, 1, 1)), *(Cuboid(box, dilated) for box in boxes for dilated in (True, False))]


def _cross(shape: Shape, height: int, width: int, kinds: int = 1) -> list[Cuboid]:
    if height != width:
        raise OptionError(f"cross-attention takes square boxes: use cross_{height}x{height}, not {height}x{width}")
    k = min(width, *shape[1:])
    box = (1, k, k)
    return [Cuboid(box), Cuboid(box, dilated=True), Cuboid(box, shift=(0, k // 2, k // 2))][:kinds]


SELF_PATTERNS: dict[str, Pattern] = {
    "axial": _axial,
    "divided_st": _divided,
    "full": lambda shape: [Cuboid(shape)],
    "video_swin_PxM": _video_swin,
    "spatial_lg_M": _spatial_lg,
    "axial_space_dilate_K": _axial_space_dilate,
}
CROSS_PATTERNS: dict[str, Pattern] = {
    "cross_KxK": _cross,
    "cross_KxK_lg": lambda shape, height, width: _cross(shape, height, width, 2),
    "cross_KxK_heter": lambda shape, height, width: _cross(shape, height, width, 3),
}


def level_boxes(
    option: str, names: str | Sequence[str], table: dict[str, Pattern], shapes: Sequence[Shape], padding: str
) -> list[list[Cuboid]]:
    """Return the cuts of each level by the name of its pattern."""
    names = [names] * len(shapes) if isinstance(names, str) else names
    check_levels(option, names, len(shapes))
    patterns = (_pattern(name, table, shape) for name, shape in zip(names, shapes, strict=True))
    return [[cuboid._replace(padding=padding) for cuboid in cuboids] for cuboids in patterns]


def _pattern(name: str, table: dict[str, Pattern], shape: Shape) -> list[Cuboid]:
    for template, pattern in table.items():
        if match := re.fullmatch(re.sub("[A-Z]", r"([1-9]\\d*)", template), name):
            return pattern(shape, *map(int, match.groups()))
    raise UnknownNameError("pattern", name, table)


def check_levels(option: str, values: Sequence[object], levels: int) -> None:
    """Refuse an option that has not one entry for each level.

    Raises:
        ValueError: it has more or fewer, or there are no levels.
    """
    if not levels:
        raise OptionError("encoder_depths is empty: give an entry for at least one level, such as (4, 4)")
    if len(values) != levels:
        raise OptionError(
            f"{option} has length {len(values)} and encoder_depths {levels}: both have an entry for every level, so "
            f"give {option} {levels} entries"
        )


POSITIONS = ("t+h+w", "t+hw")
QUERIES = ("last", "mean", "nearest", "positions")


class Earthformer(OneShotForecaster):
    """Cuboid attention for clips of one length and size; the defaults are the released ones for Moving MNIST.

    Args:
        in_channels: channels of the frames it takes.
        out_channels: channels of the frames it gives; where they differ it forecasts one block only.
        context: number of past frames it sees.
        horizon: number of frames it forecasts at once.
        size: height and width of the frames, or one side of both.
        base_units: channels of a token at the finest level; every level below has twice as many.
        heads: attention heads.
        encoder_depths: blocks of each level of the encoder, the finest first.
        decoder_depths: blocks of each level of the decoder.
        encoder_patterns: a name of ``SELF_PATTERNS`` (``earthformer_patterns.py``), numbers in place of the capitals,
            or one for each level.
        decoder_patterns: the same for the decoder's self-attention.
        cross_patterns: a name of ``CROSS_PATTERNS``, or one for each level.
        entry_scale: how many times coarser than pixels the finest tokens are.
        entry_convs: convolutions of the entry.
        exit_convs: convolutions of the exit.
        entry_stages: (channels, scale, convolutions) of each stage of a longer entry, which the exit mirrors,
            in place of the three options above; the last stage has ``base_units`` channels.
        positions: "t+hw", a vector for each frame and place, or "t+h+w", for each frame, row and column.
        decoder_positions: positions at each level of the decoder.
        resize_positions: take frames of other sizes, with interpolated positions.
        queries: "positions", or made of the last memory's frames: "last", "mean", "nearest" (in time).
        padding: what completes the boxes of attention: "zeros", "nearest" (stretched) or "ignore".
        first_self_attention: the decoder starts with self-attention, too.
        inter_ffn: a feed-forward layer after each attention layer, not only after a block's last.
        activation: "gelu", "leaky" or "relu", in the feed-forward layers.
        gated: gated feed-forward layers.
        attention_dropout: dropout of attention weights.
        projection_dropout: dropout of what attention adds.
        ffn_dropout: dropout within and after feed-forward layers.
        vectors: number of global vectors.
        decoder_vectors: what the decoder's self-attention does with them: "none", "read" or "update".
        cross_vectors: cross-attention reads them.
        separate_vectors: own projections for what passes between tokens and vectors.
        vector_self_attention: the vectors read each other, too.
        vector_ffn: feed-forward layers for the vectors.

    Raises:
        ValueError: a value that does not fit; the message names the rule and the nearest value that does.
        UnknownNameError: an unknown pattern or choice.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int | None = None,
        context: int = 10,
        horizon: int = 10,
        size: int | Sequence[int] = (64, 64),
        base_units: int = 64,
        heads: int = 4,
        encoder_depths: Sequence[int] = (4, 4),
        decoder_depths: Sequence[int] = (4, 4),
        encoder_patterns: str | Sequence[str] = "axial",
        decoder_patterns: str | Sequence[str] = "axial",
        cross_patterns: str | Sequence[str] = "cross_1x1",
        entry_scale: int = 2,
        entry_convs: int = 2,
        exit_convs: int = 1,
        entry_stages: Sequence[Sequence[int]] | None = None,
        positions: str = "t+hw",
        decoder_positions: bool = False,
        resize_positions: bool = False,
        queries: str = "positions",
        padding: str = "zeros",
        first_self_attention: bool = False,
        inter_ffn: bool = True,
        activation: str = "gelu",
        gated: bool = False,
        attention_dropout: float = 0.1,
        projection_dropout: float = 0.1,
        ffn_dropout: float = 0.1,
        vectors: int = 0,
        decoder_vectors: str = "none",
        cross_vectors: bool = False,
        separate_vectors: bool = False,
        vector_self_attention: bool = False,
        vector_ffn: bool = False,
        extra: int = 0,
    ) -> None:
        super().__init__()
        settings = Settings(
            heads=heads,
            resize_positions=resize_positions,
            padding=padding,
            inter_ffn=inter_ffn,
            activation=activation,
            gated=gated,
            attention_dropout=attention_dropout,
            projection_dropout=projection_dropout,
            ffn_dropout=ffn_dropout,
            vectors=vectors,
            decoder_vectors=decoder_vectors,
            cross_vectors=cross_vectors,
            separate_vectors=separate_vectors,
            vector_self_attention=vector_self_attention,
            vector_ffn=vector_ffn,
        )
        self.in_channels = in_channels
        self.out_channels = in_channels if out_channels is None else out_channels
        self.context, self.block, self.resize_positions = context, horizon, resize_positions
        counts = {"in_channels": in_channels, "out_channels": self.out_channels}
        for name, count in {**counts, "context": context, "horizon": horizon}.items():
            check_count(name, count)
        check_choice("kind of positions", positions, POSITIONS)
        check_choice("kind of queries", queries, QUERIES)
        levels = len(encoder_depths)
        check_levels("decoder_depths", decoder_depths, levels)
        for depth in (*encoder_depths, *decoder_depths):
            check_count("an entry of encoder_depths or decoder_depths", depth)
        stages = stages_of(entry_stages) or [Stage(base_units, entry_scale, entry_convs, exit_convs, GROUPS)]
        check_units(base_units, heads, stages)
        size = (size, size) if isinstance(size, int) else size
        if len(size) != 2:
            raise OptionError(f"size is {tuple(size)} and must be (height, width), such as (64, 64)")
        scale = math.prod(stage.scale for stage in stages)
        self.size, self.scale = (size[0], size[1]), scale << (levels - 1)
        self._check_size(*self.size)

        shapes = [_coarser((context, *self.size), scale << level) for level in range(levels)]
        boxes = level_boxes("encoder_patterns", encoder_patterns, SELF_PATTERNS, shapes, padding)
        decoder_boxes = level_boxes("decoder_patterns", decoder_patterns, SELF_PATTERNS, shapes, padding)
        cross_boxes = level_boxes("cross_patterns", cross_patterns, CROSS_PATTERNS, shapes, padding)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level, (shape, depth, crosses) in enumerate(zip(shapes, encoder_depths, decoder_depths, strict=True)):
            units, coarsest = base_units << level, level == levels - 1
            decoder = DecoderLevel(
                units,
                (horizon, *shape[1:]),
                context,
                decoder_boxes[level],
                cross_boxes[level],
                crosses - (coarsest and not first_self_attention),
                crosses,
                settings,
                coarsest,
                positions if decoder_positions else "",
            )
            read = decoder.vectors_read or not coarsest
            self.encoder.append(EncoderLevel(units, shape, boxes[level], depth, settings, level == 0, read))
            self.decoder.append(decoder)

        self.positions = PositionEmbedding(base_units, shapes[0], positions)
        self.queries: PositionEmbedding | str = queries
        if queries == "positions":
            self.queries = PositionEmbedding(units, (horizon, *shapes[-1][1:]), positions)
        self.query = nn.Linear(units, units)
        self.entry, self.exit, width = (
            nn.Sequential(),
            nn.ModuleList(),
            block_width(in_channels, extra, context, horizon),
        )
        for stage in stages:
            self.entry.append(Shrink(width, stage, padding))
            width = stage.units
        for stage in reversed(stages):
            self.exit.append(Grow(width, stage))
            width = stage.units
        self.head = nn.Linear(width, self.out_channels)
        self.exit_scales = [math.prod(stage.scale for stage in stages[:i]) for i in reversed(range(len(stages)))]
        self.apply(initialise)
        self.vectors = nn.Parameter(torch.empty(vectors, base_units)) if vectors else None
        if self.vectors is not None:
            nn.init.trunc_normal_(self.vectors, std=0.02)

    def layers(self) -> dict[str, nn.Module]:
        """Return the entry, the levels of the encoder and the decoder, the stages of the exit, the head."""
        encoder = {f"encoder{level}": module for level, module in enumerate(self.encoder)}
        decoder = {f"decoder{level}": module for level, module in enumerate(self.decoder)}
        stages = {f"exit{stage}": module for stage, module in enumerate(self.exit)}
        return {"entry": self.entry, **encoder, **dict(reversed(decoder.items())), **stages, "head": self.head}

    def fit_size(self, frames: Tensor) -> Tensor:
        """Return the frames as they are.

        Raises:
            ValueError: another size than the model's without ``resize_positions``, or one too small.
        """
        self._check_size(*frames.shape[-2:])
        return frames

    def forecast_block(self, frames: Tensor) -> Tensor:
        """Forecast (B, horizon, C', H, W) from (B, context, C, H, W)."""
        x = self.entry(frames.permute(0, 1, 3, 4, 2))
        x = x + self.positions(*x.shape[2:4])
        vectors = None if self.vectors is None else self.vectors.repeat(len(x), 1, 1)
        memories = []
        for encoder in self.encoder:
            x, vectors = encoder(x, vectors)
            memories.append((x, vectors))
        z = self._queries(x)
        for decoder, memory in zip(reversed(self.decoder), reversed(memories), strict=True):
            z = decoder(z, *memory)
        for stage, scale in zip(self.exit, self.exit_scales, strict=True):
            z = stage(z, *_coarser(frames.shape[-3:], scale)[1:])
        return self.head(z).permute(0, 1, 4, 2, 3)  # type: ignore[no-any-return]

    def _queries(self, memory: Tensor) -> Tensor:
        """Return the decoder's first tokens (B, horizon, H, W, C), of the coarsest memory's size."""
        shape = (len(memory), self.block, *memory.shape[2:])
        if isinstance(self.queries, PositionEmbedding):
            tokens = self.queries(*memory.shape[2:4])
        elif self.queries == "nearest":
            tokens = stretch(memory, shape[1:4])
        else:
            tokens = memory[:, -1:] if self.queries == "last" else memory.mean(1, keepdim=True)
        return self.query(tokens).expand(shape)  # type: ignore[no-any-return]

    def _check_size(self, height: int, width: int) -> None:
        if (height, width) != self.size and not self.resize_positions:
            raise OptionError(
                f"frames are {height}x{width} and this model was built for {self.size[0]}x{self.size[1]}: create "
                f"it with size=({height}, {width}), or with resize_positions=True to interpolate its positions"
            )
        least = self.scale + 1
        if min(height, width) < least:
            raise OptionError(
                f"frames are {height}x{width} and the coarsest level, {self.scale} times coarser, needs at least "
                f"2x2 tokens: use {max(height, least)}x{max(width, least)} or more, or fewer levels"
            )


build_earthformer = Earthformer


def _coarser(shape: Sequence[int], scale: int) -> Shape:
    """Return (T, ⌈H/scale⌉, ⌈W/scale⌉)."""
    return shape[0], -(-shape[1] // scale), -(-shape[2] // scale)
