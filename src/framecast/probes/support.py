"""The support of a value: the pixels of the past it can depend on, traced through the operations a model runs.

Every tensor carries, for rows and for columns, a boolean matrix of what it depends on; an operation ∘ with the taps
A (which inputs i an output o reads along one axis) turns it into

    S_out[o, p] = ∨_i A[o, i] ∧ S_in[i, p]            p: a row or column of the frame

Convolution, pooling and resampling have their windows as taps, operations by element the identity. An operation that
is not known here counts as reading the whole map, so what is found is never too small; attention to everything,
reading at places the data choose and normalisation over a map are rightly such. No table of kernels is kept: a new
cell is followed through its own code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from framecast.errors import OptionError
from framecast.models.forecaster import Forecaster
from framecast.models.recurrent import RecurrentForecaster
from framecast.probes.layer_outputs import watched

aten = torch.ops.aten
Rule = Callable[[Any, Tensor, int], Tensor]

# Operations that hand on rows and columns as they are.
_SAME = {aten.detach.default, aten.clone.default, aten.alias.default, aten.expand.default, aten._to_copy.default}
# These do so where they leave the last two dimensions alone; the argument at that place names the dimension.
_ALONG = {aten.select.int: 1, aten.unbind.int: 1, aten.unsqueeze.default: 1, aten.split.Tensor: 2}
_SHAPED = {aten.view.default, aten._unsafe_view.default}
# These take the shape of a tensor and none of its values.
_EMPTY = {
    aten.zeros_like.default, aten.ones_like.default, aten.empty_like.default, aten.new_zeros.default,
    aten.new_empty.default, aten.new_ones.default, aten.new_full.default, aten.full_like.default,
}  # fmt: skip


class Support(NamedTuple):
    """What each row and column of a map depends on.

    Attributes:
        rows: (S, h, H) booleans: row of the map, row of the frame, for each of S sources.
        columns: (S, w, W) booleans, likewise.
    """

    rows: Tensor
    columns: Tensor


def trace_supports(model: Forecaster, size: tuple[int, int], steps: int = 1) -> dict[str, Support]:
    """Return what every layer's last output can depend on, without computing a forecast.

    Args:
        model: any forecaster; it is followed as it runs now, so put it into evaluation mode.
        size: height and width of the frames, a multiple of what the model needs.
        steps: frames it sees; each is a source of a recurrent model, the last one first, and all together are the one
            source of a one-shot model, which needs its context.

    Raises:
        ValueError: a size the model would pad, or fewer frames than it needs.
    """
    past = torch.zeros(1, steps, model.in_channels, *size, device=next(model.parameters()).device)
    check_unpadded(model, past)
    follow = _Followed(len(sources_of(model, past)), size)
    with torch.no_grad(), watched(model.layers()) as calls, follow:
        run_sources(model, sources_of(model, past), follow.begin)
    return {name: follow.supports([outputs[-1]])[0] for name, outputs in calls.items()}


def sources_of(model: Forecaster, past: Tensor) -> list[Tensor]:
    """Cut a past (B, T, C, H, W) into what is followed apart: frames of recurrent models, the whole of others."""
    return list(torch.split(past, 1, 1)) if isinstance(model, RecurrentForecaster) else [past]


def run_sources(model: Forecaster, sources: list[Tensor], begin: Callable[[Tensor, int], None]) -> None:
    """Run a model over its sources and call ``begin`` with each, and its number counted from the last, before."""
    if not isinstance(model, RecurrentForecaster):
        begin(sources[0], 0)
        model(sources[0], 1)
        return
    state = None
    for number, frame in enumerate(sources):
        begin(frame, len(sources) - 1 - number)
        state = model.observe(frame, state)


def check_unpadded(model: Forecaster, past: Tensor) -> None:
    """Refuse frames (B, T, C, H, W) that the model would pad: an edge that stands for many pixels has no single place.

    Raises:
        ValueError: the size is not one the model takes as it is; the message names the next larger one.
    """
    height, width = (-(-n // model.multiple) * model.multiple for n in past.shape[-2:])
    if (height, width) != tuple(past.shape[-2:]):
        raise OptionError(
            f"frames of {past.shape[-2]}x{past.shape[-1]} would be padded: take {height}x{width}, which fits the model"
        )


class _Followed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the support of every tensor that is made while it is active."""

    def __init__(self, sources: int, size: tuple[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sources, self.size = sources, size
        self.supports_of = WeakTensorKeyDictionary()

    def begin(self, frame: Tensor, source: int) -> None:
        """Declare a tensor (..., H, W) to be a source."""
        parts = [torch.zeros(self.sources, n, n, dtype=torch.bool) for n in self.size]
        for part in parts:
            part[source] = torch.eye(part.shape[1], dtype=torch.bool)
        self.supports_of[frame] = Support(*parts)

    def supports(self, tensors: Iterable[Tensor]) -> list[Support]:
        """Return what tensors depend on; nothing, where nothing is known."""
        return [
            self.supports_of[t] if t in self.supports_of else self._fill(t, torch.zeros(self.sources, dtype=torch.bool))
            for t in tensors
        ]

    def _fill(self, tensor: Tensor, sources: Tensor) -> Support:
        """Return the whole frame of each source that is set, for a tensor of any shape."""
        sizes = (1, 1, *tensor.shape)[-2:]
        pairs = zip(sizes, self.size, strict=True)
        return Support(*(sources[:, None, None].expand(-1, n, big) for n, big in pairs))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        output = func(*args, **(kwargs or {}))
        inputs = [t for t in _tensors(args) if t in self.supports_of]
        outputs = _tensors((output,))
        if inputs:
            supports = self._propagate(func, args, inputs, outputs)
            for tensor, support in zip(outputs, supports, strict=True):
                self.supports_of[tensor] = support
        return output

    def _propagate(self, func: Any, args: Any, inputs: list[Tensor], outputs: list[Tensor]) -> list[Support]:
        if func in _EMPTY:
            return self.supports([torch.empty_like(tensor) for tensor in outputs])
        if func is aten.cat.default:
            return [self._joined(*args)]
        if func is aten.slice.Tensor:
            return [self._sliced(*args)]
        rule = _RULES.get(func)
        if rule is not None:
            maps = [t for t in inputs if t.ndim > 2]
            return [_any([_apply(_taps(rule, args, outputs[0]), self.supports_of[t]) for t in maps])] * len(outputs)
        like = [self.supports_of[t] for t in inputs]
        if _keeps_maps(func, args, outputs) and all(
            self._broadcasts(one, tensor) for one in like for tensor in outputs
        ):
            return [_any([self._as(one, tensor) for one in like]) for tensor in outputs]
        union = torch.stack([_sources(one) for one in like]).any(0)
        return [self._fill(tensor, union) for tensor in outputs]

    def _broadcasts(self, support: Support, tensor: Tensor) -> bool:
        if tensor.ndim < 2:
            return False
        pairs = zip(support, tensor.shape[-2:], strict=True)
        return all(part.shape[1] in (1, n) for part, n in pairs)

    def _as(self, support: Support, tensor: Tensor) -> Support:
        pairs = zip(support, tensor.shape[-2:], strict=True)
        return Support(*(part.expand(-1, n, -1) for part, n in pairs))

    def _joined(self, tensors: Sequence[Tensor], dim: int = 0) -> Support:
        axis = dim % tensors[0].ndim - (tensors[0].ndim - 2)
        supports = self.supports(tensors)
        parts = [
            torch.cat(part, 1) if axis == number else torch.stack(part).any(0)
            for number, part in enumerate(zip(*supports, strict=True))
        ]
        return Support(*parts)

    def _sliced(
        self, x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
    ) -> Support:
        axis = dim % x.ndim - (x.ndim - 2)
        return Support(*(p[:, start:end:step] if axis == n else p for n, p in enumerate(self.supports_of[x])))


def _keeps_maps(func: Any, args: Any, outputs: list[Tensor]) -> bool:
    """Return whether an operation hands on every row and column of a map (..., H, W) to the same one."""
    if func in _SHAPED:
        return args[0].shape[-2:] == outputs[0].shape[-2:]  # type: ignore[no-any-return]
    if func in _ALONG:
        dim = args[_ALONG[func]] if len(args) > _ALONG[func] else 0
        return dim % max(args[0].ndim, outputs[0].ndim) < max(args[0].ndim, outputs[0].ndim) - 2  # type: ignore[no-any-return]
    # While evaluating, a batch norm is a factor and an offset for each channel.
    still = func is aten.native_batch_norm.default and not args[5]
    return still or func in _SAME or torch.Tag.pointwise in func.tags


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    tensors: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, list | tuple):
            tensors += _tensors(value)
    return tensors


def _sources(support: Support) -> Tensor:
    """Return which sources (S,) anything depends on; of rows that are one and the same, one is enough to look at."""
    rows = support.rows[:, :1] if not support.rows.stride(1) else support.rows
    return rows.any(2).any(1)


def _any(supports: list[Support]) -> Support:
    if len(supports) == 1:
        return supports[0]
    return Support(*(torch.stack(part).any(0) for part in zip(*supports, strict=True)))


def _apply(taps: tuple[Tensor, Tensor], support: Support) -> Support:
    return Support(*((A.float() @ part.float()) > 0 for A, part in zip(taps, support, strict=True)))


def _taps(rule: Rule, args: Any, output: Tensor) -> tuple[Tensor, Tensor]:
    """Return the taps (outputs, inputs) of rows and of columns of an operation with windows."""
    return rule(args, output, 0), rule(args, output, 1)


def _window(output_size: int, input_size: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    first = torch.arange(output_size)[:, None] * stride - padding
    reads = first + torch.arange(kernel)[None] * dilation
    return (reads[:, :, None] == torch.arange(input_size)).any(1)


def _convolution(args: Any, output: Tensor, axis: int) -> Tensor:
    x, weight, _, stride, padding, dilation, transposed = args[:7]
    sizes = output.shape[-2 + axis], x.shape[-2 + axis]
    window = weight.shape[-2 + axis], stride[axis], padding[axis], dilation[axis]
    if transposed:
        return _window(sizes[1], sizes[0], *window).T
    return _window(*sizes, *window)


def _pooling(args: Any, output: Tensor, axis: int) -> Tensor:
    x, kernel, stride = args[0], args[1], (args[2] if len(args) > 2 and args[2] else args[1])
    padding, dilation = (args[3] if len(args) > 3 else (0, 0)), (args[4] if len(args) > 4 else (1, 1))
    sizes = output.shape[-2 + axis], x.shape[-2 + axis]
    return _window(*sizes, kernel[axis], stride[axis], padding[axis], dilation[axis])


def _bilinear(args: Any, output: Tensor, axis: int) -> Tensor:
    input_size, corners = args[0].shape[-2 + axis], args[2]
    eye = torch.eye(input_size)[None]  # one channel per input, resampled along the last dimension
    return F.interpolate(eye, size=output.shape[-2 + axis], mode="linear", align_corners=corners)[0].T > 0


def _padding(args: Any, output: Tensor, axis: int) -> Tensor:
    input_size, pads = args[0].shape[-2 + axis], [*args[1], 0, 0]
    return _window(output.shape[-2 + axis], input_size, 1, 1, pads[2 * (1 - axis)], 1)


def _attention(args: Any, output: Tensor, axis: int) -> Tensor:
    n, window = output.shape[-2 + axis], args[3]
    return _window(n, n, window, 1, window // 2, 1)


_RULES: dict[Any, Rule] = {
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: _pooling,
    aten.upsample_bilinear2d.default: _bilinear,
    aten.upsample_bilinear2d.vec: _bilinear,
    aten.constant_pad_nd.default: _padding,
}


def _register_attention() -> None:
    import framecast.cells.attention  # noqa: F401  # registers the operation

    _RULES[torch.ops.framecast.local_attention.default] = _attention


_register_attention()
