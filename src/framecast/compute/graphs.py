"""Graphs of CUDA kernels: recorded once for tensors of one shape, then launched together.

A recorded graph reads and writes memory at fixed places. So inputs are copied to where the recording had them, outputs
are copied out, and weights must stay where they are; a graph of weights that have moved is recorded anew. What changes
from step to step, such as which steps see the truth, enters as a tensor.

Reference: "CUDA semantics, CUDA graphs" in the documentation of torch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

log = logging.getLogger(__name__)

MOST_SHAPES = 8
"""Graphs that are kept for each function; each keeps its memory."""
Loss = Callable[..., Tensor]
_replaying: ContextVar[bool] = ContextVar("replaying", default=False)


def can_capture(device: torch.device) -> bool:
    """Return whether kernels of a device can be recorded."""
    return device.type == "cuda"


class _LossOfTensors(nn.Module):
    """A loss as a module of tensors alone, which is what torch records."""

    def __init__(self, model: nn.Module, loss: Loss, names: tuple[str, ...], dtype: torch.dtype | None) -> None:
        super().__init__()
        self.model, self.loss, self.names, self.dtype = model, loss, names, dtype

    def forward(self, *tensors: Tensor) -> Tensor:
        # A cast that autocast remembers would be one of the warm-up and not of the recording.
        enabled = self.dtype is not None
        with torch.autocast(tensors[0].device.type, self.dtype, enabled=enabled, cache_enabled=False):
            return self.loss(**dict(zip(self.names, tensors, strict=True)))


class CapturedLoss:
    """The loss of a training step and its gradients, recorded for batches of one shape.

    Args:
        model: the model that learns, on its device and in the precision of the training.
        loss: the loss of a batch, given tensors by name.
        example: a batch of the shape to record; its numbers do not matter.
        dtype: of autocast, or None.
        accumulated: whether gradients of several batches are added up.

    Raises:
        RuntimeError: something in it cannot be recorded.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, example: Mapping[str, Tensor], dtype: torch.dtype | None, accumulated: bool
    ) -> None:
        self.loss, self.shapes = loss, _shapes(example)
        training, buffers = model.training, [buffer.clone() for buffer in model.buffers()]
        module = _LossOfTensors(model, loss, tuple(example), dtype).train()
        with _kept_random_state(next(iter(example.values())).device):
            self.graph = make_graph(module, tuple(example.values()))
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)  # warming up moves the running means of normalisations
        model.train(training)
        self.hooks: list[Any] = []
        if accumulated:
            # A weight without a gradient takes what it is given as its own, and the next replay would write into that.
            for weight in model.parameters():
                if weight.requires_grad:
                    self.hooks.append(weight.register_hook(torch.clone))  # type: ignore[no-untyped-call]

    def __call__(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of a batch; one of another shape is computed as it is."""
        if _shapes(batch) != self.shapes:
            return self.loss(**batch)
        loss: Tensor = self.graph(*batch.values())
        return loss.clone()

    def close(self) -> None:
        """Take the hooks off the model, which outlives its training."""
        for hook in self.hooks:
            hook.remove()


def make_graph(module: nn.Module, example: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """Return a module whose forward and backward passes are recorded for tensors like these."""
    with warnings.catch_warnings():
        # torch warms up in a stream of its own, and no gradient is accumulated there.
        warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match")
        graph: Any = torch.cuda.make_graphed_callables(module, example, allow_unused_input=True)
    return cast(Callable[..., Tensor], graph)


def record(function: Callable[..., Any], arguments: list[Any]) -> Callable[..., Any]:
    """Return a function that replays another, without gradients, for tensors like these arguments."""
    kept = [argument.clone() if isinstance(argument, Tensor) else argument for argument in arguments]
    graph = torch.cuda.CUDAGraph()
    # Other threads, such as those that pin memory for a loader, may allocate meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = function(*kept)

    def replay(*new: Any) -> Any:
        for place, argument in zip(kept, new, strict=True):
            if isinstance(place, Tensor):
                place.copy_(argument)
        graph.replay()
        return tree_map(lambda output: output.clone() if isinstance(output, Tensor) else output, outputs)

    return replay


class Replayed:
    """A function without gradients that is recorded at its second call for a shape, and replayed from then on.

    Args:
        function: takes and returns trees of tensors, and plain values.
        model: whose weights it uses.
    """

    def __init__(self, function: Callable[..., Any], model: nn.Module) -> None:
        self.function, self.model = function, model
        self.seen, self.graphs, self.failed = set[Any](), dict[Any, Callable[..., Any]](), False

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Return what the function would."""
        # One that is called by another is part of what that one records.
        if torch.is_grad_enabled() or self.failed or _replaying.get():
            return self.function(*arguments, **named)
        token = _replaying.set(True)
        try:
            return self._replay(arguments, named)
        finally:
            _replaying.reset(token)

    def _replay(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        leaves, tree = tree_flatten((arguments, dict(named)))
        key = (str(tree), *map(_signature, leaves), *self._surroundings())
        if key in self.graphs:
            return self.graphs[key](*leaves)
        if key not in self.seen or len(self.graphs) >= MOST_SHAPES:
            self.seen.add(key)
            return self.function(*arguments, **named)

        def flat(*leaves: Any) -> Any:
            positional, by_name = tree_unflatten(list(leaves), tree)
            return self.function(*positional, **by_name)

        try:
            self.graphs[key] = record(flat, leaves)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            log.warning("this forecast cannot be recorded and goes on as it is: %s", str(error).splitlines()[0])
            self.failed = True
            return self.function(*arguments, **named)
        return self.graphs[key](*leaves)

    def _surroundings(self) -> tuple[Any, ...]:
        """Return what else a recording depends on: where the weights are, mode, precision."""
        places = tuple(weight.data_ptr() for weight in self.model.parameters())
        precision = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        return places, self.model.training, precision, torch.is_inference_mode_enabled()


def _signature(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype, leaf.device, leaf.stride()) if isinstance(leaf, Tensor) else leaf


def _shapes(batch: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in batch.items()}


def _kept_random_state(device: torch.device) -> Any:
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
