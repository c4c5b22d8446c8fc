"""Receptive fields: the theoretical one, and the effective one by gradients.

    theory       R_l = rows (columns) of the frame that a value of layer l depends on     probes/support.py
    measured     G_l(p) = mean over clips of |∂ Σ_c h_l[c, centre] / ∂ frame[p]|
    effective    the side of a square of as many pixels as have G_l(p) ≥ 0.0455 max G_l

Under the equations of a plain column of L layers with kernel k, R = 1 + L (k - 1); after a 2x2 pooling the same kernel
reaches twice as far, which the theory follows exactly, window by window.

References: Ma et al., MS-LSTM, Applied Soft Computing 147, 2023, doi:10.1016/j.asoc.2023.110731, section 4.3.2. Luo et
al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", NeurIPS 2016,
doi:10.48550/arXiv.1701.04128 (the threshold: within two standard deviations of a Gaussian).
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor

from framecast.cells.native import torch_alone
from framecast.models.forecaster import Forecaster
from framecast.probes.layer_outputs import in_time, watched
from framecast.probes.support import Support, check_unpadded, run_sources, sources_of, trace_supports

THRESHOLD = 0.0455


class LayerField(NamedTuple):
    """The receptive field of a layer.

    Attributes:
        layer: its name.
        stride: pixels of the frame between neighbours of its map.
        sides: the longer side of the field of the map's central value in pixels, in the last frame, the one before,
            ...; 0: it is not seen.
        limit: the longer side of the frame; a field of this side is the whole frame, or cut by it.
    """

    layer: str
    stride: int
    sides: tuple[int, ...]
    limit: int


def receptive_fields(model: Forecaster, size: tuple[int, int] = (256, 256), steps: int = 1) -> list[LayerField]:
    """Return the theoretical receptive field of every layer, from input to output.

    Args:
        model: any forecaster; it is not changed and nothing is computed.
        size: height and width of the frames; larger than the fields, or they are cut.
        steps: frames seen; a one-shot model sees them as one, and needs its context.

    Raises:
        ValueError: a size the model would pad, or too few frames.
    """
    ghost = copy.deepcopy(model).eval().to("meta")
    return [
        LayerField(name, size[0] // support.rows.shape[1], reach(*central_support(support)), max(size))
        for name, support in trace_supports(ghost, size, steps).items()
    ]


def reach(rows: Tensor, columns: Tensor) -> tuple[int, ...]:
    """Return the longer side of each field (S,), from its rows (S, H) and columns (S, W); 0 where nothing is seen."""
    places = [[axis.nonzero().flatten().tolist() for axis in axes] for axes in (rows, columns)]
    sides = ([indices[-1] - indices[0] + 1 if indices else 0 for indices in axes] for axes in places)
    return tuple(map(max, *sides))


def measure_gradients(model: Forecaster, clips: Tensor) -> dict[str, Tensor]:
    """Return how much the central value of every layer answers to each pixel of the past.

    Args:
        model: any forecaster; it is followed as it is, in training or evaluation mode.
        clips: (B, T, C, H, W); pooling passes on one pixel of four, so it takes some clips to see all.

    Returns:
        Layer -> (S, H, W), the mean over clips of the absolute gradient, of each source as in ``trace_supports``.

    Raises:
        ValueError: a size the model would pad, or too few frames.
    """
    check_unpadded(model, clips)
    sources = [source.detach().requires_grad_() for source in sources_of(model, clips)]
    # Filtered products leave traces of rounding where a plain sum has exact zeros.
    with torch_alone(), torch.enable_grad(), watched(model.layers()) as calls:
        run_sources(model, sources, lambda frame, number: None)
        by_layer = {}
        for name, outputs in calls.items():
            last = in_time(outputs[-1], len(clips))
            centre = last[..., last.shape[-2] // 2, last.shape[-1] // 2].sum()
            gradients = torch.autograd.grad(
                centre, sources[::-1], retain_graph=True, allow_unused=True, materialize_grads=True
            )
            by_layer[name] = torch.stack([gradient.abs().sum((1, 2)).mean(0) for gradient in gradients])
    return by_layer


def central_support(support: Support) -> tuple[Tensor, Tensor]:
    """Return the rows (S, H) and columns (S, W) of the frame that the centre of a map can depend on."""
    return support.rows[:, support.rows.shape[1] // 2], support.columns[:, support.columns.shape[1] // 2]


def effective_side(gradient: Tensor) -> float:
    """Return the side in pixels of the effective field of a gradient (H, W); 0 where it is zero everywhere."""
    reached = (gradient >= THRESHOLD * gradient.max()) & (gradient > 0)
    return math.sqrt(int(reached.sum()))
