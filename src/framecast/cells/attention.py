"""Attention over the pixels of a map: inside a sliding window (PrecipLSTM) or a patch (CMS-LSTM).

    out(p) = Σ_t w_t v(t),   w = softmax_t(q(p) · k(t))      without a scale

**Sliding window.** The taps t of a pixel are the pixels at offsets -⌊K/2⌋ … K-1-⌊K/2⌋ in both directions.
A tap outside the image takes part in the softmax with logit 0 and value 0, which is what a zero key and a
zero value give: so the maps are padded with zeros and nothing else is special. The image is cut into tiles
of queries; a tile attends to the tile of keys that covers all its windows, and a mask, the same for all
tiles, hides what lies outside each window. Tiles of keys overlap and would fill the memory, so they are
made again in the backward pass; kept are q, k and v.

**Patches.** The map is cut into s x s patches, and every pixel attends to all pixels of its own patch.

References: Ma, Zhang and Liu, "PrecipLSTM", TGRS 60, 2022, doi:10.1109/TGRS.2022.3198222. Chai et al.,
"CMS-LSTM", ICME 2022, doi:10.48550/arXiv.2102.03586.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.library.custom_op("framecast::local_attention", mutates_args=())
def _attend(query: Tensor, key: Tensor, value: Tensor, window: int, tile: int) -> Tensor:
    return _tiled_attention(query, key, value, window, tile).contiguous()


@_attend.register_fake
def _shape(query: Tensor, key: Tensor, value: Tensor, window: int, tile: int) -> Tensor:
    del key, window, tile
    return query.new_empty((*query.shape[:1], value.shape[1], *query.shape[2:]))


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int, int], output: Tensor) -> None:
    del output
    *maps, ctx.window, ctx.tile = inputs
    ctx.save_for_backward(*maps)


def _again(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    with torch.enable_grad():
        query, key, value = (m.detach().requires_grad_() for m in ctx.saved_tensors)
        attended = _tiled_attention(query, key, value, ctx.window, ctx.tile)
    return *torch.autograd.grad(attended, (query, key, value), gradient), None, None


_attend.register_autograd(_again, setup_context=_keep)


def local_attention(query: Tensor, key: Tensor, value: Tensor, window: int = 30, tile: int = 12) -> Tensor:
    """Attend from each pixel to the window around it; all maps (B, C, H, W).

    One operation to torch, so that it is counted, exported and recomputed as a whole.

    Args:
        query: q.
        key: k.
        value: v.
        window: side K of the window.
        tile: largest side of a tile of queries; it changes time and memory, not the result.
    """
    return _attend(query, key, value, window, tile)  # type: ignore[no-any-return]


def _tiled_attention(query: Tensor, key: Tensor, value: Tensor, window: int, tile: int) -> Tensor:
    height, width = query.shape[2:]
    down, across = math.ceil(height / tile), math.ceil(width / tile)  # number of tiles
    rows, columns = math.ceil(height / down), math.ceil(width / across)  # size of a tile
    query = _tiles(query, (down, across), (rows, columns), 1)
    key = _tiles(key, (down, across), (rows, columns), window)
    value = _tiles(value, (down, across), (rows, columns), window)
    in_rows, in_columns = _in_window(rows, window, query), _in_window(columns, window, query)
    visible = (in_rows[:, None, :, None] & in_columns[None, :, None, :]).flatten(2).flatten(0, 1)
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=1.0)
    attended = attended.reshape(-1, down, across, rows, columns, attended.shape[-1])
    return attended.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)[..., :height, :width]


def _tiles(x: Tensor, counts: tuple[int, int], steps: tuple[int, int], window: int) -> Tensor:
    """Cut (B, C, H, W), padded with zeros, into tiles of tokens (B · tiles, 1, tokens, C).

    Tiles start every ``steps`` pixels and are larger by window - 1, of which half lies before the step.
    The result is contiguous: only so do the fused kernels take it, which never hold all weights at once.
    """
    (down, across), (rows, columns), before = counts, steps, window // 2
    tall, wide = rows + window - 1, columns + window - 1
    bottom = (down + math.ceil(tall / rows) - 1) * rows - before - x.shape[2]
    right = (across + math.ceil(wide / columns) - 1) * columns - before - x.shape[3]
    tokens = F.pad(x, (before, right, before, bottom)).permute(0, 2, 3, 1)
    batch, _, _, channels = tokens.shape
    blocks = tokens.reshape(batch, -1, rows, tokens.shape[2], channels)
    bands = _overlapping(blocks, 1, down, 2, tall)
    blocks = bands.reshape(batch, down, tall, -1, columns, channels).transpose(2, 3)
    tiles = _overlapping(blocks, 2, across, 4, wide)
    return tiles.flatten(3, 4).flatten(0, 2)[:, None]


def _overlapping(blocks: Tensor, dim: int, count: int, inside: int, size: int) -> Tensor:
    """Prolong the first ``count`` blocks along ``dim`` to ``size`` along ``inside`` with what follows each."""
    step = blocks.shape[inside]
    parts = [
        blocks.narrow(dim, shift, count).narrow(inside, 0, min(step, size - shift * step))
        for shift in range(math.ceil(size / step))
    ]
    return torch.cat(parts, inside)


def _in_window(queries: int, window: int, like: Tensor) -> Tensor:
    """Return (queries, queries + window - 1) booleans: along one axis, which keys a query's window holds."""
    first = torch.arange(queries, device=like.device)[:, None]
    key = torch.arange(queries + window - 1, device=like.device)
    return (first <= key) & (key < first + window)


def patch_attention(query: Tensor, key: Tensor, value: Tensor, bands: int, maps: int = 1) -> Tensor:
    """Attend from each pixel to all pixels of its patch; all (B, C, H, maps · W).

    Args:
        query: q.
        key: k.
        value: v.
        bands: height and width, divisible by it, are cut into so many bands, which makes bands² patches.
        maps: so many maps stand side by side, and a patch holds the pixels of all of them at its place.
    """
    height, width = query.shape[2] // bands, query.shape[3] // bands // maps  # size of a patch
    channels = query.shape[1]

    def patches(x: Tensor) -> Tensor:  # (B · patches, 1, tokens, C), contiguous as in _tiles
        x = x.reshape(-1, channels, bands, height, maps, bands, width).permute(0, 2, 5, 3, 4, 6, 1)
        return x.flatten(3, 5).flatten(0, 2).contiguous()[:, None]

    attended = F.scaled_dot_product_attention(patches(query), patches(key), patches(value), scale=1.0)
    attended = attended.reshape(-1, bands, bands, height, maps, width, channels)
    return attended.permute(0, 6, 1, 3, 4, 2, 5).flatten(4).flatten(2, 3)
