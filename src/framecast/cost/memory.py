"""Count the memory of a training step: every tensor from allocation to release, without computing anything.

The step runs on tensors that know their shape and hold no numbers. Each storage is entered when an operation makes it
and struck out when nothing refers to it any more, in backward too, so what is computed again there is seen as it comes
and goes. Sizes are recorded for a batch that is a large prime: what it divides grows with the batch, the rest does
not, and one count answers for every batch.

Reference: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, doi:10.48550/arXiv.1604.06174.
"""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from framecast.models.forecaster import Forecaster, Recompute
from framecast.registry import Training
from framecast.training.losses import sampled_steps, training_loss

# Far above any count of channels or pixels in use, so that no other size is a multiple of it by chance.
MARK = 1_000_003
# Both optimisers of ``framecast.training.task`` keep two running moments of each gradient.
MOMENTS = 2


class StepMemory(NamedTuple):
    """The memory of one training step as it changes, for any batch.

    Attributes:
        fixed: (events,) bytes that each event adds (or frees, negative) whatever the batch.
        per_clip: (events,) bytes that it adds or frees for each clip of the batch.
        before: events before the forward pass: weights, gradients and moments of the last step, clips.
        forward: events until the forward pass ends.
    """

    fixed: NDArray[np.int64]
    per_clip: NDArray[np.int64]
    before: int
    forward: int

    def saved(self, batch: int) -> int:
        """Return the bytes that the forward pass leaves behind for backward."""
        added = self.fixed + batch * self.per_clip
        return int(added[self.before : self.forward].sum())

    def peak(self, batch: int, overhead: float = 1.0, below: float = np.inf) -> int:
        """Return the largest number of bytes alive at once.

        Args:
            batch: clips.
            overhead: factor of the storages of at most ``below`` bytes, for allocators that waste some.
            below: bytes.
        """
        added = (self.fixed + batch * self.per_clip).astype(np.float64)
        added[np.abs(added) <= below] *= overhead
        return int(added.cumsum().max())


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Enter each storage that an operation makes, and strike it out when it ends."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.events: list[int] = []
        self._alive: set[int] = set()

    def enter(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._alive.add(key)
        self.events.append(size)
        weakref.finalize(storage, self._strike, key, size).atexit = False

    def _strike(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.events.append(-size)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self.enter(leaf)
        return output


def count_step(
    model: Forecaster, recipe: Training, shape: Sequence[int], context: int, recompute: Recompute = "none"
) -> StepMemory:
    """Count the memory of a training step: forward, loss and sampling by a recipe, backward, Adam.

    Args:
        model: any forecaster; it is not changed and nothing is computed.
        recipe: how it is trained; loss, sampling and penalty count.
        shape: (T, C, H, W) of the clip.
        context: number of past frames.
        recompute: see ``Forecaster.rollout``.

    Raises:
        ValueError: a shape, context or ``recompute`` the model cannot take.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    ghost = without_values(model, mode).train()
    with mode:
        events, before, forward = record_step(ghost, recipe, torch.empty(MARK, *shape), context, recompute)
    grows = events % MARK == 0
    return StepMemory(np.where(grows, 0, events), np.where(grows, events // MARK, 0), before, forward)


def without_values(model: Forecaster, mode: FakeTensorMode) -> Forecaster:
    """Return a copy on the processor whose parameters and buffers have shapes and no values; shared ones stay shared.

    The meta device would not do: there torch takes the unfused attention, which keeps far more.

    Args:
        model: any forecaster; it is not changed.
        mode: the mode under which the copy is to be run.
    """
    ghost = copy.deepcopy(model)
    with mode:
        for module in ghost.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype)))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
    return ghost


def record_step(
    model: Forecaster, recipe: Training, clip: Tensor, context: int, recompute: Recompute = "none"
) -> tuple[NDArray[np.int64], int, int]:
    """Return the bytes that a training step makes (or frees, negative) one after the other.

    Args:
        model: the forecaster, in training mode.
        recipe: its training defaults.
        clip: (B, T, C, H, W) the batch.
        context: number of past frames.
        recompute: see ``Forecaster.rollout``.

    Returns:
        The bytes (events,), and the numbers of events before the forward pass and until its end.

    Raises:
        ValueError: a shape, context or ``recompute`` the model cannot take.
    """
    ledger = _Ledger()
    with ledger:
        for tensor in [*model.parameters(), *model.buffers(), clip]:
            ledger.enter(tensor)
        trained = sum(p.numel() * p.element_size() for p in model.parameters())
        # The gradients of the step before live until this forward pass ends, as in Lightning's loop.
        ledger.events += [MOMENTS * trained, trained]
        before = len(ledger.events)
        rows = model.blank_rows(clip, recipe.members)
        loss = training_loss(model, recipe, clip, context, sampled_steps(recipe, clip), recompute=recompute, rows=rows)
        gc.collect()
        forward = len(ledger.events)
        ledger.events.append(-trained)
        loss.backward()  # type: ignore[no-untyped-call]
        return np.array(ledger.events, np.int64), before, forward


def shown_bytes(count: float) -> str:
    """Return bytes in MB, from ten GB on in GB, as powers of 1000."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e10 else f"{count / 1e6:,.0f} MB"
