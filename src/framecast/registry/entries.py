"""Entries: the facts that belong to a name, and how what they name is imported."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from framecast.models.forecaster import Forecaster


def resolve(target: str | Callable[..., Any]) -> Callable[..., Any]:
    """Import and return what "module:name" names; a function is returned as it is."""
    if callable(target):
        return target
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


class ModelSpec(NamedTuple):
    """What it takes to create a model again: its name and the options it was created with."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Training:
    """Training defaults of a model; the paper's for every recurrent one.

    Attributes:
        optimizer: "adam" or "adamw".
        lr: learning rate (for a one-cycle schedule, its peak).
        weight_decay: of "adam" added to the gradient, of "adamw" decoupled and not on norms and biases.
        schedule: "constant", "one-cycle" or "warmup-cosine"; all follow steps.
        loss: name of the loss, see ``training/losses.py``.
        sampling: name of the sampling policy, see ``models/sampling.py``.
        penalty_weight: factor of the model's own penalty.
        clip_norm: largest norm of the gradient, or None.
    """

    optimizer: str = "adam"
    lr: float = 3e-4
    weight_decay: float = 0.0
    schedule: str = "constant"
    loss: str = "l1+l2"
    sampling: str = "scheduled"
    penalty_weight: float = 0.0
    clip_norm: float | None = None


@dataclass(frozen=True)
class CellEntry:
    """A recurrent cell.

    Attributes:
        column: "module:function" that builds the cells of a stack, ``(channels, depth, *, **options)``.
        published: "module:function" ``(channels, kernel, layer, depth, height, width)`` that returns the
            parameters and the multiply-accumulates per step of one layer at its resolution, as the released
            code and its operation counter have them (dead weights included).
        title: the name as the paper writes it.
        paper: authors, venue, year.
        doi: identifier of the paper.
        training: training defaults.
        no_export: why ``torch.export`` cannot take the model, or "".
        upsampled: how many maps the released pyramid up-samples where the scale changes.
        penalty_option: the option that, when False, builds the cell without its penalty, or "".
    """

    column: str | Callable[..., Any]
    published: str | Callable[..., tuple[int, int]]
    title: str
    paper: str
    doi: str
    training: Training = field(default_factory=Training)
    no_export: str = ""
    upsampled: int = 1
    penalty_option: str = ""


@dataclass(frozen=True)
class ModelEntry:
    """A forecaster: a builder and the facts of its name (see ``CellEntry`` and ``Training``)."""

    name: str
    build: str | Callable[..., Forecaster]
    title: str
    paper: str
    doi: str
    training: Training = field(default_factory=Training)
    no_export: str = ""
    cell: CellEntry | None = None

    def builder(self) -> Callable[..., Forecaster]:
        """Import and return the function that builds the model from its options."""
        build = resolve(self.build)
        return partial(build, resolve(self.cell.column)) if self.cell else build

    def options(self) -> dict[str, inspect.Parameter]:
        """Return the options of the model by name, those of its cell included."""
        own = inspect.signature(self.builder()).parameters.values()
        cell = inspect.signature(resolve(self.cell.column)).parameters.values() if self.cell else ()
        return {p.name: p for p in (*own, *cell) if p.kind is p.KEYWORD_ONLY}


@dataclass(frozen=True)
class BaselineEntry:
    """A forecast that needs no training.

    Attributes:
        forecast: "module:function" ``(past, horizon, valid)``; for an entry with a unit, "module:class" whose instances
            are called so and which is made from the functions ``(scale, unscale)`` to and from physical values.
        unit: the unit it is meant for, or "" for all.
        package: what must be installed for it to be taken without being asked for.
    """

    forecast: str | Callable[..., Any]
    unit: str = ""
    package: str = ""

    def suits(self, unit: str) -> bool:
        """Return whether it is computed for data of that unit without being asked for."""
        installed = not self.package or importlib.util.find_spec(self.package) is not None
        return installed and self.unit in ("", unit)
