"""Cuboid attention: the tokens of a clip are cut into boxes, and attention runs inside each box.

    cut:       an axis of n tokens becomes n/b boxes of b; token p lies at place p mod b of box ⌊p/b⌋ or, dilated,
               at place ⌊p·b/n⌋ of box p mod (n/b); the grid may be shifted, cyclically

Which boxes follow one another decides what a token sees; a few global vectors, which every token reads and which read
every token, may carry what no box holds.

    A(Q; K, V) = softmax(Q Kᵀ/√d + bias of the offset) V                        in every head, d units wide
    tokens:    x ← x + W A(Q x̄; [K x̄, K′ ḡ], [V x̄, V′ ḡ]) + w                  x̄, ḡ: normalised
    vectors:   g ← g + W′ A(Q′ ḡ; K″ x̄, V″ x̄) + w′                              x̄: the tokens of all boxes
    memory m:  x ← x + W A(Q x̄; [K m, K g], [V m, V g]) + w                     m, g: as they are

Tokens are (B, T, H, W, C), vectors (B, K, C), boxes (B, N, V, C): N boxes of V tokens.

Reference: Gao et al., Earthformer: Exploring Space-Time Transformers for Earth System Forecasting,
NeurIPS 2022, doi:10.48550/arXiv.2207.05833.

Differs from the released code: projections of one input are one matrix; what is not used is not built (the
queries and keys of boxes of one token, position biases of offsets that never occur, the update of vectors
nobody reads afterwards, a bias that the normalisation behind it takes away); the vectors overlook ignored
padding wherever it lies (the released mask is right only where nothing is padded); attention to the memory
takes every padding (the released code takes "ignore" only).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framecast.errors import OptionError, UnknownNameError, check_count

Shape = tuple[int, int, int]


class Cuboid(NamedTuple):
    """How tokens (T, H, W) are cut into boxes.

    Attributes:
        size: frames, rows and columns of a box.
        dilated: a box takes tokens at equal distances rather than neighbours.
        shift: how far the grid of boxes is moved along each axis.
        padding: what completes the last boxes: "zeros", "nearest" (the tokens are stretched), or "ignore"
            (zeros that no token sees).
    """

    size: Shape
    dilated: bool = False
    shift: Shape = (0, 0, 0)
    padding: str = "zeros"

    @property
    def volume(self) -> int:
        """Tokens of a box."""
        return math.prod(self.size)

    def clamped(self, shape: Sequence[int]) -> Cuboid:
        """Return the cuboid no longer than tokens (T, H, W), and unshifted along an axis of one box."""
        axes = zip(self.size, shape, self.shift, strict=True)
        (t, dt), (h, dh), (w, dw) = ((min(b, n), 0 if self.dilated or b >= n else s) for b, n, s in axes)
        return self._replace(size=(t, h, w), shift=(dt, dh, dw))

    def cut(self, x: Tensor) -> Tensor:
        """Return the boxes (B, N, V, C) of tokens (B, T, H, W, C), padded to whole boxes."""
        return self._boxes(extend(x, self._padded_shape(x.shape[1:4]), self.padding))

    def join(self, boxes: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the tokens (B, T, H, W, C) of the boxes (B, N, V, C): undo ``cut``.

        Padding "nearest" is undone by the nearest token, too, which need not be the one it came from.
        """
        padded, samples, units = self._padded_shape(shape), boxes.shape[0], boxes.shape[-1]
        counts = (n // b for n, b in zip(padded, self.size, strict=True))
        order = (0, 4, 1, 5, 2, 6, 3, 7) if self.dilated else (0, 1, 4, 2, 5, 3, 6, 7)
        x = boxes.reshape(samples, *counts, *self.size, units).permute(order).reshape(samples, *padded, units)
        if any(self.shift):
            x = torch.roll(x, self.shift, (1, 2, 3))
        return stretch(x, shape) if self.padding == "nearest" else x[:, : shape[0], : shape[1], : shape[2]]

    def padding_mask(self, shape: Sequence[int], device: torch.device | None = None) -> Tensor:
        """Return booleans (N, V): the tokens of the boxes that ``join`` keeps."""
        number = torch.arange(math.prod(self._padded_shape(shape)), dtype=torch.float32, device=device)
        boxes = number.view(1, -1, self.volume, 1)
        return torch.isin(boxes[0, ..., 0].contiguous(), self.join(boxes, shape).contiguous())

    def labels(self, shape: Sequence[int], device: torch.device | None = None) -> Tensor | None:
        """Return integers (N, V), or None where all are equal: tokens see those of equal labels in their box.

        Tokens that a shift brought together from opposite ends differ; ignored padding, labelled -1, sees
        padding only.
        """
        padded = self._padded_shape(shape)
        ignored = self.padding == "ignore" and padded != tuple(shape)
        if not (ignored or any(self.shift)):
            return None
        label = torch.zeros(1, *padded, 1, dtype=torch.long, device=device)
        for axis, (n, s) in enumerate(zip(padded, self.shift, strict=True)):
            wrapped = torch.arange(n, device=device) < s
            label = label + (wrapped.long() << axis).view(-1, *[1] * (3 - axis))
        labels = self._boxes(label)[0, ..., 0]
        return labels.masked_fill(~self.padding_mask(shape, device), -1) if ignored else labels

    def _padded_shape(self, shape: Sequence[int]) -> Shape:
        t, h, w = (-(-n // b) * b for n, b in zip(shape, self.size, strict=True))
        return t, h, w

    def _boxes(self, x: Tensor) -> Tensor:
        if any(self.shift):
            x = torch.roll(x, [-s for s in self.shift], (1, 2, 3))
        pairs = ((n // b, b) for n, b in zip(x.shape[1:4], self.size, strict=True))
        split = [n for count, b in pairs for n in ((b, count) if self.dilated else (count, b))]
        order = (0, 2, 4, 6, 1, 3, 5, 7) if self.dilated else (0, 1, 3, 5, 2, 4, 6, 7)
        x = x.reshape(x.shape[0], *split, x.shape[-1]).permute(order)
        return x.reshape(x.shape[0], -1, self.volume, x.shape[-1])


def extend(x: Tensor, shape: Sequence[int], padding: str) -> Tensor:
    """Return (B, T, H, W, C) as large as ``shape``: stretched if "nearest", else with zeros at the ends."""
    if padding == "nearest":
        return stretch(x, shape)
    t, h, w = (new - old for old, new in zip(x.shape[1:4], shape, strict=True))
    return F.pad(x, (0, 0, 0, w, 0, h, 0, t)) if t or h or w else x


def stretch(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return (B, T, H, W, C) as large as ``shape``, by the nearest token."""
    if tuple(x.shape[1:4]) == tuple(shape):
        return x
    return F.interpolate(x.permute(0, 4, 1, 2, 3), tuple(shape)).permute(0, 2, 3, 4, 1)


Triple = tuple[Tensor, Tensor, Tensor]

PADDINGS = ("ignore", "nearest", "zeros")
DECODER_VECTORS = ("none", "read", "update")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
}


# What decides the shapes of a model must have values even where a model without any is made.
COUNTED = torch.device("cpu")


@dataclass(frozen=True)
class Settings:
    """Options that all layers of a model share; ``earthformer.build`` says what they do.

    Raises:
        ValueError: a count or a share out of range, an unknown name, or a use of global vectors without any.
    """

    heads: int
    padding: str
    resize_positions: bool
    inter_ffn: bool
    activation: str
    gated: bool
    attention_dropout: float
    projection_dropout: float
    ffn_dropout: float
    vectors: int
    decoder_vectors: str
    cross_vectors: bool
    separate_vectors: bool
    vector_self_attention: bool
    vector_ffn: bool

    def __post_init__(self) -> None:
        check_count("heads", self.heads)
        check_count("vectors", self.vectors, 0)
        check_choice("padding", self.padding, PADDINGS)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("use of vectors in the decoder", self.decoder_vectors, DECODER_VECTORS)
        for name in ("attention_dropout", "projection_dropout", "ffn_dropout"):
            rate = getattr(self, name)
            if not 0 <= rate < 1:
                raise OptionError(f"{name} is {rate} and must be from 0 to below 1: use {0 if rate < 0 else 0.9}")
        uses = ["cross_vectors", "separate_vectors", "vector_self_attention", "vector_ffn"]
        uses = [name for name in uses if getattr(self, name)]
        uses += ["decoder_vectors"] if self.decoder_vectors != "none" else []
        if uses and not self.vectors:
            raise OptionError(f"{uses[0]} is set and there are no global vectors: set vectors=8 or drop it")


class RelativeBias(nn.Module):
    """A learned bias for each head and each offset that occurs between a query's and a key's place in a box.

    ``live`` (queries, keys) is True where two of the first places of a box of that size ever meet; of the
    released table, which numbers all offsets in the box, ``table`` holds the rows ``entries``.
    """

    def __init__(self, heads: int, size: Shape, live: Tensor) -> None:
        super().__init__()
        with COUNTED:
            places = torch.cartesian_prod(*(torch.arange(n) for n in size))
            offset = places[: live.shape[0], None] - places[None, : live.shape[1]] + torch.tensor(size) - 1
            spans = [2 * n - 1 for n in size]
            number = (offset[..., 0] * spans[1] + offset[..., 1]) * spans[2] + offset[..., 2]
            self.entries = torch.tensor(sorted(set(number[live].tolist())))
            lookup = torch.searchsorted(self.entries, number).clamp(max=len(self.entries) - 1)
        self.table = nn.Parameter(torch.empty(len(self.entries), heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.lookup: Tensor
        self.register_buffer("lookup", lookup.to(torch.get_default_device()), persistent=False)

    def forward(self, queries: int, keys: int) -> Tensor:
        """Return the biases (heads, queries, keys) of the first places."""
        return self.table[self.lookup[:queries, :keys]].permute(2, 0, 1)


class CuboidSelfAttention(nn.Module):
    """Attention inside each box of tokens (T, H, W), the global vectors as further keys.

    The vectors are updated only where somebody reads them afterwards.
    """

    def __init__(
        self, units: int, shape: Shape, cuboid: Cuboid, settings: Settings, vectors: bool, updates: bool
    ) -> None:
        super().__init__()
        self.settings, self.cuboid, self.updates = settings, cuboid.clamped(shape), vectors and updates
        pairs = _meetings(self.cuboid, shape, self.cuboid, shape, settings.resize_positions)
        self.single_token = not vectors and int(pairs.sum(-1).max()) == 1
        separate = vectors and settings.separate_vectors
        parts = (1 if self.single_token else 3) + (0 if not separate else 3 if self.updates else 1)
        self.norm = nn.LayerNorm(units)
        self.from_tokens = nn.Linear(units, parts * units, bias=False)
        self.to_tokens = nn.Linear(units, units)
        self.dropout = nn.Dropout(settings.projection_dropout)
        if not self.single_token:
            self.bias = RelativeBias(settings.heads, cuboid.size, pairs.any(0))
        if vectors:
            parts = 2 if not self.updates else 6 if separate and settings.vector_self_attention else 3
            self.vector_norm = nn.LayerNorm(units)
            self.from_vectors = nn.Linear(units, parts * units, bias=False)
        if self.updates:
            self.to_vectors = nn.Linear(units, units)

    def forward(self, x: Tensor, vectors: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return tokens (B, T, H, W, C) and vectors (B, K, C) with what attention adds to them."""
        shape, settings = x.shape[1:4], self.settings
        if self.single_token:
            return x + self.dropout(self.to_tokens(self.from_tokens(self.norm(x)))), vectors
        cuboid = self.cuboid.clamped(shape)
        labels = cuboid.labels(shape, x.device)
        bias = _score_bias(self.bias, labels, labels, cuboid.volume, cuboid.volume)
        query, key, value, *more = _heads(self.from_tokens(cuboid.cut(self.norm(x))), settings.heads, x)
        vector_triple = None
        if vectors is not None:
            vector_heads = _heads(self.from_vectors(self.vector_norm(vectors)), settings.heads, x)
            vector_triple = _to_boxes(more[0] if settings.separate_vectors else query, vector_heads[0], vector_heads[1])
            if self.updates:
                vector_tokens = more[1:] if settings.separate_vectors else (key, value)
                vectors = vectors + self._update(vector_heads, vector_tokens[0], vector_tokens[1], labels)
        out = _attend((query, key, value), vector_triple, bias, settings.attention_dropout * self.training)
        return x + self.dropout(self.to_tokens(cuboid.join(_merge(out), shape))), vectors

    def _update(self, vector_heads: list[Tensor], key: Tensor, value: Tensor, labels: Tensor | None) -> Tensor:
        """Return (B, K, C): what the vectors read from the tokens of all boxes and from each other."""
        token_triple = bias = None
        if labels is not None:
            bias = torch.zeros(labels.shape, device=key.device).masked_fill(labels < 0, -math.inf)
            bias = bias.flatten().expand(vector_heads[2].shape[-2], -1)
        if self.settings.vector_self_attention:
            k, v, q = (
                (vector_heads[4], vector_heads[5], vector_heads[3]) if self.settings.separate_vectors else vector_heads
            )
            token_triple = q, k, v
        vector_triple = vector_heads[2], key.transpose(1, 2).flatten(2, 3), value.transpose(1, 2).flatten(2, 3)
        out = _attend(vector_triple, token_triple, bias, self.settings.attention_dropout * self.training)
        return self.dropout(self.to_vectors(_merge(out)))  # type: ignore[no-any-return]


class CuboidCrossAttention(nn.Module):
    """Attention of each box of tokens (T, H, W) to the box of a memory at the same place, all its frames."""

    updates = False

    def __init__(self, units: int, shape: Shape, frames: int, cuboid: Cuboid, settings: Settings) -> None:
        super().__init__()
        vectors = settings.cross_vectors
        height, width = cuboid.size[1:]
        self.settings = settings
        self.cuboid = cuboid._replace(size=(shape[0], height, width))
        self.memory = cuboid._replace(size=(frames, height, width))
        pairs = _meetings(self.cuboid, shape, self.memory, (frames, *shape[1:]), settings.resize_positions)
        self.single_token = not vectors and int(pairs.sum(-1).max()) == 1
        separate = vectors and settings.separate_vectors
        self.from_memory = nn.Linear(units, (1 if self.single_token else 2) * units, bias=False)
        self.to_tokens = nn.Linear(units, units)
        self.dropout = nn.Dropout(settings.projection_dropout)
        if not self.single_token:
            self.norm = nn.LayerNorm(units)
            self.from_tokens = nn.Linear(units, (2 if separate else 1) * units, bias=False)
            self.bias = RelativeBias(settings.heads, (shape[0] + frames, height, width), pairs.any(0))
        if separate:
            self.from_vectors = nn.Linear(units, 2 * units, bias=False)

    def forward(self, x: Tensor, vectors: Tensor | None, memory: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return tokens (B, T, H, W, C) with what they read from memory (B, T', H, W, C), and the vectors."""
        shape, settings = x.shape[1:4], self.settings
        if self.single_token:
            return x + self.dropout(self.to_tokens(self.from_memory(memory)).expand_as(x)), vectors
        queries = _heads(self.from_tokens(self.cuboid.cut(self.norm(x))), settings.heads, x)
        key, value = _heads(self.from_memory(self.memory.cut(memory)), settings.heads, x)
        vector_triple = None
        if vectors is not None:
            project = self.from_vectors if settings.separate_vectors else self.from_memory
            vector_triple = _to_boxes(queries[-1], *_heads(project(vectors), settings.heads, x))
        labels = self.cuboid.labels(shape, x.device), self.memory.labels(memory.shape[1:4], x.device)
        bias = _score_bias(self.bias, *labels, self.cuboid.volume, self.memory.volume)
        out = _attend((queries[0], key, value), vector_triple, bias, settings.attention_dropout * self.training)
        return x + self.dropout(self.to_tokens(self.cuboid.join(_merge(out), shape))), vectors


def check_choice(option: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a name that is not in a table.

    Raises:
        UnknownNameError: the message lists the table and the nearest spelling.
    """
    if value not in choices:
        raise UnknownNameError(option, value, choices)


def _heads(joined: Tensor, heads: int, x: Tensor) -> list[Tensor]:
    """Split (..., V, parts * C) into parts (..., heads, V, d), C being the channels of ``x``."""
    parts = joined.reshape(*joined.shape[:-1], -1, heads, x.shape[-1] // heads)
    return [part.transpose(-2, -3) for part in parts.unbind(-3)]


def _merge(x: Tensor) -> Tensor:
    """Join the heads (..., heads, V, d) to (..., V, C)."""
    return x.transpose(-2, -3).flatten(-2)


def _to_boxes(query: Tensor, key: Tensor, value: Tensor) -> Triple:
    """Give each box of queries (B, N, heads, V, d) the vectors' keys and values (B, heads, K, d)."""
    boxes = query.shape[1]
    return query, *(t[:, None].expand(-1, boxes, -1, -1, -1) for t in (key, value))  # type: ignore[return-value]


def _attend(triple: Triple, second: Triple | None, bias: Tensor | None, dropout: float) -> Tensor:
    """Return (..., heads, V, d): attention to own and other keys at once, each by its own queries.

    Where the queries differ, both lie side by side in 2d channels, and a key has zeros for the other kind.
    """
    query, key, value = triple
    width = query.shape[-1]
    if second is not None:
        other_query, other_key, other_value = second
        if other_query is not query:
            query = torch.cat([query, other_query], -1)
            key, other_key = F.pad(key, (0, width)), F.pad(other_key, (width, 0))
        key, value = torch.cat([key, other_key], -2), torch.cat([value, other_value], -2)
        bias = bias if bias is None else F.pad(bias, (0, other_key.shape[-2]))
    bias = bias if bias is None else bias.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, bias, dropout, scale=width**-0.5)


def _score_bias(
    positions: RelativeBias, queries: Tensor | None, keys: Tensor | None, rows: int, columns: int
) -> Tensor:
    """Return what scores are added, ([N,] heads, rows, columns): -inf where the labels (N, V) differ."""
    bias: Tensor = positions(rows, columns)
    if queries is None or keys is None:
        return bias
    differ = (queries[:, :, None] != keys[:, None])[:, None]
    wall = torch.zeros(differ.shape, device=differ.device).masked_fill(differ, -math.inf)
    return wall.to(bias.dtype) + bias


def _meetings(queries: Cuboid, shape: Sequence[int], keys: Cuboid, key_shape: Sequence[int], any_size: bool) -> Tensor:
    """Return booleans (N, V, V'): the kept queries and the keys that meet in each box; all if ``any_size``."""
    with COUNTED:
        pairs = queries.padding_mask(shape)[:, :, None].expand(-1, -1, keys.volume)
        labels, key_labels = queries.labels(shape), keys.labels(key_shape)
    if labels is not None and key_labels is not None:
        pairs = pairs & (labels[:, :, None] == key_labels[:, None])
    return torch.ones_like(pairs) if any_size else pairs
