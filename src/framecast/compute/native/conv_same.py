"""The native "same" convolution as torch sees it: ``framecast::conv_same``, its gradients, and where it is used.

In a roll-out the same kernels meet many inputs. So they are transformed once, and their gradient is gathered over all
steps as that of transformed kernels, and brought back once, when the last step of backward has added its part. That is
known by a token: transforming gives it, every convolution takes it, and autograd comes back to it last.

A convolution reads several maps as if their channels followed one another, and gives its result in parts whose
gradients it takes as they come. So what a cell convolves, and the gradients of its gates, are joined nowhere.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from framecast.compute.native import gates
from framecast.compute.native.library import Library, all_plain, arrays, find_library, pixel_step, to_channels_last
from framecast.errors import OptionError

KERNELS = (3, 5)
WORTH = 2_000_000
"""Multiplications of the direct convolution from which on the native one is faster, with all that is around it."""
LEAST_CHANNELS = 8
LAST = torch.channels_last
WIDTH = 16
"""Channels of which each of several maps has a multiple, except for 1x1: those of the widest vectors."""


def transform_kernel(library: Library, weight: Tensor, turned: bool) -> Tensor:
    """Return the transformed kernels of weights (O, C, k, k), or those of the gradient by the inputs."""
    outputs, inputs, kernel, _ = weight.shape
    strides = list(weight.stride())
    if turned:
        outputs, inputs, strides[:2] = inputs, outputs, strides[1::-1]
    result = torch.empty(library.call("kernel_size", inputs, outputs, kernel))
    library.call(
        "transform_kernel", weight, (ctypes.c_long * 4)(*strides), int(turned), inputs, outputs, kernel, result
    )
    return result


def convolve(
    library: Library, maps: Sequence[Tensor], kernels: Tensor, outputs: int, kernel: int, bias: Tensor | None = None,
    plus: Tensor | None = None, gate: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Convolve maps (B, C, H, W) side by side with transformed kernels, and add a bias and a map (B, O, H, W).

    With a gate o (B, O, H, W) return σ(o) ⊙ tanh of that.
    """
    batch, channels, height, width = maps[0].shape
    y = torch.empty((batch, outputs, height, width), memory_format=LAST)
    library.call(
        "convolve", arrays(*maps), len(maps), kernels, bias, arrays(plus, gate, y), batch, height, width,
        channels * len(maps), outputs, kernel,
    )  # fmt: skip
    return y


def convolve_gates(
    library: Library, maps: Sequence[Tensor], kernels: Tensor, bias: Tensor | None, c: Tensor, parts: int, kernel: int
) -> tuple[Tensor, ...]:
    """Convolve maps to gates i, f, g and others; return c (B, C, H, W) updated by them, and the others.

    Kernels and bias are of interleaved outputs.
    """
    batch, channels, height, width = maps[0].shape
    outputs = c.shape[1]
    new = torch.empty_like(c, memory_format=LAST)
    others = torch.empty((batch, (parts - 3) * outputs, height, width), memory_format=LAST) if parts > 3 else None
    library.call(
        "convolve_gates", arrays(*maps), len(maps), kernels, bias, parts, arrays(c, new, others), batch, height, width,
        channels * len(maps), parts * outputs, kernel,
    )  # fmt: skip
    return (new,) if others is None else (new, *_split(others, parts - 3))


def _split(x: Tensor, parts: int) -> tuple[Tensor, ...]:
    return (x,) if parts == 1 else x.chunk(parts, 1)


def interleave(x: Tensor, parts: int) -> Tensor:
    """Return x (O, …), the outputs for gates, with WIDTH channels of each gate before the next of the first."""
    return x.reshape(parts, -1, WIDTH, *x.shape[1:]).transpose(0, 1).flatten(0, 2)


def gather(
    library: Library, maps: Sequence[Tensor], gradients: Sequence[Tensor], gathered: Tensor, kernel: int
) -> None:
    """Add the gradient by transformed kernels to ``gathered``, of maps and the gradients of the result's parts."""
    if kernel == 1:
        rows = torch.cat([_pixels(gradient) for gradient in gradients], 1).T
        for x, part in zip(maps, gathered.view(len(rows), -1).chunk(len(maps), 1), strict=True):
            part.addmm_(rows, _pixels(x))
        return
    batch, channels, height, width = maps[0].shape
    library.call(
        "gather", arrays(*maps), len(maps), arrays(*gradients), len(gradients), gathered, batch, height, width,
        channels * len(maps), gradients[0].shape[1] * len(gradients), kernel,
    )  # fmt: skip


