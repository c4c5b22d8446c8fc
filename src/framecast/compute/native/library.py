"""The compiled functions as Python calls them, tried once before they are trusted."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.profiler import record_function
from torch.utils._python_dispatch import _disable_current_modes

from framecast.compute.native.build import NotNativeError, load_code

TOLERANCE = 1e-4
"""Largest error of the trial, relative to the largest number."""
PLAIN = (Tensor, nn.Parameter)
SHAPES = ((24, 40, 3), (24, 40, 5))
"""Inputs, outputs and kernels of the trial."""


class Library:
    """The compiled functions.

    Args:
        code: as ``load_code`` returns it.
    """

    def __init__(self, code: ctypes.CDLL) -> None:
        self._code = code
        self._functions: dict[str, Any] = {}

    def call(self, name: str, *arguments: Any) -> int:
        """Call framecast_<name> with the addresses of tensors, whole numbers, arrays, and torch's number of threads.

        Torch's profiler sees it as framecast::<name>.
        """
        function = self._functions.get(name) or self._find(name, arguments)
        values = [argument.data_ptr() if isinstance(argument, Tensor) else argument for argument in arguments]
        profiling = torch._C._autograd._profiler_enabled()
        with record_function(f"framecast::{name}") if profiling else nullcontext():
            result: int = function(*values, torch.get_num_threads())
        return result

    def _find(self, name: str, arguments: Sequence[Any]) -> Any:
        """Return the function of a name, told what it takes by what it is given first: whole numbers and addresses."""
        function = self._functions[name] = self._code[f"framecast_{name}"]
        kinds = [ctypes.c_long if isinstance(argument, int) else ctypes.c_void_p for argument in arguments]
        function.argtypes, function.restype = [*kinds, ctypes.c_int], ctypes.c_long
        return function


def all_plain(*tensors: Tensor) -> bool:
    """Return whether tensors hold float32 numbers on the processor, and nobody watches what is done with them.

    Others, such as the tensors without numbers that costs are counted on, and those of ``torch.func`` and
    ``torch.jit.trace``, are for torch.
    """
    if torch.compiler.is_compiling():
        return all(x.is_cpu and x.dtype == torch.float32 for x in tensors)
    watched = torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack()
    watched = watched or torch._C._functorch.peek_interpreter_stack() is not None
    watched = watched or forward_ad._current_level >= 0 or torch._C._is_tracing()
    return not watched and all(type(x) in PLAIN and x.is_cpu and x.dtype == torch.float32 for x in tensors)


def arrays(*maps: Tensor | None) -> ctypes.Array[Any]:
    """Return addresses and pixel steps of maps (B, C, H, W), as the compiled functions take them; None is null."""
    words = [word for x in maps for word in ((0, 0) if x is None else (x.data_ptr(), pixel_step(x)))]
    return (ctypes.c_long * len(words))(*words)


def pixel_step(x: Tensor) -> int:
    """Return the floats between pixels of x (B, C, H, W) whose channels lie side by side, or 0 where they do not."""
    _, channels, height, width = x.shape
    image, channel, row, pixel = x.stride()
    if channel == 1 and pixel >= channels and row == width * pixel and image == height * row:
        return pixel
    return channels if x.is_contiguous(memory_format=torch.channels_last) else 0  # strides of sides of one say nothing


def to_channels_last(x: Tensor) -> Tensor:
    """Return x (B, C, H, W) with the channels of a pixel side by side: itself, or a copy."""
    last = torch.channels_last
    return x if x.is_contiguous(memory_format=last) or pixel_step(x) else x.contiguous(memory_format=last)


@cache
def find_library() -> Library | None:
    """Return the compiled functions, compiled now where they have not been, or None where there can be none."""
    return None if why_not() else _library()


@cache
def why_not() -> str:
    """Return why there can be no native code here, or ""."""
    try:
        # The first to look may count costs on tensors without numbers; the trial needs some.
        with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.device("cpu"), _not_traced():
            _try(_library())
    except NotNativeError as error:
        return str(error)
    return ""


@contextmanager
def _not_traced() -> Iterator[None]:
    """Have what is computed meanwhile left out of a trace of ``torch.jit``, in which sizes are no numbers."""
    trace = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._set_tracing_state(trace)  # type: ignore[attr-defined]


@cache
def _library() -> Library:
    return Library(load_code())


def _try(library: Library) -> None:
    """Refuse a library whose numbers are wrong, as those of a compiler's fault would be.

    Raises:
        NotNativeError: they are.
    """
    from framecast.compute.native.conv_same import convolve, transform_kernel

    for inputs, outputs, kernel in SHAPES:
        x = torch.linspace(-1, 1, 2 * 9 * 11 * inputs).cos().view(2, 9, 11, inputs).permute(0, 3, 1, 2)
        weight = torch.linspace(-2, 2, outputs * inputs * kernel**2).sin().view(outputs, inputs, kernel, kernel)
        expected = F.conv2d(x, weight, padding=kernel // 2)
        found = convolve(library, [x], transform_kernel(library, weight, turned=False), outputs, kernel)
        error = float((found - expected).abs().max() / expected.abs().max())
        if not error < TOLERANCE:
            raise NotNativeError(f"its numbers are wrong by {error:.1e} on this processor")