def _pixels(x: Tensor) -> Tensor:
    """Return maps (B, C, H, W) as a matrix of their pixels (B H W, C)."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def _readable_maps(maps: Sequence[Tensor], kernel: int) -> Sequence[Tensor]:
    """Return maps as the compiled functions read them: joined where they cannot be read one by one."""
    widths = {x.shape[1] for x in maps}
    if len(maps) > 1 and (len(widths) > 1 or (kernel > 1 and widths.pop() % WIDTH)):
        return (torch.cat([*maps], 1).contiguous(memory_format=LAST),)
    return [to_channels_last(x) for x in maps]


def kernel_gradient(library: Library, gathered: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the gradient by weights of a shape (O, C, k, k)."""
    outputs, inputs, kernel, _ = shape
    if kernel == 1:
        return gathered.view(*shape)
    result = torch.empty(tuple(shape), memory_format=LAST)
    library.call("kernel_gradient", gathered, result, inputs, outputs, kernel)
    return result


class Kernels:
    """Weights, transformed for forward and backward, and their gradient as it is gathered.

    Args:
        library: the compiled functions.
        weight: (O, C, k, k).
    """

    def __init__(self, library: Library, weight: Tensor) -> None:
        self.library, self.weight = library, weight.detach()
        self.forward = transform_kernel(library, self.weight, turned=False)
        self._turned: Tensor | None = None
        self._gathered: Tensor | None = None
        self._task = -1

    def convolve(
        self, maps: Sequence[Tensor], bias: Tensor | None, plus: Tensor | None = None, gate: Tensor | None = None
    ) -> Tensor:
        """Return the convolution of maps side by side, with what is added to it and through a gate, as ``convolve``."""
        outputs, _, kernel, _ = self.weight.shape
        return convolve(self.library, maps, self.forward, outputs, kernel, bias, plus, gate)

    def convolve_turned(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the gradient by the maps side by side, from that of the result in parts."""
        _, inputs, kernel, _ = self.weight.shape
        if self._turned is None:
            self._turned = transform_kernel(self.library, self.weight, turned=True)
        return convolve(self.library, gradients, self._turned, inputs, kernel)

    def gather(self, maps: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Add a step's part to the gradient of this backward pass."""
        # A pass that asks for the gradient by the inputs only leaves its sum behind; the next one begins new.
        task, kernel = torch._C._current_graph_task_id(), self.weight.shape[-1]
        if self._gathered is None or self._task != task:
            self._gathered, self._task = torch.zeros_like(self.forward if kernel > 1 else self.weight), task
        gather(self.library, maps, gradients, self._gathered, kernel)

    def gradient(self) -> Tensor | None:
        """Return the gradient by the weights, of all steps of this backward pass."""
        gathered, self._gathered = self._gathered, None
        if gathered is None or self._task != torch._C._current_graph_task_id():
            return None
        return kernel_gradient(self.library, gathered, self.weight.shape)


class _Transform(torch.autograd.Function):
    """From weights to the token that every convolution with them takes."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, kernels: Kernels) -> Tensor:
        ctx.kernels = kernels
        return weight.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, token: Tensor) -> Any:
        return ctx.kernels.gradient(), None


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, parts: int, token: Tensor, bias: Tensor | None, plus: Tensor | None, *maps: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*maps)
        ctx.kernels = kernels
        return kernels.convolve(maps, bias, plus).chunk(parts, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        kernels: Kernels = ctx.kernels
        maps = ctx.saved_tensors
        by_maps: Sequence[Tensor | None] = [None] * len(maps)
        by_token = by_bias = by_plus = None
        _, _, of_token, of_bias, of_plus, *of_maps = ctx.needs_input_grad
        if of_plus:
            by_plus = gradients[0] if len(gradients) == 1 else torch.cat(gradients, 1)
        gradients = tuple(_readable_maps(gradients, kernels.weight.shape[-1]))
        if any(of_maps):
            by_maps = kernels.convolve_turned(gradients).chunk(len(maps), 1)
        if of_token:
            kernels.gather(maps, gradients)
            by_token = gradients[0].new_zeros(())
        if of_bias:
            by_bias = torch.cat([gradient.sum((0, 2, 3)) for gradient in gradients])
        return None, None, by_token, by_bias, by_plus, *by_maps


def pays(pixels: int, inputs: int, outputs: int, kernel: int) -> bool:
    """Return whether the native convolution is faster than torch's: not where there is little to do."""
    return min(inputs, outputs) >= LEAST_CHANNELS and pixels * inputs * outputs * kernel**2 >= WORTH


class ConvSame:
    """The native convolution, and when to use it.

    Args:
        library: the compiled functions.
    """

    def __init__(self, library: Library) -> None:
        self.library = library

    @staticmethod
    def reads(maps: Sequence[Tensor]) -> bool:
        """Return whether maps are such as it takes one by one."""
        return all_plain(*maps) and not torch.is_autocast_enabled("cpu")

    @staticmethod
    def suits(maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None, plus: Tensor | None, parts: int = 1) -> bool:
        """Return whether it takes these and is faster than torch, which refuses what does not fit together.

        Args:
            maps: (B, C, H, W) each.
            weight: (O, C of all, k, k).
            bias: (O,), or None.
            plus: (B, O / parts, H, W), or None.
            parts: how many times as wide as ``plus`` the result is.
        """
        if not ConvSame.reads([x for x in (*maps, weight, bias, plus) if x is not None]):
            return False
        if torch.compiler.is_exporting() or any(x.dim() != 4 for x in maps):
            return False
        outputs, inputs, rows, kernel = weight.shape
        batch, _, height, width = maps[0].shape
        widths = [x.shape[1] for x in maps]
        if sum(widths) != inputs or rows != kernel:
            return False
        if bias is not None and not (bias.shape == (outputs,) and bias.is_contiguous()):
            return False
        for x, channels in zip(maps, widths, strict=True):
            # A map of one channel is channels last, however its frames lie.
            in_order = channels == 1 or x.is_contiguous(memory_format=LAST)
            if not in_order or x.shape != (batch, channels, height, width):
                return False
        if plus is not None:
            fits = plus.shape == (batch, outputs // parts, height, width) and not outputs % parts
            if not (fits and pixel_step(plus)):
                return False
        if kernel == 1:
            return not torch.compiler.is_compiling()
        return kernel in KERNELS and pays(batch * height * width, inputs, outputs, kernel)

    @staticmethod
    def suits_expose(maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None, o: Tensor, parts: int = 1) -> bool:
        """Return whether it takes a convolution with the gate o: where it takes both alone, for the same bits."""
        return o.numel() >= gates.LEAST and ConvSame.suits(maps, weight, bias, o, parts)

    @staticmethod
    def suits_update(maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None, c: Tensor, parts: int) -> bool:
        """Return whether it takes a convolution and a memory c that the first of its so many parts update."""
        return (
            weight.shape[-1] in KERNELS
            and not c.shape[1] % WIDTH
            and ConvSame.suits_expose(maps, weight, bias, c, parts)
        )

    def convolve(
        self, maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None, plus: Tensor | None,
        memo: MutableMapping[Any, Any] | None, parts: int,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Convolve maps side by side with weights, add ``plus``, and return so many parts of the result.

        The transformed kernels are kept in the memo of a roll-out.
        """
        kernels, token = self._kept(memo, weight, torch.is_grad_enabled(), self._transform)
        maps = _readable_maps(maps, weight.shape[-1])
        if not torch.is_grad_enabled():
            return _split(kernels.convolve(maps, bias, plus), parts)
        return _Convolve.apply(kernels, parts, token, bias, plus, *maps)  # type: ignore[no-any-return, no-untyped-call]

    def expose(
        self,
        o: Tensor,
        maps: Sequence[Tensor],
        weight: Tensor,
        bias: Tensor | None,
        memo: MutableMapping[Any, Any] | None,
    ) -> Tensor:
        """Return σ(o) ⊙ tanh of a convolution, without a gradient."""
        kernels, _ = self._kept(memo, weight, False, self._transform)
        result: Tensor = kernels.convolve(_readable_maps(maps, weight.shape[-1]), bias, gate=o)
        return result

    def update(
        self, c: Tensor, maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None,
        memo: MutableMapping[Any, Any] | None, parts: int,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Return c updated by gates i, f, g, the first parts of a convolution, and the others, without a gradient."""

        def interleaved(weight: Tensor) -> tuple[Tensor, Tensor | None]:
            kernels = transform_kernel(self.library, interleave(weight, parts), turned=False)
            return kernels, None if bias is None else interleave(bias, parts)

        kernels, bias = self._kept(memo, weight, parts, interleaved)
        maps = _readable_maps(maps, weight.shape[-1])
        return convolve_gates(self.library, maps, kernels, bias, c, parts, weight.shape[-1])

    def _transform(self, weight: Tensor) -> tuple[Kernels, Tensor | None]:
        kernels = Kernels(self.library, weight)
        token = _Transform.apply(weight, kernels) if torch.is_grad_enabled() else None  # type: ignore[no-untyped-call]
        return kernels, token

    @staticmethod
    def _kept(memo: MutableMapping[Any, Any] | None, weight: Tensor, use: object, make: Callable[[Tensor], Any]) -> Any:
        """Return what is made of weights for a use, once in a roll-out."""
        if memo is None:
            return make(weight)
        place = id(weight), use
        if place not in memo:
            memo[place] = weight, make(weight)  # it holds the weight too, so no other tensor has its number meanwhile
        return memo[place][1]

    @staticmethod
    def operation(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve as one operation, which the compiler takes as it is."""
        result: Tensor = operation(x, weight, bias)
        return result


@torch.library.custom_op("framecast::conv_same", mutates_args=())
def operation(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve x (B, C, H, W) with weights (O, C, k, k), zeros around it.

    Raises:
        OptionError: they do not fit together, or are not what native code computes.
    """
    tensors = (x, weight) if bias is None else (x, weight, bias)
    fit = x.dim() == 4 and weight.shape == (len(weight), x.shape[1], *2 * weight.shape[-1:])
    fit = fit and weight.shape[-1] in KERNELS and (bias is None or bias.shape == (len(weight),))
    if not fit or any(not tensor.is_cpu or tensor.dtype != torch.float32 for tensor in tensors):
        kinds = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in tensors)
        raise OptionError(
            f"framecast::conv_same got {kinds}, and takes float32 on a processor: x (B, C, H, W), weights (O, C, k, k) "
            "with k of 3 or 5, and a bias (O,); framecast.cells.convolution.conv_same takes all that torch does"
        )
    library = _present_library()
    kernels = transform_kernel(library, weight, turned=False)
    bias = None if bias is None else bias.contiguous()
    return convolve(library, [to_channels_last(x)], kernels, len(weight), weight.shape[-1], bias)


@operation.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], *x.shape[2:])).contiguous(memory_format=LAST)


@torch.library.custom_op("framecast::conv_same_gradients", mutates_args=())
def gradients(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients by x and by weights."""
    library, (outputs, inputs, kernel, _) = _present_library(), weight.shape
    gradient, x = to_channels_last(gradient), to_channels_last(x)
    by_x = convolve(library, [gradient], transform_kernel(library, weight, turned=True), inputs, kernel)
    gathered = torch.zeros(library.call("kernel_size", inputs, outputs, kernel))
    gather(library, [x], [gradient], gathered, kernel)
    return by_x, kernel_gradient(library, gathered, weight.shape)


@gradients.register_fake
def _(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=LAST), torch.empty_like(weight, memory_format=LAST)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    x, weight, bias = inputs
    ctx.save_for_backward(x, weight)
    ctx.has_bias = bias is not None


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    by_x, by_weight = gradients(gradient, *ctx.saved_tensors)
    return by_x, by_weight, gradient.sum((0, 2, 3)) if ctx.has_bias else None


operation.register_autograd(_backward, setup_context=_keep)


def _present_library() -> Library:
    library = find_library()
    assert library is not None, "the operation is used only where the library was found"
    return library
